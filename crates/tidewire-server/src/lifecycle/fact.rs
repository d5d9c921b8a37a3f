//! What is told to have begun, and later to be over: a connection, or a subscription of one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidewire::Timestamp;

use super::YOUNG;
use super::notice::{Account, Kind, Notice};

/// As it is kept in the row that a node has of it. Nodes of several releases read it: fields are only added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fact {
    pub(super) user: String,
    pub(super) client: String,
    /// Of a subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<String>,
    pub(super) transport: String,
    pub(super) node: String,
    /// Which telling of the node it is: with the client it makes the dedup ids.
    pub(super) number: u64,
    /// When the row was written, in milliseconds since 1970.
    pub(super) since: u64,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) code: u32,
    pub(super) reason: String,
}

impl Ending {
    /// Its node is dead, or was taken for dead.
    pub(super) fn of_node() -> Self {
        Self { code: 0, reason: "the node was gone".into() }
    }
}

impl Fact {
    pub(super) fn read(row: &[u8]) -> Option<Self> {
        serde_json::from_slice(row).ok()
    }

    /// As it is kept.
    pub(super) fn row(&self) -> Bytes {
        // Strings and numbers: there is nothing that can fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Whether its beginning may not have been told.
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        now.since(Timestamp::from_millis(self.since)) < YOUNG
    }

    /// That it has begun.
    pub(super) fn begun(&self) -> Notice {
        let kind = if self.channel.is_some() { Kind::Subscribed } else { Kind::Connected };
        self.notice(kind, Timestamp::from_millis(self.since), None)
    }

    /// That it is over.
    pub(super) fn over(&self, at: Timestamp, ending: Ending) -> Notice {
        match self.channel {
            Some(_) => self.notice(Kind::Unsubscribed, at, None),
            None => self.notice(Kind::Disconnected, at, Some(ending)),
        }
    }

    fn notice(&self, kind: Kind, at: Timestamp, ending: Option<Ending>) -> Notice {
        let Self { user, client, channel, transport, node, number, .. } = self;
        let (code, reason) = ending.map(|Ending { code, reason }| (code, reason)).unzip();
        let account = Account {
            user: Some(user.clone()),
            client: Some(client.clone()),
            channel: channel.clone(),
            node: Some(node.clone()),
            transport: Some(transport.clone()),
            at: at.to_string(),
            code,
            reason,
        };
        Notice { kind, account, mark: format!("{client}:{number}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact() -> Fact {
        Fact {
            user: "ann".into(),
            client: "c-1".into(),
            channel: None,
            transport: "sse".into(),
            node: "ab".into(),
            number: 7,
            since: 1_000,
        }
    }

    /// Nodes of all releases share rows while they are replaced one by one. Append-only.
    #[test]
    fn rows_never_change() {
        let text = r#"{"user":"ann","client":"c-1","transport":"sse","node":"ab","number":7,"since":1000}"#;
        assert_eq!(fact().row(), text);
        assert_eq!(Fact::read(text.as_bytes()), Some(fact()));
        let subscription = Fact { channel: Some("a".into()), ..fact() };
        assert_eq!(Fact::read(&subscription.row()), Some(subscription));
        assert_eq!(Fact::read(b"{}"), None);
    }

    #[test]
    fn a_pair_of_notices_has_two_ids_and_one_key() {
        let at = Timestamp::from_millis(2_000);
        let (begun, over) = (fact().begun(), fact().over(at, Ending::of_node()));
        assert_eq!(begun.dedup_id(), "connected:c-1:7");
        assert_eq!(over.dedup_id(), "disconnected:c-1:7");
        let over = over.into_event();
        assert_eq!((over.event_type(), over.key()), ("tidewire.disconnected", Some("ann")));
        assert_eq!(
            over.data(),
            r#"{"user":"ann","client":"c-1","node":"ab","transport":"sse","at":"1970-01-01T00:00:02Z","code":0,"reason":"the node was gone"}"#
        );
    }

    #[test]
    fn only_what_is_young_may_be_untold() {
        let since = Timestamp::from_millis(1_000);
        assert!(fact().is_young(since) && !fact().is_young(since.saturating_add(YOUNG)));
    }
}
