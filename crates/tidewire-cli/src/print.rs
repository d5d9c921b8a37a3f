//! Output: lines for standard output, notes for standard error.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use anyhow::{Context, Result};
use serde::Serialize;

/// Whoever read standard output is gone: nothing is left to do, and nothing went wrong.
#[derive(Debug)]
pub(crate) struct OutputClosed;

impl fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Writes a line to standard output, at once.
///
/// # Errors
/// [`OutputClosed`] if nobody reads it.
pub(crate) fn line(text: impl fmt::Display) -> Result<()> {
    written(writeln!(io::stdout(), "{text}"))
}

/// Writes a value to standard output as one line of JSON.
///
/// # Errors
/// As [`line`].
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string(value)?)
}

/// Writes a text that ends its own lines to standard output.
///
/// # Errors
/// As [`line`].
pub(crate) fn text(text: &[u8]) -> Result<()> {
    let mut output = io::stdout();
    written(output.write_all(text).and_then(|()| output.flush()))
}

/// Writes a line for people to standard error. Where that fails nobody can be told.
pub(crate) fn note(text: impl fmt::Display) {
    let _nobody_to_tell = writeln!(io::stderr(), "{text}");
}

/// The text without what could break a line or steer a terminal; JSON stays the same JSON.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            // In JSON these stand between values only.
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => {
                let _infallible = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}

fn written(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_break_its_line_or_steer_the_terminal() {
        assert_eq!(one_line("{\"a\":\n\t1}"), "{\"a\":  1}");
        assert_eq!(one_line("\"\u{9b}31m\u{7f}\""), r#""\u009b31m\u007f""#);
        assert!(matches!(one_line("\"ü\""), Cow::Borrowed(_)));
    }
}
