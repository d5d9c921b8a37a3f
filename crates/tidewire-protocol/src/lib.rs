//! The wire between Tidewire and its clients: no I/O, no runtime.
//!
//! - [`Command`] and [`Reply`]: the JSON form of the Centrifuge client protocol, spoken over WebSocket, so that the
//!   published `centrifuge` SDKs work unchanged. [`decode_commands`] reads a frame, [`Reply::encode`] and
//!   [`Push::encode`] write one.
//! - [`codes`]: every error, unsubscribe and disconnect code, with what a client may do about it.
//! - [`http`]: the bodies of the Centrifugo-compatible server API.
//! - [`v1`]: the bodies of the REST API for what is ours: groups, dead letters, traces.
//! - [`delta`]: an event's data as what has changed since the data before it.
//! - [`FilterNode`] and [`Filter`]: which events of a channel a subscriber wants, by their tags.
//! - [`limits`]: the bounds of a frame, of a delta and of a filter.
//!
//! The data of an event is opaque: it travels as raw JSON text ([`RawValue`]) that is checked once and copied, never
//! parsed into a tree. All types borrow from the frame that they were read from.

pub mod codes;
mod command;
pub mod delta;
mod filter;
mod frame;
pub mod http;
mod json_data;
pub mod limits;
mod omit;
mod push;
mod reply;
pub mod v1;

pub use command::{
    Command, ConnectData, ConnectRequest, HistoryRequest, Method, PublishRequest, RefreshRequest,
    StreamPosition, SubscribeRequest, UnsubscribeRequest,
};
pub use filter::{Filter, FilterError, FilterNode};
pub use frame::{DecodeError, EMPTY_FRAME, decode_commands, decode_replies};
pub use json_data::{JsonData, JsonDataError};
pub use push::{ClientInfo, Publication, Push, PushBody, Unsubscribe};
pub use reply::{
    ConnectResult, Empty, HistoryResult, RefreshResult, Reply, ReplyBody, ReplyError, SubscribeResult,
};
pub use serde_json::value::RawValue;
