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
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}
