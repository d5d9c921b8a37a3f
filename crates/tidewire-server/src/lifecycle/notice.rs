//! One thing that is told, as an event.

use serde::{Deserialize, Serialize};
use tidewire::Event;

use crate::metrics::Kind as Counted;

/// Longest key; who has a longer user id is ordered by the connection.
const KEY_BYTES_MAX: usize = 255;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Connected,
    Disconnected,
    Subscribed,
    Unsubscribed,
    Occupied,
    Vacated,
}

/// The data of such an event. Consumers read it: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) transport: Option<String>,
    /// When, in RFC 3339.
    pub(super) at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) kind: Kind,
    pub(super) account: Account,
    /// What tells it from others of its kind.
    pub(super) mark: String,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Connected,
        Self::Disconnected,
        Self::Subscribed,
        Self::Unsubscribed,
        Self::Occupied,
        Self::Vacated,
    ];

    /// Its name, as metrics and the types of events have it.
    pub(super) fn name(self) -> &'static str {
        Self::WORDS.get(self.index()).copied().unwrap_or_default()
    }

    /// What an event tells; none if it is of another type.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let name = event.event_type().strip_prefix("tidewire.")?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Counted for Kind {
    const WORDS: &'static [&'static str] =
        &["connected", "disconnected", "subscribed", "unsubscribed", "occupied", "vacated"];

    fn index(self) -> usize {
        self as usize
    }
}

impl Notice {
    /// Under which it is told once.
    pub(super) fn dedup_id(&self) -> String {
        format!("{}:{}", self.kind.name(), self.mark)
    }

    /// Those of one user have one key, and those of a channel: so groups with order see each pair in order.
    pub(super) fn into_event(self) -> Event {
        let Account { user, client, channel, .. } = &self.account;
        let key = match self.kind {
            Kind::Occupied | Kind::Vacated => channel.as_deref(),
            _ => {
                user.as_deref().filter(|user| (1..=KEY_BYTES_MAX).contains(&user.len())).or(client.as_deref())
            }
        };
        let key = key.unwrap_or_default().to_owned();
        // Strings and numbers: there is nothing that can fail.
        let data = serde_json::to_vec(&self.account).unwrap_or_default();
        Event::new(&format!("tidewire.{}", self.kind.name()), data).with_key(&key)
    }
}
