//! Frames: several commands or replies joined by newlines.

use crate::command::Command;
use crate::json_data::is_deeper_than;
use crate::limits::{COMMANDS_PER_FRAME_MAX, DEPTH_MAX};
use crate::reply::Reply;

/// The server's ping and the client's pong.
pub const EMPTY_FRAME: &str = "{}";

/// Why a frame cannot be read. The sender broke the protocol: disconnect with 3501 bad request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame holds no command.
    #[error("frame is empty")]
    Empty,
    /// The frame holds more than [`COMMANDS_PER_FRAME_MAX`] commands.
    #[error("frame has more than {COMMANDS_PER_FRAME_MAX} commands")]
    TooManyCommands,
    /// A line nests deeper than [`DEPTH_MAX`].
    #[error("frame nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// A line is not JSON, or a field has the wrong type.
    #[error("malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads the commands of a frame, all or none. Never panics, whatever the bytes are; its work is linear in them.
pub fn decode_commands(frame: &str) -> Result<Vec<Command<'_>>, DecodeError> {
    if is_deeper_than(frame.as_bytes(), DEPTH_MAX) {
        return Err(DecodeError::TooDeep);
    }
    let mut commands = Vec::new();
    for line in lines(frame) {
        if commands.len() == COMMANDS_PER_FRAME_MAX {
            return Err(DecodeError::TooManyCommands);
        }
        commands.push(serde_json::from_str(line)?);
    }
    if commands.is_empty() { Err(DecodeError::Empty) } else { Ok(commands) }
}

/// Reads the replies of a frame: the client's side, for `tidewire tail` and tests.
pub fn decode_replies(frame: &str) -> Result<Vec<Reply<'_>>, DecodeError> {
    lines(frame).map(|line| serde_json::from_str(line).map_err(DecodeError::from)).collect()
}

fn lines(frame: &str) -> impl Iterator<Item = &str> {
    frame.split('\n').filter(|line| !line.trim().is_empty())
}
