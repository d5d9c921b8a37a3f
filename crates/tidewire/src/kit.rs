//! What services write again and again around a store: policy over [`Store`](crate::engine::Store), written once for all
//! engines.

mod presence;

pub use presence::{
    Departed, Departing, Joined, MemberPage, Presence, PresenceChange, PresenceNews, PresenceStats, Present,
    Reaped, Standing,
};
pub(crate) use presence::{Equipment, Home, Roster};
