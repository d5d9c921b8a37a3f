//! The two encodings of frames.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::{Command, ConnectRequest, EmulationRequest, Parsed};
use crate::json_data::is_deeper_than;
use crate::limits::{COMMANDS_PER_FRAME_MAX, DEPTH_MAX};
use crate::opaque::Opaque;
use crate::protobuf::{self, ProtobufError};
use crate::push::Push;
use crate::reply::Reply;

/// How a connection's frames are written.
///
/// What is encoded stands in a frame alone or behind others: JSON with a newline between, Protobuf with its length in
/// front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text: one JSON object on a line.
    #[default]
    Json,
    /// Binary: length, then message.
    Protobuf,
}

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
    /// The frame is not text.
    #[error("frame is not UTF-8")]
    NotUtf8,
    /// A line is not JSON, or a field has the wrong type.
    #[error("malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A message is not Protobuf, or a field has the wrong type.
    #[error("malformed Protobuf: {0}")]
    Protobuf(#[from] ProtobufError),
    /// A command asks for two things.
    #[error("more than one method in a command")]
    TwoMethods,
}

impl Encoding {
    /// The server's ping and the client's pong.
    pub const fn ping(self) -> Bytes {
        match self {
            Self::Json => Bytes::from_static(b"{}"),
            Self::Protobuf => Bytes::from_static(&[0]),
        }
    }

    /// What stands between two replies of a frame.
    pub const fn separator(self) -> &'static [u8] {
        match self {
            Self::Json => b"\n",
            Self::Protobuf => b"",
        }
    }

    /// Reads the commands of a frame, all or none. Never panics, whatever the bytes are; its work is linear in them.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the frame.
    pub fn decode_commands(self, frame: &[u8]) -> Result<Vec<Command<'_>>, DecodeError> {
        let mut commands = Vec::new();
        let mut push = |command| {
            if commands.len() == COMMANDS_PER_FRAME_MAX {
                return Err(DecodeError::TooManyCommands);
            }
            commands.push(command);
            Ok(())
        };
        match self {
            Self::Json => {
                if is_deeper_than(frame, DEPTH_MAX) {
                    return Err(DecodeError::TooDeep);
                }
                for line in lines(frame)? {
                    push(serde_json::from_str(line)?)?;
                }
            }
            Self::Protobuf => {
                let mut rest = frame;
                while let Some(message) = protobuf::split(&mut rest)? {
                    push(protobuf::read::<Parsed<'_>>(message)?.command().ok_or(DecodeError::TwoMethods)?)?;
                }
            }
        }
        if commands.is_empty() { Err(DecodeError::Empty) } else { Ok(commands) }
    }

    /// Reads a connect request that stands alone, as the first and only thing that a unidirectional client says.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with it.
    pub fn decode_connect(self, frame: &[u8]) -> Result<ConnectRequest<'_>, DecodeError> {
        match self {
            Self::Json if is_deeper_than(frame, DEPTH_MAX) => Err(DecodeError::TooDeep),
            Self::Json => Ok(serde_json::from_slice(frame)?),
            Self::Protobuf => Ok(protobuf::read(frame)?),
        }
    }

    /// Reads commands that come by a request of their own.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with it.
    pub fn decode_emulation(self, body: &[u8]) -> Result<EmulationRequest<'_>, DecodeError> {
        match self {
            Self::Json => {
                let request: JsonEmulation<'_> = serde_json::from_slice(body)?;
                let data = match request.data {
                    Cow::Borrowed(data) => Cow::Borrowed(data.as_bytes()),
                    Cow::Owned(data) => Cow::Owned(data.into_bytes()),
                };
                Ok(EmulationRequest {
                    node: request.node,
                    session: request.session,
                    data: Opaque::Bytes(data),
                })
            }
            Self::Protobuf => Ok(protobuf::read(body)?),
        }
    }

    /// Reads the replies of a frame: the client's side, for `tidewire tail`, benchmarks and tests.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the frame.
    pub fn decode_replies(self, frame: &[u8]) -> Result<Vec<Reply<'_>>, DecodeError> {
        match self {
            Self::Json => {
                lines(frame)?.map(|line| serde_json::from_str(line).map_err(DecodeError::from)).collect()
            }
            Self::Protobuf => {
                let (mut rest, mut replies) = (frame, Vec::new());
                while let Some(message) = protobuf::split(&mut rest)? {
                    replies.push(protobuf::read(message)?);
                }
                Ok(replies)
            }
        }
    }

    /// Reads a push that stands alone, as unidirectional connections get it.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with it.
    pub fn decode_push(self, mut frame: &[u8]) -> Result<Push<'_>, DecodeError> {
        match self {
            Self::Json => Ok(serde_json::from_slice(frame)?),
            Self::Protobuf => Ok(protobuf::read(protobuf::split(&mut frame)?.unwrap_or_default())?),
        }
    }

    pub(crate) fn encode(self, json: &impl Serialize, protobuf: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        match self {
            // Strings, numbers and checked raw JSON into memory: there is nothing that can fail.
            Self::Json => serde_json::to_vec(json).unwrap_or_default().into(),
            Self::Protobuf => {
                let mut out = Vec::new();
                protobuf::put_with_length(&mut out, protobuf);
                out.into()
            }
        }
    }
}

/// In JSON the commands are a string.
#[derive(Deserialize)]
struct JsonEmulation<'a> {
    #[serde(borrow, default)]
    node: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

fn lines(frame: &[u8]) -> Result<impl Iterator<Item = &str>, DecodeError> {
    let frame = std::str::from_utf8(frame).map_err(|_| DecodeError::NotUtf8)?;
    Ok(frame.split('\n').filter(|line| !line.trim().is_empty()))
}
