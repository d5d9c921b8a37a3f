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
use crate::hub::outbox::Frame;
use crate::publication::Form;

/// Frames share one message of the WebSocket up to this size, in bytes: larger ones would have to wait for each other.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Slices in one write: more are written with the next one. The kernel takes 1,024.
const SLICES_MAX: usize = 512;

thread_local! {
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater::new(WindowBits::MAX, Effort::Fast));
}

/// Writes the frames of one connection.
pub(super) struct SocketSink<'s, S> {
    socket: &'s S,
    form: Form,
    /// Messages of at least so many bytes are compressed; `None` where the client did not agree to that.
    compressed_bytes_min: Option<usize>,
}

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

impl<'s, S: Socket> SocketSink<'s, S> {
    pub(super) fn new(socket: &'s S, form: Form, compressed_bytes_min: Option<usize>) -> Self {
        Self { socket, form, compressed_bytes_min }
    }

    /// Writes bytes as they are.
    pub(super) async fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_slices(&mut [IoSlice::new(bytes)]).await
    }

    async fn write_slices(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
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

impl<S: Socket> Sink for SocketSink<'_, S> {
    async fn write(&mut self, frames: &[Frame]) -> io::Result<()> {
        let mut messages = Vec::new();
        let mut rest = frames;
        while !rest.is_empty() {
            let (together, behind) = self.cut(rest);
            messages.push(self.message(together));
            rest = behind;
        }
        let separator = self.form.encoding.separator();
        let mut slices = Vec::with_capacity(messages.len() + 2 * frames.len());
        for message in &messages {
            slices.push(IoSlice::new(message.header.as_slice()));
            match &message.payload {
                Payload::Compressed(bytes) => slices.push(IoSlice::new(bytes)),
                Payload::Frames(frames) => {
                    for (number, frame) in frames.iter().enumerate() {
                        if number > 0 && !separator.is_empty() {
                            slices.push(IoSlice::new(separator));
                        }
                        slices.push(IoSlice::new(frame.as_bytes()));
                    }
                }
            }
        }
        self.write_slices(&mut slices).await
    }

    async fn pong(&mut self, payload: Bytes) -> io::Result<()> {
        self.write_raw(&encode_frame(FrameHeader::whole(Opcode::Pong, payload.len()), &payload)).await
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
