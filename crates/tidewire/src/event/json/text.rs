//! Strings and numbers as they are written in JSON, and what they stand for.

use super::JsonRule;

/// The longest JSON pointer in a fault, bytes; a longer one is cut.
const POINTER_BYTES_MAX: usize = 256;

/// A string between its quotes.
pub(super) struct Written<'a> {
    /// From its first byte to the end of the whole text.
    pub(super) from: &'a [u8],
    pub(super) bytes: usize,
    pub(super) has_escapes: bool,
}

impl<'a> Written<'a> {
    pub(super) fn text(&self) -> &'a [u8] {
        self.from.get(..self.bytes).unwrap_or_default()
    }

    /// What follows its closing quote.
    #[inline]
    pub(super) fn after(&self) -> &'a [u8] {
        self.from.get(self.bytes + 1..).unwrap_or_default()
    }
}

/// Bytes before the first that ends a string or is not plain in it: `"`, `\`, a control character.
#[inline]
pub(super) fn plain_bytes(text: &[u8]) -> usize {
    let (words, tail) = text.as_chunks::<8>();
    let mut plain = 0;
    for word in words {
        let found = special_bytes(u64::from_le_bytes(*word));
        if found != 0 {
            return plain + (found.trailing_zeros() / 8) as usize;
        }
        plain += 8;
    }
    let is_plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f);
    plain + tail.iter().take_while(is_plain).count()
}

/// Marks the high bits of bytes that [`plain_bytes`] looks for. A mark above the lowest may be false, as a borrow carries.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let marks_zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let quotes = marks_zeros(word ^ (ONES * b'"' as u64));
    let backslashes = marks_zeros(word ^ (ONES * b'\\' as u64));
    let deletes = marks_zeros(word ^ (ONES * 0x7f));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | backslashes | deletes | controls) & HIGHS
}

/// The character that an escape stands for, and what follows it; `text` begins after the backslash.
pub(super) fn unescape(text: &[u8]) -> Result<(char, &[u8]), (JsonRule, &'static str)> {
    const SURROGATE: (JsonRule, &str) = (JsonRule::Surrogate, "lone surrogate");
    let unknown = (JsonRule::Syntax, "escape that JSON does not have");
    let Some((first, after)) = text.split_first() else {
        return Err(unknown);
    };
    let (code, after) = match first {
        b'"' | b'\\' | b'/' => return Ok((char::from(*first), after)),
        b'n' => return Ok(('\n', after)),
        b'r' => return Ok(('\r', after)),
        b't' => return Ok(('\t', after)),
        b'b' => (0x08, after),
        b'f' => (0x0c, after),
        b'u' => match four_digits(after).ok_or(unknown)? {
            (high @ 0xd800..0xdc00, after) => {
                let low = after.strip_prefix(b"\\u").and_then(four_digits);
                let Some((low @ 0xdc00..0xe000, after)) = low else {
                    return Err(SURROGATE);
                };
                (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), after)
            }
            other => other,
        },
        _ => return Err(unknown),
    };
    match char::from_u32(code).ok_or(SURROGATE)? {
        '\t' | '\n' | '\r' => {}
        '\0'..' ' | '\x7f' => return Err((JsonRule::ControlCharacter, "escaped control character")),
        _ => {}
    }
    Ok((char::from_u32(code).ok_or(SURROGATE)?, after))
}

fn four_digits(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, after) = text.split_first_chunk::<4>()?;
    let code = digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?));
    Some((code?, after))
}

pub(super) fn is_finite(number: &[u8]) -> bool {
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse::<f64>().ok());
    number.is_some_and(f64::is_finite)
}

/// Hands over the bytes of a string as it reads, piece by piece, up to an escape that is not valid.
pub(super) fn read_unescaped(mut text: &[u8], mut read: impl FnMut(&[u8])) {
    while let Some(at) = text.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = text.split_at(at);
        read(plain);
        let Ok((character, after)) = unescape(escape.get(1..).unwrap_or_default()) else {
            return;
        };
        read(character.encode_utf8(&mut [0; 4]).as_bytes());
        text = after;
    }
    read(text);
}

/// A JSON pointer that is being written.
#[derive(Default)]
pub(super) struct Pointer {
    text: String,
    is_cut: bool,
}

impl Pointer {
    /// Adds an index, or a key as it is written in the text.
    pub(super) fn push(&mut self, token: &[u8]) {
        const CUT: char = '…';
        let mut bytes = vec![b'/'];
        read_unescaped(token, |piece| {
            // What is longer is not shown, and may be large.
            let room = POINTER_BYTES_MAX.saturating_sub(bytes.len());
            for byte in piece.iter().take(room) {
                match byte {
                    b'~' => bytes.extend_from_slice(b"~0"),
                    b'/' => bytes.extend_from_slice(b"~1"),
                    byte => bytes.push(*byte),
                }
            }
        });
        for character in String::from_utf8_lossy(&bytes).chars() {
            if self.is_cut {
                return;
            }
            self.is_cut = self.text.len() + character.len_utf8() + CUT.len_utf8() > POINTER_BYTES_MAX;
            self.text.push(if self.is_cut { CUT } else { character });
        }
    }
}

impl From<Pointer> for Box<str> {
    fn from(pointer: Pointer) -> Self {
        pointer.text.into()
    }
}
