//! An event's data as it stands inside a JSON frame.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::limits::DEPTH_MAX;

/// Why data cannot travel as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonDataError {
    /// The bytes are not one JSON value.
    #[error("data is not valid JSON")]
    NotJson,
    /// The value nests deeper than [`DEPTH_MAX`].
    #[error("data nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// One JSON value on one line, ready to be placed into frames.
///
/// Newlines separate the replies of a frame, so they are taken out here, once; in valid JSON they can only be
/// whitespace between tokens.
#[derive(Clone, Debug)]
pub struct JsonData<'a>(Cow<'a, RawValue>);

impl<'a> JsonData<'a> {
    /// Checks that `data` is one JSON value of a bounded depth. Borrows unless newlines have to go.
    pub fn from_json(data: &'a [u8]) -> Result<Self, JsonDataError> {
        let raw: &RawValue = serde_json::from_slice(data).map_err(|_| JsonDataError::NotJson)?;
        Self::from_raw(raw)
    }

    /// As [`JsonData::from_json`], for text that a JSON parser has already checked.
    pub fn from_raw(raw: &'a RawValue) -> Result<Self, JsonDataError> {
        let text = raw.get();
        if is_deeper_than(text.as_bytes(), DEPTH_MAX) {
            return Err(JsonDataError::TooDeep);
        }
        if !text.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
            return Ok(Self(Cow::Borrowed(raw)));
        }
        let line = text.replace(['\n', '\r'], " ");
        RawValue::from_string(line).map(|raw| Self(Cow::Owned(raw))).map_err(|_| JsonDataError::NotJson)
    }

    /// Data of any kind: JSON as it is, other text as a JSON string, other bytes as a base64 string.
    ///
    /// A service may publish what is not JSON; a JSON client must still get a frame that it can read.
    pub fn from_any(bytes: &'a [u8]) -> Self {
        if let Ok(data) = Self::from_json(bytes) {
            return data;
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(base64(bytes)),
        };
        match serde_json::value::to_raw_value(&text) {
            Ok(raw) => Self(Cow::Owned(raw)),
            // Writing a string into memory cannot fail; `null` keeps this path total all the same.
            Err(_) => Self(Cow::Borrowed(RawValue::NULL)),
        }
    }

    /// The same, holding its text itself.
    pub fn into_owned(self) -> JsonData<'static> {
        JsonData(Cow::Owned(self.0.into_owned()))
    }

    /// The value's text as bytes.
    pub(crate) fn into_bytes(self) -> Cow<'a, [u8]> {
        match self.0 {
            Cow::Borrowed(raw) => Cow::Borrowed(raw.get().as_bytes()),
            Cow::Owned(raw) => Cow::Owned(Box::<str>::from(raw).into_boxed_bytes().into_vec()),
        }
    }

    pub(crate) fn into_raw(self) -> Cow<'a, RawValue> {
        self.0
    }

    /// The value as raw JSON, to be placed into a frame.
    pub fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// The value's text.
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

/// Whether arrays and objects in `json` nest deeper than `levels`. Counts brackets outside strings, so it needs no
/// stack and gives a safe answer for broken JSON too.
pub(crate) fn is_deeper_than(json: &[u8], levels: usize) -> bool {
    let mut depth = 0usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    false
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// Standard base64 with padding (RFC 4648, 4). Only for binary data on a JSON wire and for handshakes, so clarity over
/// speed.
pub(crate) fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let mut group = 0u32;
        for position in 0..3 {
            group = group << 8 | u32::from(chunk.get(position).copied().unwrap_or(0));
        }
        for position in 0..4 {
            let sextet = (group >> (18 - 6 * position)) & 63;
            let symbol = ALPHABET.get(sextet as usize).copied().unwrap_or(b'=');
            text.push(if position <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(json: &str) -> usize {
        (0..=json.len()).find(|&levels| !is_deeper_than(json.as_bytes(), levels)).unwrap()
    }

    #[test]
    fn counts_only_brackets_outside_strings() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"{"a":[1,{"b":2}]}"#), 3);
        assert_eq!(depth(r#"["[[[", "\"[[["]"#), 1);
        assert_eq!(depth("[][][]"), 1);
    }

    #[test]
    fn refuses_what_is_not_one_json_value() {
        for data in ["", "{", "1 2", "{\"a\":}", "\u{feff}1"] {
            assert_eq!(JsonData::from_json(data.as_bytes()).unwrap_err(), JsonDataError::NotJson, "{data:?}");
        }
        assert_eq!(JsonData::from_json(b"\"\xff\"").unwrap_err(), JsonDataError::NotJson);
    }

    #[test]
    fn refuses_data_that_subscribers_could_not_parse() {
        let deepest = "[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX);
        assert!(JsonData::from_json(deepest.as_bytes()).is_ok());
        let too_deep = format!("[{deepest}]");
        assert_eq!(JsonData::from_json(too_deep.as_bytes()).unwrap_err(), JsonDataError::TooDeep);
    }

    #[test]
    fn puts_pretty_printed_data_on_one_line() {
        let data = JsonData::from_json(b"{\r\n  \"a\": \"x\\ny\"\n}").unwrap();
        assert_eq!(data.get(), "{    \"a\": \"x\\ny\" }");
    }

    #[test]
    fn carries_text_and_bytes_as_json_strings() {
        assert_eq!(JsonData::from_any(b"{\"a\":1}").get(), "{\"a\":1}");
        assert_eq!(JsonData::from_any(b"hello\n").get(), "\"hello\\n\"");
        assert_eq!(JsonData::from_any(b"\xff\x00").get(), "\"/wA=\"");
    }

    #[test]
    fn encodes_base64_as_rfc_4648_shows() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
