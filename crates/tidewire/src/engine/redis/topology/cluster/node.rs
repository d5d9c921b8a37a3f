//! A primary of a cluster, and the links to it.

use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::redis::address::Endpoint;
use crate::engine::redis::connection::{Connection, LinkState};
use crate::engine::redis::link::{Dial, DialAddress, DialError, Link};
use crate::engine::redis::subscriber::Subscriber;
use crate::engine::redis::topology::{Durable, Line};

/// A primary.
pub(in crate::engine::redis) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) data: Connection,
    pub(super) durable: Durable,
    pub(super) subscriber: Subscriber,
    /// When it was last to be asked for a slot that it takes over.
    pub(super) asked: Mutex<Option<Instant>>,
}

impl Node {
    pub(in crate::engine::redis) fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    pub(super) fn connection(&self, line: Line) -> &Connection {
        match line {
            Line::Data => &self.data,
            Line::Durable => self.durable.connection(),
        }
    }

    /// Which of its connections this is, if it is one.
    pub(super) fn line_of(&self, connection: &Connection) -> Option<Line> {
        match self.data.is(connection) {
            true => Some(Line::Data),
            false => self.durable.is(connection).then_some(Line::Durable),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.data.state(), LinkState::Up(_))
    }
}

/// Dials a node, and has the map looked at: the node may be gone for good.
pub(super) struct DialNode {
    pub(super) address: DialAddress,
    pub(super) stale: Arc<Notify>,
}

impl Dial for DialNode {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send + '_>> {
        self.stale.notify_one();
        self.address.dial()
    }
}
