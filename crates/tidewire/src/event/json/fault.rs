//! What JSON from outside may be, and what is wrong with it.

use std::fmt;

/// Bounds of JSON from outside, checked by [`check_json`](crate::check_json).
///
/// The length of the text is not among them: whoever reads it has a bound of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct JsonLimits {
    /// Objects and arrays inside one another; 64. Parsers that recurse need a stack as deep as the text is.
    pub depth_max: usize,
    /// Keys of one object; 1,000.
    pub object_keys_max: usize,
    /// Keys in all; 10,000. Each costs eight bytes or so while its object is open.
    pub keys_max: usize,
    /// Values in all, objects and arrays among them; 100,000. A parsed value takes some thirty bytes, however short its text.
    pub values_max: usize,
    /// One string or key as written between its quotes, bytes; 256 KiB.
    pub string_bytes_max: usize,
    /// One number as written, bytes; 64. Some parsers keep every digit.
    pub number_bytes_max: usize,
}

impl Default for JsonLimits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            object_keys_max: 1_000,
            keys_max: 10_000,
            values_max: 100_000,
            string_bytes_max: 256 * 1024,
            number_bytes_max: 64,
        }
    }
}

/// Which rule a JSON text breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JsonRule {
    /// It is not JSON as [RFC 8259](https://www.rfc-editor.org/rfc/rfc8259) has it.
    Syntax,
    /// [`JsonLimits::depth_max`].
    Depth,
    /// [`JsonLimits::object_keys_max`] or [`JsonLimits::keys_max`].
    Keys,
    /// [`JsonLimits::values_max`].
    Values,
    /// [`JsonLimits::string_bytes_max`].
    StringBytes,
    /// A number that is malformed, not finite as a 64-bit float, or longer than [`JsonLimits::number_bytes_max`].
    Number,
    /// One key stands twice in one object; parsers disagree on which counts.
    DuplicateKey,
    /// Half of a surrogate pair: no character.
    Surrogate,
    /// A control character in a string or key: raw, or escaped and none of `\t`, `\n`, `\r`.
    ControlCharacter,
    /// Bytes that are not UTF-8.
    Utf8,
}

impl JsonRule {
    /// Its name for programs, such as `duplicate_key`; names never change meaning.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Depth => "depth",
            Self::Keys => "keys",
            Self::Values => "values",
            Self::StringBytes => "string_bytes",
            Self::Number => "number",
            Self::DuplicateKey => "duplicate_key",
            Self::Surrogate => "surrogate",
            Self::ControlCharacter => "control_character",
            Self::Utf8 => "utf8",
        }
    }
}

impl fmt::Display for JsonRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with a JSON text, and where.
///
/// Shows keys of the text, cut, but never a value, which may be personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFault {
    /// The value that it lies in or directly after: a JSON pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)) of at
    /// most 256 bytes; a longer one is cut and ends with `…`. Empty for the whole text.
    pub pointer: Box<str>,
    /// The rule that is broken.
    pub rule: JsonRule,
    pub(super) text: Box<str>,
}

impl JsonFault {
    /// What is wrong, for people; lower case, without the pointer.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.pointer.is_empty() { "" } else { " at " };
        write!(f, "data{separator}{}: {}", self.pointer, self.text)
    }
}

impl std::error::Error for JsonFault {}
