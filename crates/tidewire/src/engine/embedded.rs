//! The embedded engine: `memory:` and `file:`.
