//! Frames into a WebSocket.

use std::cell::RefCell;
use std::io::{self, IoSlice};

use bytes::Bytes;
use tidewire_protocol::Encoding;
use tidewire_protocol::websocket::{
    Deflater, Effort, FrameHeader, HeaderBytes, Opcode, WindowBits, encode_frame,
};

use super::socket::Socket;
use crate::gateway::serve::Sink;
use crate::hub::outbox::{Carried, Carrier, Frame};
use crate::publication::Form;

/// Frames share one message of the WebSocket up to this size, in bytes: larger ones would have to wait for each other.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Slices in one write: more are written with the next one. The kernel takes 1,024.
const SLICES_MAX: usize = 512;

/// What a [`Carrier`] is given is copied together up to this size, in bytes, and left to the writer above it.
const COPIED_BYTES_MAX: usize = 16 * 1024;

thread_local! {
    static COPIED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COPIED_BYTES_MAX));
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater::new(WindowBits::MAX, Effort::Fast));
}

/// The socket of one connection, and how frames are written to it.
pub(super) struct Wire<S> {
    socket: S,
    form: Form,
    /// Messages of at least so many bytes are compressed; `None` where the client did not agree to that.
    compressed_bytes_min: Option<usize>,
}

/// Writes the frames of one connection, and waits until they are taken.
pub(super) struct SocketSink<'s, S>(pub(super) &'s Wire<S>);

/// One message of the WebSocket, ready to be written.
struct Message<'f> {
    header: HeaderBytes,
    payload: Payload<'f>,
}

enum Payload<'f> {
    /// Frames side by side, as they are.
    Frames(&'f [Frame]),
    Compressed(Bytes),
}

impl<S: Socket> Wire<S> {
    pub(super) fn new(socket: S, form: Form, compressed_bytes_min: Option<usize>) -> Self {
        Self { socket, form, compressed_bytes_min }
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    /// Writes bytes as they are.
    pub(super) async fn write_raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_slices(&mut [IoSlice::new(bytes)]).await
    }

    async fn write_slices(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // What is empty is written.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let end = slices.len().min(SLICES_MAX);
            match self.socket.try_write(slices.get(..end).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        loop {
            match self.socket.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                outcome => return outcome,
            }
        }
    }

    /// Frames as messages of the WebSocket.
    fn messages<'f>(&self, frames: &'f [Frame], mut each: impl FnMut(Message<'f>)) {
        let mut rest = frames;
        while !rest.is_empty() {
            let (together, behind) = self.cut(rest);
            each(self.message(together));
            rest = behind;
        }
    }

    fn message<'f>(&self, frames: &'f [Frame]) -> Message<'f> {
        let opcode = match self.form.encoding {
            Encoding::Json => Opcode::Text,
            Encoding::Protobuf => Opcode::Binary,
        };
        let separator = self.form.encoding.separator();
        let length = length_of(frames, separator);
        if self.compressed_bytes_min.is_none_or(|bytes_min| length < bytes_min) {
            let header = FrameHeader::whole(opcode, length).encode();
            return Message { header, payload: Payload::Frames(frames) };
        }
        let compressed = match frames {
            [frame] => frame.compressed(compress),
            frames => compress(&frames.iter().map(Frame::as_bytes).collect::<Vec<_>>().join(separator)),
        };
        let header = FrameHeader::whole(opcode, compressed.len()).compressed().encode();
        Message { header, payload: Payload::Compressed(compressed) }
    }

    /// Cuts frames into those that share a message. Compressed ones go alone: what many connections get is compressed once.
    fn cut<'f>(&self, frames: &'f [Frame]) -> (&'f [Frame], &'f [Frame]) {
        let is_alone = self.form.is_unidirectional || self.compressed_bytes_min.is_some();
        let separator = self.form.encoding.separator().len();
        let mut count = 1;
        let mut length = frames.first().map_or(0, Frame::len);
        for frame in frames.iter().skip(1) {
            length += separator + frame.len();
            if is_alone || length > MESSAGE_BYTES_MAX {
                break;
            }
            count += 1;
        }
        frames.split_at(count.min(frames.len()))
    }
}

impl<S: Socket + Send> Carrier for Wire<S> {
    fn try_write(&self, frames: &[Frame]) -> Carried {
        let separator = self.form.encoding.separator();
        // More than they take, for each may be a message of its own.
        let room = |frame: &Frame| frame.len() + size_of::<HeaderBytes>();
        if frames.iter().map(room).sum::<usize>() > COPIED_BYTES_MAX {
            return Carried::Nothing;
        }
        COPIED.with_borrow_mut(|copied| {
            copied.clear();
            self.messages(frames, |message| {
                copied.extend_from_slice(message.header.as_slice());
                message.pieces(separator, |piece| copied.extend_from_slice(piece));
            });
            match self.socket.try_write(&[IoSlice::new(copied)]) {
                Ok(written) => match copied.get(written..) {
                    None | Some([]) if self.socket.try_flush().is_ok() => Carried::All,
                    rest => Carried::Part(Bytes::copy_from_slice(rest.unwrap_or_default())),
                },
                // The writer waits, or meets the same error.
                Err(_) => Carried::Nothing,
            }
        })
    }
}

impl Message<'_> {
    /// Its payload, in pieces.
    fn pieces<'m>(&'m self, separator: &'m [u8], mut each: impl FnMut(&'m [u8])) {
        match &self.payload {
            Payload::Compressed(bytes) => each(bytes),
            Payload::Frames(frames) => {
                for (number, frame) in frames.iter().enumerate() {
                    if number > 0 && !separator.is_empty() {
                        each(separator);
                    }
                    each(frame.as_bytes());
                }
            }
        }
    }
}

impl<S: Socket> Sink for SocketSink<'_, S> {
    async fn write(&mut self, frames: &[Frame]) -> io::Result<()> {
        let Self(wire) = self;
        let mut messages = Vec::new();
        wire.messages(frames, |message| messages.push(message));
        let separator = wire.form.encoding.separator();
        let mut slices = Vec::with_capacity(messages.len() + 2 * frames.len());
        for message in &messages {
            slices.push(IoSlice::new(message.header.as_slice()));
            message.pieces(separator, |piece| slices.push(IoSlice::new(piece)));
        }
        wire.write_slices(&mut slices).await
    }

    async fn finish(&mut self, rest: &[u8]) -> io::Result<()> {
        self.0.write_raw(rest).await
    }

    async fn pong(&mut self, payload: Bytes) -> io::Result<()> {
        self.0.write_raw(&encode_frame(FrameHeader::whole(Opcode::Pong, payload.len()), &payload)).await
    }
}

fn length_of(frames: &[Frame], separator: &[u8]) -> usize {
    let bytes: usize = frames.iter().map(Frame::len).sum();
    bytes + separator.len() * frames.len().saturating_sub(1)
}

fn compress(payload: &[u8]) -> Bytes {
    let mut out = Vec::new();
    DEFLATER.with_borrow_mut(|deflater| deflater.compress(payload, &mut out));
    out.into()
}
