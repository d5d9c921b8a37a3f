//! The headers by which a connection becomes a WebSocket: RFC 6455, 4.2, and the offers of RFC 7692, 7.1.

use std::borrow::Cow;

use sha1::{Digest as _, Sha1};

use super::deflate::WindowBits;
use crate::json_data::base64;

/// What is put behind the client's key before it is hashed (RFC 6455, 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What every agreement says: no message needs the ones before it, in either direction.
const DEFLATE_ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`; none for a key that is not the base64 of 16 bytes,
/// to be refused with 400.
pub fn accept_key(key: &str) -> Option<String> {
    let digits = key.strip_suffix("==").filter(|digits| digits.len() == 22)?;
    let is_base64 = digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    is_base64.then(|| base64(&Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize()))
}

/// The names that a client asks for in its `Sec-WebSocket-Protocol` headers, the one it likes best first. What is no
/// name (RFC 6455, 4.1: a token) is left out.
pub fn requested_protocols<'a>(headers: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    headers.into_iter().flat_map(|header| header.split(',')).map(trim).filter(|name| is_token(name))
}

/// What was agreed on permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateAgreement {
    /// How the agreement names our window, where the client asked for that.
    named_window: Option<WindowBits>,
}

impl DeflateAgreement {
    /// The `Sec-WebSocket-Extensions` of the response.
    pub fn response_header(&self) -> Cow<'static, str> {
        match self.named_window {
            None => Cow::Borrowed(DEFLATE_ANSWER),
            Some(bits) => Cow::Owned(format!("{DEFLATE_ANSWER}; server_max_window_bits={}", bits.get())),
        }
    }
}

/// A `Sec-WebSocket-Extensions` header breaks the grammar of RFC 6455, 9.1: refuse the handshake with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed Sec-WebSocket-Extensions header")]
pub struct MalformedExtensions;

/// Takes the first offer of permessage-deflate that a deflater of this window can honour; none when there is none.
///
/// An offer with a parameter that is unknown, given twice or out of range is declined and the next one is looked at
/// (RFC 7692, 7); so is one whose `server_max_window_bits` is below `window`. Extensions of other names are passed over.
pub fn agree_deflate<'a>(
    headers: impl IntoIterator<Item = &'a str>,
    window: WindowBits,
) -> Result<Option<DeflateAgreement>, MalformedExtensions> {
    let mut agreed = None;
    // All headers are read, so that whether they are malformed does not depend on what is accepted.
    for header in headers {
        let mut rest = trim(header);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix(',') {
                rest = trim(after);
                continue;
            }
            let offer = read_offer(&mut rest, window)?;
            agreed = agreed.or(offer);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(MalformedExtensions);
            }
        }
    }
    Ok(agreed)
}

/// Reads one extension with its parameters off the front; none when it is not an offer that we take.
fn read_offer(rest: &mut &str, window: WindowBits) -> Result<Option<DeflateAgreement>, MalformedExtensions> {
    let name = read_token(rest)?;
    let mut offer = name.eq_ignore_ascii_case("permessage-deflate").then(Offer::default);
    while let Some(after) = rest.strip_prefix(';') {
        *rest = trim(after);
        let parameter = read_token(rest)?;
        let value = match rest.strip_prefix('=') {
            Some(after) => {
                *rest = trim(after);
                Some(read_value(rest)?)
            }
            None => None,
        };
        offer = offer.and_then(|offer| offer.with(parameter, value.as_deref()));
    }
    Ok(offer.and_then(|offer| offer.agree(window)))
}

/// The parameters of an offer, each at most once.
#[derive(Default)]
struct Offer {
    server_no_context_takeover: Option<()>,
    client_no_context_takeover: Option<()>,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<()>,
}

impl Offer {
    /// None when the parameter makes the offer one to decline.
    fn with(mut self, name: &str, value: Option<&str>) -> Option<Self> {
        let was_given = match (name.to_ascii_lowercase().as_str(), value) {
            ("server_no_context_takeover", None) => self.server_no_context_takeover.replace(()).is_some(),
            ("client_no_context_takeover", None) => self.client_no_context_takeover.replace(()).is_some(),
            ("server_max_window_bits", Some(bits)) => {
                self.server_max_window_bits.replace(parse_window_bits(bits)?).is_some()
            }
            // A hint of what the client can do; we inflate every window there is, so we ask for none.
            ("client_max_window_bits", bits) => {
                if let Some(bits) = bits {
                    parse_window_bits(bits)?;
                }
                self.client_max_window_bits.replace(()).is_some()
            }
            _ => return None,
        };
        (!was_given).then_some(self)
    }

    fn agree(self, window: WindowBits) -> Option<DeflateAgreement> {
        match self.server_max_window_bits {
            None => Some(DeflateAgreement { named_window: None }),
            // Accepting it means saying so in the response, with the same value or a lower one (RFC 7692, 7.1.2.1);
            // Python's `websockets` ends the connection otherwise.
            Some(most) => (window.get() <= most).then_some(DeflateAgreement { named_window: Some(window) }),
        }
    }
}

/// A decimal from 8 to 15 without leading zeros (RFC 7692, 7.1.2).
fn parse_window_bits(text: &str) -> Option<u8> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|bits| is_decimal && (8..=15).contains(bits))
}

/// Reads a token and the blanks behind it.
fn read_token<'a>(rest: &mut &'a str) -> Result<&'a str, MalformedExtensions> {
    let end = rest.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(rest.len());
    let (token, after) = rest.split_at_checked(end).ok_or(MalformedExtensions)?;
    *rest = trim(after);
    if token.is_empty() { Err(MalformedExtensions) } else { Ok(token) }
}

/// Reads a token, or a quoted string that is a token once its quotes are off.
fn read_value<'a>(rest: &mut &'a str) -> Result<Cow<'a, str>, MalformedExtensions> {
    let Some(quoted) = rest.strip_prefix('"') else {
        return read_token(rest).map(Cow::Borrowed);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                *rest = trim(quoted.get(at + 1..).unwrap_or_default());
                return if is_token(&value) { Ok(Cow::Owned(value)) } else { Err(MalformedExtensions) };
            }
            '\\' => value.push(characters.next().ok_or(MalformedExtensions)?.1),
            _ => value.push(character),
        }
    }
    Err(MalformedExtensions)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
