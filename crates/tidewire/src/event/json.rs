//! JSON from outside: one look at its bytes says whether it may be parsed, before anything is allocated for it.
//!
//! No recursion and no copies: memory is bounded by [`JsonLimits`], not by the text. Keys are remembered as hashes, and
//! where a fault lies is worked out only when there is one.

// Their paths are spelled out because the fuzz target takes this file by its path.
#[path = "json/fault.rs"]
mod fault;
#[path = "json/seen.rs"]
mod seen;
#[path = "json/stack.rs"]
mod stack;
#[path = "json/text.rs"]
mod text;

use std::borrow::Cow;

pub use fault::{JsonFault, JsonLimits, JsonRule};
use seen::SeenKeys;
use stack::Stack;
use text::{Pointer, Written, is_finite, plain_bytes, unescape};

/// Objects and arrays around a value that fit without an allocation: more than ordinary events have.
const INLINE_FRAMES: usize = 8;
/// A number without an exponent that has at most as many characters is far from the largest 64-bit float, 1.8e308.
const FINITE_NUMBER_BYTES: usize = 300;

/// Checks that `json` is one JSON text ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259)) within `limits`.
///
/// Stricter than the RFC where parsers disagree: no key twice in one object, however it is escaped; no lone surrogates; no
/// control characters but `\t`, `\n`, `\r`, and those only escaped; no numbers that a 64-bit float cannot hold; no byte
/// order mark. Allocates nothing for texts of ordinary shape. Two different keys count as one with a chance of less than
/// one in 10^13 for an object of 1,000 keys, as hashes are compared.
///
/// # Errors
/// The first fault in the order of the text.
///
/// ```
/// use tidewire::{JsonLimits, JsonRule, check_json};
/// let fault = check_json(br#"{"items":[{"id":1,"\u0069d":2}]}"#, &JsonLimits::default()).unwrap_err();
/// assert_eq!(fault.rule, JsonRule::DuplicateKey);
/// assert_eq!(fault.to_string(), "data at /items/0/id: duplicate key");
/// ```
pub fn check_json(json: &[u8], limits: &JsonLimits) -> Result<(), JsonFault> {
    let valid = match std::str::from_utf8(json) {
        Ok(text) => return Scanner::new(text.as_bytes(), limits).check(),
        Err(error) => json.get(..error.valid_up_to()).unwrap_or_default(),
    };
    let mut scanner = Scanner::new(valid, limits);
    match scanner.scan() {
        Err(stop) if !stop.is_cut => Err(scanner.fault(&stop)),
        // All before the bad bytes is well.
        _ => {
            let text = format!("bytes that are not UTF-8 at byte {}", valid.len());
            Err(scanner.fault(&Stop::new(JsonRule::Utf8, text)))
        }
    }
}

/// An object or array that is open.
#[derive(Clone, Copy)]
enum Frame {
    Array { index: usize },
    Object(Object),
}

#[derive(Clone, Copy, Default)]
struct Object {
    /// Where its latest key stands in the text, if that key is right.
    key_from: usize,
    key_bytes: usize,
    has_key: bool,
    /// How many keys it has so far, and where their hashes begin.
    keys: usize,
    hashes_from: usize,
}

/// Whether the value that comes next is inside of the one that was just looked at.
#[derive(PartialEq)]
enum Opened {
    Yes,
    No,
}

/// Why scanning ended; on the heap, so that what is returned all the time stays small.
type Scanned<T> = Result<T, Box<Stop>>;

struct Stop {
    rule: JsonRule,
    text: Cow<'static, str>,
    /// The text ended too early.
    is_cut: bool,
}

impl Stop {
    #[cold]
    fn new(rule: JsonRule, text: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { rule, text: text.into(), is_cut: false })
    }
}

struct Scanner<'a> {
    json: &'a [u8],
    limits: &'a JsonLimits,
    frames: Stack<Frame, INLINE_FRAMES>,
    seen: SeenKeys,
    values: usize,
}

/// What is left of the text is handed from one function to the next, not kept here: so it stays in registers.
impl<'a> Scanner<'a> {
    fn new(json: &'a [u8], limits: &'a JsonLimits) -> Self {
        Self { json, limits, frames: Stack::new(Frame::Array { index: 0 }), seen: SeenKeys::new(), values: 0 }
    }

    fn check(mut self) -> Result<(), JsonFault> {
        self.scan().map_err(|stop| self.fault(&stop))
    }

