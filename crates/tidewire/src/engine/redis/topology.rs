//! Which connection serves which slot. On one server: one for data, one that listens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::address::Address;
use super::connection::{Connection, LinkState};
use super::keys::Tag;
use super::link::{Dial, DialAddress, DialError, describe};
use super::scripts::{self, Scripts};
use super::subscriber::Subscriber;
use crate::engine::{Probe, Setup};
use crate::error::{Error, ErrorKind, Result};

/// The connections of a node. Everything that talks to a server asks here for the one to use.
pub(super) struct Topology {
    endpoint: String,
    data: Connection,
    subscriber: Subscriber,
    pub(super) scripts: Scripts,
    call_time_max: Duration,
}

impl Topology {
    /// Connects to one server. Fails when it cannot be used now; after that, links are dialed again for ever.
    pub(super) async fn open(address: Address, node: &str, setup: &Setup) -> Result<Self> {
        let endpoint = address.endpoint.to_string();
        let dial = |role: &str, prelude| -> Arc<dyn Dial> {
            Arc::new(DialAddress::new(address.clone(), format!("tidewire-{node}-{role}"), prelude))
        };
        let data = dial("data", scripts::prelude());
        let listening = dial("pubsub", Vec::new());
        let data_link = data.dial().await.map_err(dial_error)?;
        let listening_link = listening.dial().await.map_err(dial_error)?;
        tracing::info!(%endpoint, version = %data_link.server.version, "redis engine connected");
        let data = Connection::open(data_link, data, &setup.tasks);
        let call_time_max = setup.limits.call_time_max;
        let scripts = Scripts::load(&data, Instant::now() + call_time_max).await?;
        let subscriber = Subscriber::open(listening_link, listening, setup.sink.clone(), &setup.tasks);
        Ok(Self { endpoint, data, subscriber, scripts, call_time_max })
    }

    /// The connection to the primary that holds a tag's slot.
    pub(super) fn data(&self, _tag: Tag) -> &Connection {
        &self.data
    }

    /// The connection that listens.
    pub(super) fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// When a call that starts now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.call_time_max
    }

    /// Proves a round trip on every link.
    pub(super) async fn probe(&self) -> Vec<Probe> {
        let time_max = self.call_time_max;
        let (data, listening) = tokio::join!(self.data.ping(time_max), self.subscriber.ping(time_max));
        let data = data.map_err(|error| match self.data.state() {
            LinkState::Down(why) => why.to_string(),
            _ => error.to_string(),
        });
        vec![
            Probe { link: format!("data {}", self.endpoint), outcome: data },
            Probe {
                link: format!("pub/sub {}", self.endpoint),
                outcome: listening.map_err(|error| error.to_string()),
            },
        ]
    }
}

fn dial_error(error: DialError) -> Error {
    let kind = if error.is_permanent() { ErrorKind::Engine } else { ErrorKind::Unavailable };
    Error::new(kind, format!("redis cannot be used: {}", describe(&error)))
}
