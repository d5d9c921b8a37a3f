//! An engine that one process alone can open forgets its members when the process ends, and the stream alone says what was
//! told. When it is opened again nobody is there: what the stream has as begun, and not as over, is over.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use tidewire::{Position, Received};

use super::Lifecycle;
use super::fact::Ending;
use super::notice::{Account, Kind, Notice};
use super::witness::all;
use crate::node::Node;

/// What the stream has as begun.
#[derive(Default)]
struct Open {
    /// By client, its subscriptions by channel and last, with `None`, the connection; with the offset of each.
    clients: BTreeMap<String, BTreeMap<Part, (u64, Account)>>,
    channels: BTreeSet<String>,
}

/// A subscription, or the connection: in the order in which they end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Subscription(String),
    Connection,
}

/// Tells as over what was there when the process before this one ended. To be called before anybody can connect.
///
/// # Errors
/// Those of the engine.
pub(crate) async fn recover(node: &Node) -> tidewire::Result<()> {
    if node.tidewire.health().await.is_shared {
        return Ok(());
    }
    for tenant in node.tenants.all() {
        if let Some(lifecycle) = &tenant.lifecycle {
            lifecycle.recover().await?;
        }
    }
    Ok(())
}

impl Lifecycle {
    async fn recover(&self) -> tidewire::Result<()> {
        let Open { clients, channels } = self.read_open().await?;
        all(clients.into_iter().map(|(client, parts)| self.end_client(client, parts).boxed()).collect())
            .await?;
        all(channels.iter().map(|channel| self.reconcile(channel).boxed()).collect()).await
    }

    async fn end_client(
        &self,
        client: String,
        parts: BTreeMap<Part, (u64, Account)>,
    ) -> tidewire::Result<()> {
        for (part, (offset, account)) in parts {
            let (kind, ending) = match part {
                Part::Subscription(_) => (Kind::Unsubscribed, None),
                Part::Connection => (Kind::Disconnected, Some(Ending::of_node())),
            };
            let (code, reason) = ending.map(|Ending { code, reason }| (code, reason)).unzip();
            let account = Account { at: self.clock.now().to_string(), code, reason, ..account };
            self.tell_or_pass(Notice { kind, account, mark: format!("{client}:@{offset}") }).await?;
        }
        Ok(())
    }

    async fn read_open(&self) -> tidewire::Result<Open> {
        let (mut open, mut after) = (Open::default(), None::<Position>);
        loop {
            let reading = self.channel.read();
            let page = match after {
                Some(position) => reading.after(position).await?,
                None => reading.await?,
            };
            let Some(last) = page.events.last().and_then(|received| received.position) else {
                return Ok(open);
            };
            for received in &page.events {
                open.note(received);
            }
            after = Some(last);
        }
    }
}

impl Open {
    fn note(&mut self, Received { event, position, .. }: &Received) {
        let Some(kind) = Kind::of(event) else { return };
        let Ok(account) = serde_json::from_slice::<Account>(event.data()) else { return };
        let (client, channel) = (account.client.clone().unwrap_or_default(), account.channel.clone());
        let channel = channel.unwrap_or_default();
        let offset = position.map_or(0, |position| position.offset);
        match kind {
            Kind::Occupied => drop(self.channels.insert(channel)),
            Kind::Vacated => drop(self.channels.remove(&channel)),
            Kind::Connected => self.begun(client, Part::Connection, offset, account),
            Kind::Subscribed => self.begun(client, Part::Subscription(channel), offset, account),
            Kind::Disconnected => self.over(&client, &Part::Connection),
            Kind::Unsubscribed => self.over(&client, &Part::Subscription(channel)),
        }
    }

    fn begun(&mut self, client: String, part: Part, offset: u64, account: Account) {
        self.clients.entry(client).or_default().insert(part, (offset, account));
    }

    fn over(&mut self, client: &str, part: &Part) {
        if let Some(parts) = self.clients.get_mut(client) {
            parts.remove(part);
            if parts.is_empty() {
                self.clients.remove(client);
            }
        }
    }
}