    fn scan(&mut self) -> Scanned<()> {
        let mut rest = self.json;
        if rest.starts_with("\u{feff}".as_bytes()) {
            return Err(Stop::new(JsonRule::Syntax, "starts with a byte order mark"));
        }
        'value: loop {
            rest = skip_space(rest);
            if let Some(Frame::Object(_)) = self.frames.last_mut() {
                rest = self.key(rest)?;
            }
            let opened = self.value(&mut rest)?;
            if opened == Opened::Yes {
                continue;
            }
            // One value ended: with it may end what is around it.
            loop {
                rest = skip_space(rest);
                let Some(frame) = self.frames.last_mut() else {
                    return if rest.is_empty() {
                        Ok(())
                    } else {
                        Err(self.expected("the end of the text", rest))
                    };
                };
                match (rest.split_first(), frame) {
                    (Some((b',', after)), frame) => {
                        if let Frame::Array { index } = frame {
                            *index += 1;
                        }
                        rest = after;
                        continue 'value;
                    }
                    (Some((b']', after)), Frame::Array { .. }) | (Some((b'}', after)), Frame::Object(_)) => {
                        rest = after;
                        self.close();
                    }
                    (_, Frame::Array { .. }) => return Err(self.expected("',' or ']'", rest)),
                    (_, Frame::Object(_)) => return Err(self.expected("',' or '}'", rest)),
                }
            }
        }
    }

    /// Reads a value, or opens it if there is something in it.
    #[inline(always)]
    fn value(&mut self, rest: &mut &'a [u8]) -> Scanned<Opened> {
        self.values += 1;
        if self.values > self.limits.values_max {
            let text = format!("more than {} values (values_max)", self.limits.values_max);
            return Err(Stop::new(JsonRule::Values, text));
        }
        let Some((&first, after)) = rest.split_first() else {
            return Err(self.expected("a value", rest));
        };
        let (frame, end) = match first {
            b'"' => {
                *rest = self.string(after)?.after();
                return Ok(Opened::No);
            }
            b'-' | b'0'..=b'9' => {
                *rest = self.number(rest)?;
                return Ok(Opened::No);
            }
            b'{' => (Frame::Object(Object { hashes_from: self.seen.kept(), ..Object::default() }), b'}'),
            b'[' => (Frame::Array { index: 0 }, b']'),
            _ => {
                *rest = self.literal(rest)?;
                return Ok(Opened::No);
            }
        };
        if self.frames.len() >= self.limits.depth_max {
            let text = format!("nested deeper than {} (depth_max)", self.limits.depth_max);
            return Err(Stop::new(JsonRule::Depth, text));
        }
        *rest = skip_space(after);
        if let Some((next, after)) = rest.split_first()
            && *next == end
        {
            *rest = after;
            return Ok(Opened::No);
        }
        self.frames.push(frame);
        Ok(Opened::Yes)
    }

    fn close(&mut self) {
        if let Some(&mut Frame::Object(Object { hashes_from, .. })) = self.frames.last_mut() {
            self.seen.forget(self.frames.len(), hashes_from);
        }
        self.frames.pop();
    }

    /// Reads a key and its colon, and the space after it.
    #[inline(always)]
    fn key(&mut self, rest: &'a [u8]) -> Scanned<&'a [u8]> {
        let depth = self.frames.len();
        let Some(Frame::Object(object)) = self.frames.last_mut() else {
            return Ok(rest);
        };
        // Until the new key is read, a fault lies in the object.
        object.has_key = false;
        object.keys += 1;
        let Some((b'"', after)) = rest.split_first() else {
            return Err(self.expected("a key", rest));
        };
        if object.keys > self.limits.object_keys_max || self.seen.all >= self.limits.keys_max {
            return Err(self.too_many_keys());
        }
        let hashes_from = object.hashes_from;
        let written = self.string(after)?;
        if let Some(Frame::Object(object)) = self.frames.last_mut() {
            object.has_key = true;
            object.key_from = self.json.len() - after.len();
            object.key_bytes = written.bytes;
        }
        if !self.seen.add(depth, hashes_from, &written) {
            return Err(Stop::new(JsonRule::DuplicateKey, "duplicate key"));
        }
        let rest = skip_space(written.after());
        match rest.split_first() {
            Some((b':', after)) => Ok(skip_space(after)),
            _ => Err(self.expected("':'", rest)),
        }
    }

    #[cold]
    fn too_many_keys(&self) -> Box<Stop> {
        let text = if self.seen.all >= self.limits.keys_max {
            format!("more than {} keys (keys_max)", self.limits.keys_max)
        } else {
            format!("more than {} keys in one object (object_keys_max)", self.limits.object_keys_max)
        };
        Stop::new(JsonRule::Keys, text)
    }

    /// Reads a string; `from` begins after its opening quote.
    #[inline(always)]
    fn string(&self, from: &'a [u8]) -> Scanned<Written<'a>> {
        let mut bytes = plain_bytes(from);
        let mut has_escapes = false;
        if from.get(bytes) != Some(&b'"') {
            has_escapes = true;
            bytes = self.string_bytes(from, bytes)?;
        }
        if bytes > self.limits.string_bytes_max {
            let max = self.limits.string_bytes_max;
            let text = format!("string is {bytes} bytes, limit is {max} (string_bytes_max)");
            return Err(Stop::new(JsonRule::StringBytes, text));
        }
        Ok(Written { from, bytes, has_escapes })
    }

    /// The length of a string whose first `bytes` are plain, and then something is not.
    #[inline(never)]
    fn string_bytes(&self, from: &'a [u8], mut bytes: usize) -> Scanned<usize> {
        loop {
            let rest = from.get(bytes..).unwrap_or_default();
            match rest.split_first() {
                Some((b'"', _)) => return Ok(bytes),
                Some((b'\\', after)) => {
                    let (_, after) = unescape(after).map_err(|(rule, what)| self.stop(rule, what, rest))?;
                    bytes = from.len() - after.len();
                }
                Some(_) => return Err(self.stop(JsonRule::ControlCharacter, "control character", rest)),
                None => return Err(self.expected("the end of a string", rest)),
            }
            bytes += plain_bytes(from.get(bytes..).unwrap_or_default());
        }
    }

    #[inline]
    fn number(&self, from: &'a [u8]) -> Scanned<&'a [u8]> {
        let mut rest = from.strip_prefix(b"-").unwrap_or(from);
        rest = match rest.split_first() {
            Some((b'0', after)) => after,
            _ => self.digits(rest)?,
        };
        if let Some(after) = rest.strip_prefix(b".") {
            rest = self.digits(after)?;
        }
        let mut has_exponent = false;
        if let Some((b'e' | b'E', after)) = rest.split_first() {
            has_exponent = true;
            let unsigned = after.strip_prefix(b"-").or_else(|| after.strip_prefix(b"+")).unwrap_or(after);
            rest = self.digits(unsigned)?;
        }
        let bytes = from.len() - rest.len();
        if bytes > self.limits.number_bytes_max {
            let max = self.limits.number_bytes_max;
            let text = format!("number is {bytes} characters, limit is {max} (number_bytes_max)");
            return Err(Stop::new(JsonRule::Number, text));
        }
        let may_be_infinite = has_exponent || bytes > FINITE_NUMBER_BYTES;
        if may_be_infinite && !from.get(..bytes).is_some_and(is_finite) {
            return Err(self.stop(JsonRule::Number, "number larger than a 64-bit float", from));
        }
        Ok(rest)
    }

    /// Skips digits, at least one.
    #[inline]
    fn digits(&self, text: &'a [u8]) -> Scanned<&'a [u8]> {
        let mut rest = text;
        while let Some((b'0'..=b'9', after)) = rest.split_first() {
            rest = after;
        }
        if rest.len() < text.len() { Ok(rest) } else { Err(self.no_digit(text)) }
    }

    #[cold]
    fn no_digit(&self, text: &[u8]) -> Box<Stop> {
        match text {
            [] => self.expected("a digit", text),
            [b'I', ..] => self.stop(JsonRule::Number, "infinity, which JSON does not have,", text),
            _ => self.stop(JsonRule::Number, "number without a digit", text),
        }
    }

    #[inline]
    fn literal(&self, rest: &'a [u8]) -> Scanned<&'a [u8]> {
        match rest {
            [b't', b'r', b'u', b'e', after @ ..]
            | [b'n', b'u', b'l', b'l', after @ ..]
            | [b'f', b'a', b'l', b's', b'e', after @ ..] => Ok(after),
            [b'N', b'a', b'N', ..] | [b'I', b'n', b'f', ..] => {
                Err(self.stop(JsonRule::Number, "NaN or infinity, which JSON does not have,", rest))
            }
            _ => Err(self.expected("a value", rest)),
        }
    }

    #[cold]
    fn expected(&self, what: &str, rest: &[u8]) -> Box<Stop> {
        let mut stop = self.stop(JsonRule::Syntax, &format!("expected {what}"), rest);
        stop.is_cut = rest.is_empty();
        stop
    }

    #[cold]
    fn stop(&self, rule: JsonRule, what: &str, rest: &[u8]) -> Box<Stop> {
        Stop::new(rule, format!("{what} at byte {}", self.json.len() - rest.len()))
    }

    #[cold]
    fn fault(&self, stop: &Stop) -> JsonFault {
        let mut pointer = Pointer::default();
        for frame in self.frames.as_slice() {
            match frame {
                Frame::Array { index } => pointer.push(index.to_string().as_bytes()),
                Frame::Object(object) if object.has_key => {
                    let to = object.key_from + object.key_bytes;
                    pointer.push(self.json.get(object.key_from..to).unwrap_or_default());
                }
                Frame::Object(_) => {}
            }
        }
        JsonFault { pointer: pointer.into(), rule: stop.rule, text: stop.text.as_ref().into() }
    }
}

#[inline(always)]
fn skip_space(mut text: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\n' | b'\r' | b'\t', rest)) = text.split_first() {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests;
