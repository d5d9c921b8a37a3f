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

/// Smallest data that a delta is written for, in bytes.
///
/// A delta is 15 bytes before it says anything (size, one copy, checksum), so below this there is nothing to save. Nobody
/// notices: what is smaller travels whole.
pub const DELTA_BYTES_MIN: usize = 32;

/// Largest data that a delta is written for, in bytes, before and after: the largest event.
///
/// Bounds the work, and the index over the former data (at most three quarters of its size). Nobody notices: what is larger travels whole.
pub const DELTA_BYTES_MAX: usize = 1024 * 1024;

/// Most former places that a delta looks at for one place of the new data, as a count.
///
/// Keeps the work linear where the same 16 bytes stand everywhere; past it a delta may be longer than it has to be.
pub const DELTA_PLACES_MAX: usize = 8;

/// Deepest nesting of a tag filter, as a count of levels.
///
/// Filters are compiled and asked recursively, for every event of the channel; what applications build has two or three
/// levels. Over it, as over the next three: the subscription is refused, bad request.
pub const FILTER_DEPTH_MAX: usize = 16;

/// Most nodes in a tag filter, as a count: each is one comparison for each event.
pub const FILTER_NODES_MAX: usize = 256;

/// Most values in all lists (`vals`) of a tag filter, as a count: a watch list of a user.
pub const FILTER_VALUES_MAX: usize = 1_000;

/// Most text in a tag filter, keys and values together, in bytes.
///
/// The server keeps a filter for as long as its subscription lives.
pub const FILTER_BYTES_MAX: usize = 16 * 1024;
