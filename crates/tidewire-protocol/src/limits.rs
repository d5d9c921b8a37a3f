//! The bounds of the wire, each with its unit, its reason, and who notices.

/// Largest frame that a client may send, in bytes (default of `limits.client_frame_bytes_max`).
///
/// Frames are buffered whole before they are read, so this bounds the memory that one connection can claim. Over it
/// the connection is closed with 1009, which SDKs report as "message size limit exceeded" and do not retry.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Most commands in one frame, as a count.
///
/// SDKs put what is queued at connect (one subscribe for each channel) into one frame; 1,000 is far above that and
/// still bounds the work that one read can cause. Over it the connection is closed with 3501 bad request.
pub const COMMANDS_PER_FRAME_MAX: usize = 1_000;

/// Deepest nesting of arrays and objects in a frame or an event's data, as a count of levels.
///
/// We pass data through without parsing it, but every subscriber parses it, and SDKs with recursive parsers (Python:
/// 1,000 levels) would fail on what one hostile publisher sends. Over it: bad request, for the sender only.
pub const DEPTH_MAX: usize = 128;

/// Longest reason in a WebSocket close frame, in bytes: 125 for a control frame (RFC 6455, 5.5) less 2 for the code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
