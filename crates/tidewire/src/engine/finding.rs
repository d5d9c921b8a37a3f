//! What an engine finds out about itself, for those who operate it.

use std::sync::Arc;

use super::Answer;

/// One thing that an engine found out about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    /// What was found, and where.
    pub found: String,
    /// What to change before relying on it; none where all is well.
    pub fix: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, found: found.into(), fix: None }
    }

    /// It works, and there is something to change before relying on it.
    pub fn warn(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Looks around, on links of its own; takes seconds where something does not answer.
pub type Examine = Arc<dyn Fn() -> Answer<'static, Vec<Finding>> + Send + Sync>;

/// For an engine without anything that an operator could set.
pub(super) fn nothing_to_examine() -> Examine {
    Arc::new(|| Box::pin(std::future::ready(Ok(Vec::new()))))
}
