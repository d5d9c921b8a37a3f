//! Every code on the wire, in one table: number, text, and what a client may do about it.
//!
//! Numbers and texts, but for error codes from 300 on, are those of the Centrifuge protocol and never change meaning: SDKs decide by them whether to
//! retry, to resubscribe or to reconnect.

use std::fmt;

/// Why a command failed; travels in a reply beside the command's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// The number on the wire, 100 to 399.
    pub number: u32,
    /// The short text on the wire when nothing more exact is known.
    pub text: &'static str,
    /// The same command may succeed later, so SDKs retry it by themselves.
    pub is_temporary: bool,
}

impl ErrorCode {
    const fn terminal(number: u32, text: &'static str) -> Self {
        Self { number, text, is_temporary: false }
    }

    const fn temporary(number: u32, text: &'static str) -> Self {
        Self { number, text, is_temporary: true }
    }

    /// Something failed on our side; the log has the reason under the request or connection id.
    pub const INTERNAL: Self = Self::temporary(100, "internal server error");
    /// The caller has not proved who it is.
    pub const UNAUTHORIZED: Self = Self::terminal(101, "unauthorized");
    /// No rule of the tenant names this channel.
    pub const UNKNOWN_CHANNEL: Self = Self::terminal(102, "unknown channel");
    /// A rule names the channel and refuses this caller.
    pub const PERMISSION_DENIED: Self = Self::terminal(103, "permission denied");
    /// The command names no method that this protocol has.
    pub const METHOD_NOT_FOUND: Self = Self::terminal(104, "method not found");
    /// This connection has a subscription to the channel already.
    pub const ALREADY_SUBSCRIBED: Self = Self::terminal(105, "already subscribed");
    /// A limit is reached; the message names it.
    pub const LIMIT_EXCEEDED: Self = Self::terminal(106, "limit exceeded");
    /// The command cannot be understood; the message names the field.
    pub const BAD_REQUEST: Self = Self::terminal(107, "bad request");
    /// The method exists and is not offered here.
    pub const NOT_AVAILABLE: Self = Self::terminal(108, "not available");
    /// The connection token is expired; SDKs ask for a new one and connect again.
    pub const TOKEN_EXPIRED: Self = Self::terminal(109, "token expired");
    /// The subscription's or connection's time is over.
    pub const EXPIRED: Self = Self::terminal(110, "expired");
    /// Slow down.
    pub const TOO_MANY_REQUESTS: Self = Self::temporary(111, "too many requests");
    /// The position is of another epoch, or what followed it is no longer kept.
    pub const UNRECOVERABLE_POSITION: Self = Self::terminal(112, "unrecoverable position");
    /// Another page of the same listing is being read.
    pub const CONCURRENT_PAGINATION: Self = Self::temporary(113, "concurrent pagination");

    /// The named thing is not there. Ours, and only in the REST API, as are the codes after it.
    pub const NOT_FOUND: Self = Self::terminal(301, "not found");
    /// Somebody else holds or has changed the thing.
    pub const CONFLICT: Self = Self::terminal(302, "conflict");
    /// Data breaks a rule that it is to follow; the error says where and which.
    pub const INVALID_DATA: Self = Self::terminal(303, "invalid data");

    /// The whole table, ascending.
    pub const ALL: &[Self] = &[
        Self::INTERNAL,
        Self::UNAUTHORIZED,
        Self::UNKNOWN_CHANNEL,
        Self::PERMISSION_DENIED,
        Self::METHOD_NOT_FOUND,
        Self::ALREADY_SUBSCRIBED,
        Self::LIMIT_EXCEEDED,
        Self::BAD_REQUEST,
        Self::NOT_AVAILABLE,
        Self::TOKEN_EXPIRED,
        Self::EXPIRED,
        Self::TOO_MANY_REQUESTS,
        Self::UNRECOVERABLE_POSITION,
        Self::CONCURRENT_PAGINATION,
        Self::NOT_FOUND,
        Self::CONFLICT,
        Self::INVALID_DATA,
    ];
}

/// Why the server ended one subscription of a connection that lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubscribeCode {
    /// The number on the wire.
    pub number: u32,
    /// The reason on the wire.
    pub text: &'static str,
}

impl UnsubscribeCode {
    const fn new(number: u32, text: &'static str) -> Self {
        Self { number, text }
    }

    /// The server ended the subscription; the client does not come back.
    pub const SERVER: Self = Self::new(2000, "server unsubscribe");
    /// Events were missed; the client resubscribes from the position that it holds.
    pub const INSUFFICIENT_STATE: Self = Self::new(2500, "insufficient state");
    /// The subscription's time is over; the client resubscribes.
    pub const EXPIRED: Self = Self::new(2501, "subscription expired");
    /// The client drops what it holds and subscribes afresh.
    pub const STATE_INVALIDATED: Self = Self::new(2502, "state invalidated");

    /// The whole table, ascending.
    pub const ALL: &[Self] =
        &[Self::SERVER, Self::INSUFFICIENT_STATE, Self::EXPIRED, Self::STATE_INVALIDATED];

    /// Whether SDKs subscribe again by themselves after this code.
    pub const fn may_resubscribe(self) -> bool {
        self.number >= 2500
    }
}

/// Why the server ended a connection; the close code of the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisconnectCode {
    /// The number on the wire.
    pub number: u16,
    /// The short reason on the wire when nothing more exact is known.
    pub text: &'static str,
}

impl DisconnectCode {
    const fn new(number: u16, text: &'static str) -> Self {
        Self { number, text }
    }

