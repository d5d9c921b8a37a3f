//! What services write again and again around a store: policy over [`Store`](crate::engine::Store), written once for all
//! engines.

mod presence;

pub use presence::{
    Departed, Joined, MemberPage, Presence, PresenceChange, PresenceNews, PresenceStats, Present,
};
pub(crate) use presence::{Equipment, Home, Roster};
