//! How a command fails: one line on stderr, and an exit code that says whose turn it is.

use std::fmt;
use std::process::ExitCode;

use crate::print::{self, OutputClosed};

/// A command that failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The command line or a settings file is wrong; exit code 2, as for what the argument parser refuses.
    Usage(String),
    /// Anything else; exit code 1.
    Other(anyhow::Error),
}

impl Failed {
    /// Says it on stderr.
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Usage(_) => 2,
            // `tidewire tail orders | head` has what it wants.
            Self::Other(error) if error.is::<OutputClosed>() => return ExitCode::SUCCESS,
            Self::Other(_) => 1,
        };
        print::note(format_args!("error: {self}"));
        ExitCode::from(code)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Other(error) => f.write_str(&with_causes(error)),
        }
    }
}

/// The error and its causes, outermost first; a cause that an outer text has said already is left out.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |said, cause| {
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let error = anyhow::anyhow!("disk full").context("cannot write: disk full").context("cannot append");
        assert_eq!(Failed::Other(error).to_string(), "cannot append: cannot write: disk full");
    }
}
