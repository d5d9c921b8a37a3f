//! WebSocket framing without I/O: RFC 6455, and permessage-deflate of RFC 7692.
//!
//! - [`accept_key`], [`agree_deflate`], [`requested_protocols`]: the headers of the handshake.
//! - [`Reader`]: bytes in, [`Incoming`] out, for either side. It takes bytes from a buffer of the caller's, which many
//!   connections can share, and holds memory only while something is partly here.
//! - [`FrameHeader`], [`encode_frame`], [`encode_close`]: frames out. A header is written beside its payload, so that a
//!   payload that thousands of connections share is never copied.
//! - [`Deflater`], [`inflate`]: compression of one whole payload. No context is taken over, so that what is compressed
//!   once is good for every connection.
//!
//! ```
//! use tidewire_protocol::websocket::{FrameHeader, Incoming, Opcode, Reader, Role, encode_frame};
//!
//! let bytes = encode_frame(FrameHeader::whole(Opcode::Text, 2).masked([1, 2, 3, 4]), b"{}");
//! let mut reader = Reader::new(Role::Server, 64 * 1024);
//! let mut input = &bytes[..];
//! assert_eq!(reader.read(&mut input)?, Some(Incoming::Text("{}".into())));
//! assert_eq!(reader.read(&mut input)?, None);
//! # Ok::<(), tidewire_protocol::websocket::ReadError>(())
//! ```

mod deflate;
mod frame;
mod handshake;
mod reader;

pub use deflate::{Deflater, Effort, InflateError, WindowBits, inflate};
pub use frame::{
    CONTROL_PAYLOAD_BYTES_MAX, FrameHeader, HeaderBytes, Opcode, encode_close, encode_frame, is_close_code,
};
pub use handshake::{DeflateAgreement, MalformedExtensions, accept_key, agree_deflate, requested_protocols};
pub use reader::{Incoming, ReadError, Reader, Role};
