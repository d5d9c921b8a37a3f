//! Commands out of a WebSocket.

use std::cell::RefCell;
use std::future::pending;
use std::io::{self, ErrorKind};

use bytes::Bytes;
use tidewire_protocol::Encoding;
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::websocket::{Incoming, ReadError, Reader, Role};

use super::socket::Socket;
use crate::gateway::serve::{End, Source};
use crate::hub::outbox::{Disconnect, Outbox};

/// Bytes that are read at once.
const SCRATCH_BYTES: usize = 16 * 1024;

thread_local! {
    /// What is read goes through this, so that a connection that sends nothing needs no room for it.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// Reads the frames of a client.
pub(super) struct SocketSource<'s, S> {
    socket: &'s S,
    reader: Reader,
    encoding: Encoding,
    /// What was read behind the last message; empty as long as there is one at a time.
    rest: Bytes,
}

impl<'s, S: Socket> SocketSource<'s, S> {
    /// `early` is what came with the request for the upgrade.
    pub(super) fn new(
        socket: &'s S,
        early: Bytes,
        encoding: Encoding,
        frame_bytes_max: usize,
        is_deflate_agreed: bool,
    ) -> Self {
        let reader = Reader::new(Role::Server, frame_bytes_max);
        let reader = if is_deflate_agreed { reader.with_deflate() } else { reader };
        Self { socket, reader, encoding, rest: early }
    }

    /// The next message in what has been read, or in what can be read now.
    fn try_next(&mut self) -> Result<Option<Incoming>, End> {
        if !self.rest.is_empty() {
            let mut input: &[u8] = &self.rest;
            let incoming = self.reader.read(&mut input).map_err(end_of)?;
            self.rest = if input.is_empty() { Bytes::new() } else { self.rest.slice_ref(input) };
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let length = match self.socket.try_read(scratch) {
                Ok(0) => return Err(End::Theirs),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(_) => return Err(End::Theirs),
            };
            let mut input = scratch.get(..length).unwrap_or_default();
            let incoming = self.reader.read(&mut input).map_err(end_of)?;
            self.rest = if input.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(input) };
            Ok(incoming)
        })
    }
}

impl<S: Socket> Source for SocketSource<'_, S> {
    async fn next(&mut self, outbox: &Outbox) -> Result<Bytes, End> {
        loop {
            match self.try_next()? {
                Some(Incoming::Text(text)) if self.encoding == Encoding::Json => return Ok(text.into()),
                Some(Incoming::Binary(bytes)) if self.encoding == Encoding::Protobuf => return Ok(bytes),
                Some(Incoming::Text(_) | Incoming::Binary(_)) => {
                    return Err(DisconnectCode::INAPPROPRIATE_PROTOCOL.into());
                }
                Some(Incoming::Ping(payload)) => outbox.pong(payload),
                Some(Incoming::Pong(_)) => {}
                // Answered with the code that it came with; there is nobody to tell of another one.
                Some(Incoming::Close(_)) => {
                    return Err(End::Ours(Disconnect::new(DisconnectCode::NORMAL_CLOSURE, "")));
                }
                None if self.rest.is_empty() => self.socket.readable().await.map_err(|_| End::Theirs)?,
                None => {}
            }
        }
    }
}

fn end_of(error: ReadError) -> End {
    End::Ours(match error {
        ReadError::TooLarge { .. } => Disconnect::new(
            DisconnectCode::FRAME_TOO_LARGE,
            "message size limit exceeded (limits.client_frame_bytes_max)",
        ),
        error => Disconnect::new(
            match error.close_code() {
                1007 => DisconnectCode::INVALID_PAYLOAD,
                _ => DisconnectCode::PROTOCOL_ERROR,
            },
            error.to_string(),
        ),
    })
}

/// Reads away what a client sends until it closes the connection. With `is_all_lost` nothing more is read: the stream cannot
/// be read past a frame that was too large, and the connection stays as it is until time is up.
pub(super) async fn drain<S: Socket>(socket: &S, is_all_lost: bool) {
    if is_all_lost {
        return pending().await;
    }
    loop {
        let read = match socket.readable().await {
            Ok(()) => SCRATCH.with_borrow_mut(|scratch| socket.try_read(scratch)),
            Err(error) => Err(error),
        };
        match read {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}
