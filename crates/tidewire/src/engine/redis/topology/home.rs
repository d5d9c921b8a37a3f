//! Where the one server is: at an address, or where sentinels say.

use std::sync::Arc;

use super::sentinel::Sentinels;
use crate::engine::Probe;
use crate::engine::redis::address::{Address, Group};
use crate::engine::redis::command::Command;
use crate::engine::redis::link::{Dial, DialAddress};

pub(super) enum Home {
    Fixed(Address),
    Named(Sentinels),
}

impl Home {
    /// Dials the server, with `prelude` before anything else.
    pub(super) fn dialer(&self, client_name: String, prelude: Vec<Command>) -> Arc<dyn Dial> {
        match self {
            Self::Fixed(address) => Arc::new(DialAddress::new(address.clone(), client_name, prelude)),
            Self::Named(sentinels) => sentinels.dialer(client_name, prelude),
        }
    }

    /// The server as it is known now, for people.
    pub(super) fn endpoint(&self) -> String {
        match self {
            Self::Fixed(address) => address.endpoint.to_string(),
            Self::Named(sentinels) => sentinels.endpoint(),
        }
    }

    /// The server as it is known now; none while nobody says where it is.
    pub(super) fn address(&self) -> Option<Address> {
        match self {
            Self::Fixed(address) => Some(address.clone()),
            Self::Named(sentinels) => sentinels.address(),
        }
    }

    /// Who says where the server is.
    pub(super) fn group(&self) -> Option<&Group> {
        match self {
            Self::Fixed(_) => None,
            Self::Named(sentinels) => Some(sentinels.group()),
        }
    }

    /// Proves a round trip to whoever says where the server is.
    pub(super) async fn probe(&self) -> Vec<Probe> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Named(sentinels) => sentinels.probe().await,
        }
    }
}
