//! permessage-deflate of one whole payload (RFC 7692, 7.2), without context takeover.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// How every sync flush ends; it does not travel (RFC 7692, 7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// What is read behind a payload: the end of its flush, then an empty last block. If that one ends the data, then the
/// payload ended between two blocks.
const INFLATE_TAIL: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// What a first allocation assumes of how far a payload grows: JSON of 2.7 KB comes as 600 to 900 bytes.
const INFLATED_RATIO: usize = 4;

/// How far back a deflater looks for what it has seen, as the base-2 logarithm of bytes: 9 to 15.
///
/// What is well below the window loses nothing by it: at 12 bits (4 KiB) JSON of 2.7 KB comes out as it does at 15, and of
/// 27 KB 7 % larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowBits(u8);

impl WindowBits {
    /// 32 KiB, what every client takes that asks for nothing less.
    pub const MAX: Self = Self(15);

    /// None outside of 9 to 15. (RFC 7692 has 8 too, which zlib does not write.)
    pub const fn new(bits: u8) -> Option<Self> {
        if matches!(bits, 9..=15) { Some(Self(bits)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How hard a deflater tries. Measured on JSON of 2.7 KB: 860 bytes in 11 us, or 600 bytes in 27 us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// For what one connection gets.
    Fast,
    /// For what many connections get, which is compressed once and sent many times.
    Small,
}

/// Compresses payloads, each by itself, so that one result is good for every connection that agreed to this window or
/// to a larger one. Holds some 370 KiB, whatever it compresses: one for a thread or a hub, not one for a connection.
///
/// Which payloads are worth it is the caller's choice: of 150 bytes of JSON next to nothing is saved.
#[derive(Debug)]
pub struct Deflater {
    stream: Compress,
}

impl Deflater {
    /// A deflater that looks back as far as `window`.
    pub fn new(window: WindowBits, effort: Effort) -> Self {
        let level = match effort {
            Effort::Fast => Compression::fast(),
            Effort::Small => Compression::new(6),
        };
        Self { stream: Compress::new_with_window_bits(level, false, window.get()) }
    }

    /// Appends the compressed payload to `out`, for frames whose header says so
    /// ([`super::FrameHeader::compressed`]). `out` gets room for the worst case, an eighth more than the payload; what
    /// is kept for long is better copied out of it.
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.stream.reset();
        let mut rest = payload;
        loop {
            // The bound of zlib. Less than all of it at once would write the mark of the flush twice.
            out.reserve(rest.len() + rest.len() / 8 + rest.len() / 64 + 64);
            let before = self.stream.total_in();
            let status = self.stream.compress_vec(rest, out, FlushCompress::Sync);
            rest = after(rest, self.stream.total_in() - before);
            let is_flushed = rest.is_empty() && out.len() < out.capacity();
            if is_flushed || !matches!(status, Ok(Status::Ok)) {
                break;
            }
        }
        if out.ends_with(&FLUSH_TAIL) {
            out.truncate(out.len() - FLUSH_TAIL.len());
        }
    }
}

/// Why a payload was not inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It is not DEFLATE, or ends within a block.
    #[error("payload cannot be inflated")]
    Malformed,
    /// It inflates to more than the bound; no more than the bound was held.
    #[error("payload inflates to more than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
}

/// Inflates a whole payload that [`Deflater::compress`] or another side's permessage-deflate made, with any window.
/// Never allocates more than `bytes_max` for what comes out; 47 KiB more are kept by each thread that inflates.
pub fn inflate(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    thread_local! {
        static STREAM: RefCell<Decompress> = RefCell::new(Decompress::new(false));
    }
    STREAM.with_borrow_mut(|stream| inflate_with(stream, payload, bytes_max))
}

fn inflate_with(stream: &mut Decompress, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::with_capacity(payload.len().saturating_mul(INFLATED_RATIO).min(bytes_max));
    let mut bytes_left = bytes_max as u64;
    let mut is_ended = true;
    for part in [payload, &INFLATE_TAIL] {
        let mut rest = part;
        while !rest.is_empty() {
            // A payload may end the data and go on with more (RFC 7692, 7.2.3.4).
            if is_ended {
                stream.reset(false);
            }
            let before = (stream.total_in(), stream.total_out());
            let status = if out.len() < bytes_max {
                grow(&mut out, bytes_max);
                stream.decompress_vec(rest, &mut out, FlushDecompress::Sync)
            } else {
                // Room for one byte shows whether there is more.
                stream.decompress(rest, &mut [0], FlushDecompress::Sync)
            };
            let status = status.map_err(|_| InflateError::Malformed)?;
            let (read, written) = (stream.total_in() - before.0, stream.total_out() - before.1);
            bytes_left = bytes_left.checked_sub(written).ok_or(InflateError::TooLarge { bytes_max })?;
            is_ended = status == Status::StreamEnd;
            if read == 0 && written == 0 && !is_ended {
                return Err(InflateError::Malformed);
            }
            rest = after(rest, read);
        }
    }
    if is_ended { Ok(out) } else { Err(InflateError::Malformed) }
}

/// Makes room in a full vector, twice what it had, within the bound.
fn grow(out: &mut Vec<u8>, bytes_max: usize) {
    if out.len() == out.capacity() {
        let wanted = out.len().saturating_mul(2).max(64).min(bytes_max);
        out.reserve_exact(wanted - out.len());
    }
}

/// What is left of `input` when its first `count` bytes are read.
fn after(input: &[u8], count: u64) -> &[u8] {
    usize::try_from(count).ok().and_then(|count| input.get(count..)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
