//! The wire between Tidewire and its clients: no I/O, no runtime.
//!
//! - [`Command`] and [`Reply`]: the Centrifuge client protocol, so that the published `centrifuge` SDKs work unchanged, in
//!   both of its encodings. [`Encoding::decode_commands`] reads a frame, [`Reply::encode`] and [`Push::encode`] write what
//!   stands in one.
//! - [`codes`]: every error, unsubscribe and disconnect code, with what a client may do about it.
//! - [`http`]: the bodies of the Centrifugo-compatible server API.
//! - [`v1`]: the bodies of the REST API for what is ours: groups, dead letters, traces.
//! - [`delta`]: an event's data as what has changed since the data before it.
//! - [`FilterNode`] and [`Filter`]: which events of a channel a subscriber wants, by their tags.
//! - [`websocket`]: the framing below all that: handshake, frames, compression.
//! - [`limits`]: the bounds of a frame, of a delta and of a filter.
//!
//! The data of an event is opaque ([`Opaque`]): JSON text that is checked once and copied, never parsed into a tree, or
//! bytes. All types borrow from the frame that they were read from.

pub mod codes;
mod command;
pub mod delta;
mod encoding;
mod filter;
pub mod http;
mod json_data;
pub mod limits;
mod omit;
mod opaque;
mod protobuf;
mod push;
mod reply;
pub mod v1;
pub mod websocket;

pub use command::{
    ChannelRequest, Command, ConnectData, ConnectRequest, EmulationRequest, HistoryRequest, Method,
    PublishRequest, RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest,
    SubscribeRequest,
};
pub use encoding::{DecodeError, Encoding};
pub use filter::{Filter, FilterError, FilterNode};
pub use json_data::{JsonData, JsonDataError};
pub use opaque::Opaque;
pub use protobuf::ProtobufError;
pub use push::{
    ClientInfo, Direct, Disconnect, Membership, Publication, Push, PushBody, Refresh, Subscribe, Unsubscribe,
};
pub use reply::{
    ConnectResult, Empty, HistoryResult, PresenceResult, PresenceStatsResult, RefreshResult, Reply,
    ReplyBody, ReplyError, RpcResult, SubRefreshResult, SubscribeResult,
};
pub use serde_json::value::RawValue;