    /// The client closed the connection, and is answered (RFC 6455, 7.4.1, as are the codes up to 1009).
    pub const NORMAL_CLOSURE: Self = Self::new(1000, "");
    /// The client broke the framing of the WebSocket.
    pub const PROTOCOL_ERROR: Self = Self::new(1002, "protocol error");
    /// A payload is not what it says it is: text that is not UTF-8, or bytes that cannot be inflated.
    pub const INVALID_PAYLOAD: Self = Self::new(1007, "invalid payload");
    /// A frame is over [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX) or the configured limit.
    pub const FRAME_TOO_LARGE: Self = Self::new(1009, "message size limit exceeded");
    /// The connection is closed in the ordinary way.
    pub const CONNECTION_CLOSED: Self = Self::new(3000, "connection closed");
    /// This node is going down; another one takes over.
    pub const SHUTDOWN: Self = Self::new(3001, "shutdown");
    /// Something failed on our side.
    pub const SERVER_ERROR: Self = Self::new(3004, "internal server error");
    /// The connection token expired and was not refreshed within the grace time.
    pub const EXPIRED: Self = Self::new(3005, "connection expired");
    /// A subscription token expired and was not refreshed.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::new(3006, "subscription expired");
    /// The client reads more slowly than events arrive and its outbox is full.
    pub const SLOW: Self = Self::new(3008, "slow");
    /// Writing to the connection failed or took too long.
    pub const WRITE_ERROR: Self = Self::new(3009, "write error");
    /// Events of a server-side subscription were missed.
    pub const INSUFFICIENT_STATE: Self = Self::new(3010, "insufficient state");
    /// An operator asked the client to reconnect.
    pub const FORCE_RECONNECT: Self = Self::new(3011, "force reconnect");
    /// The client did not answer a ping.
    pub const NO_PONG: Self = Self::new(3012, "no pong");
    /// The client sends more than it may.
    pub const TOO_MANY_REQUESTS: Self = Self::new(3013, "too many requests");
    /// The client drops what it holds and connects afresh.
    pub const STATE_INVALIDATED: Self = Self::new(3014, "state invalidated");
    /// The token is missing, forged, or of an unknown tenant.
    pub const INVALID_TOKEN: Self = Self::new(3500, "invalid token");
    /// The client broke the protocol; the reason names how.
    pub const BAD_REQUEST: Self = Self::new(3501, "bad request");
    /// The client opened a connection and never sent a connect command.
    pub const STALE: Self = Self::new(3502, "stale");
    /// An operator ended the connection for good.
    pub const FORCE_NO_RECONNECT: Self = Self::new(3503, "force disconnect");
    /// The tenant or user has too many connections.
    pub const CONNECTION_LIMIT: Self = Self::new(3504, "connection limit");
    /// The connection has too many subscriptions.
    pub const CHANNEL_LIMIT: Self = Self::new(3505, "channel limit");
    /// The frame type does not fit the protocol (binary on a JSON connection).
    pub const INAPPROPRIATE_PROTOCOL: Self = Self::new(3506, "inappropriate protocol");
    /// The caller is known and not let in (such as a web page of another origin).
    pub const PERMISSION_DENIED: Self = Self::new(3507, "permission denied");
    /// What the client asks for is not offered here.
    pub const NOT_AVAILABLE: Self = Self::new(3508, "not available");
    /// The client caused too many errors.
    pub const TOO_MANY_ERRORS: Self = Self::new(3509, "too many errors");

    /// The whole table, ascending.
    pub const ALL: &[Self] = &[
        Self::NORMAL_CLOSURE,
        Self::PROTOCOL_ERROR,
        Self::INVALID_PAYLOAD,
        Self::FRAME_TOO_LARGE,
        Self::CONNECTION_CLOSED,
        Self::SHUTDOWN,
        Self::SERVER_ERROR,
        Self::EXPIRED,
        Self::SUBSCRIPTION_EXPIRED,
        Self::SLOW,
        Self::WRITE_ERROR,
        Self::INSUFFICIENT_STATE,
        Self::FORCE_RECONNECT,
        Self::NO_PONG,
        Self::TOO_MANY_REQUESTS,
        Self::STATE_INVALIDATED,
        Self::INVALID_TOKEN,
        Self::BAD_REQUEST,
        Self::STALE,
        Self::FORCE_NO_RECONNECT,
        Self::CONNECTION_LIMIT,
        Self::CHANNEL_LIMIT,
        Self::INAPPROPRIATE_PROTOCOL,
        Self::PERMISSION_DENIED,
        Self::NOT_AVAILABLE,
        Self::TOO_MANY_ERRORS,
    ];

    /// Whether SDKs connect again by themselves after this code.
    ///
    /// 3000-3499 and 4000-4499 reconnect, 3500-3999 and 4500-4999 do not; below 3000 only 1009 is final.
    pub const fn may_reconnect(self) -> bool {
        !matches!(self.number, 1009 | 3500..=3999 | 4500..=4999)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.text)
    }
}

impl fmt::Display for UnsubscribeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.text)
    }
}

impl fmt::Display for DisconnectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_ascending_and_without_repetition() {
        assert!(ErrorCode::ALL.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(UnsubscribeCode::ALL.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(DisconnectCode::ALL.windows(2).all(|pair| pair[0].number < pair[1].number));
    }

    #[test]
    fn reconnection_follows_the_number_ranges_that_sdks_know() {
        assert!(DisconnectCode::SHUTDOWN.may_reconnect());
        assert!(DisconnectCode::NO_PONG.may_reconnect());
        assert!(!DisconnectCode::INVALID_TOKEN.may_reconnect());
        assert!(!DisconnectCode::FRAME_TOO_LARGE.may_reconnect());
        assert!(UnsubscribeCode::INSUFFICIENT_STATE.may_resubscribe());
        assert!(!UnsubscribeCode::SERVER.may_resubscribe());
    }
}
