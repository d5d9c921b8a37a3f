//! What to do about an error that a server answers with.

use tidewire_protocol::codes::ErrorCode;

const HINTS: &[(ErrorCode, &str)] = &[
    (ErrorCode::INTERNAL, "the server's log says why"),
    (ErrorCode::UNAUTHORIZED, "give a connection token with --token or TIDEWIRE_TOKEN"),
    (ErrorCode::UNKNOWN_CHANNEL, "no channel rule in the server's settings matches it"),
    (ErrorCode::PERMISSION_DENIED, "the channel's rule in the server's settings says who may"),
    (ErrorCode::TOKEN_EXPIRED, "make a new token with `tidewire token`"),
];

/// A server's error as one line, with what to do where that is known.
pub(crate) fn explain(code: u32, message: &str) -> String {
    match HINTS.iter().find(|(known, _)| known.number == code) {
        Some((_, hint)) => format!("{message} (error {code}); {hint}"),
        None => format!("{message} (error {code})"),
    }
}
