//! What a stream must say, judged by itself and by what the clients were answered.

use std::collections::{BTreeMap, BTreeSet};

use tidewire::Received;

use crate::lifecycle::notice::{Account, Kind};

/// Whether a node may have been taken for dead and come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaks {
    Possible,
    None,
}

/// What was told, in order of the stream.
pub(super) struct Story {
    /// Of each connection.
    clients: BTreeMap<String, Vec<(Kind, String)>>,
    pub(super) rooms: BTreeMap<String, Vec<Kind>>,
}

impl Story {
    pub(super) fn of(told: &[Received]) -> Self {
        let mut story = Self { clients: BTreeMap::new(), rooms: BTreeMap::new() };
        for received in told {
            let kind = Kind::of(&received.event).expect("nothing else is in the stream");
            let account: Account = serde_json::from_slice(received.event.data()).unwrap();
            let channel = account.channel.unwrap_or_default();
            match kind {
                Kind::Occupied | Kind::Vacated => story.rooms.entry(channel).or_default().push(kind),
                _ => story.clients.entry(account.client.unwrap()).or_default().push((kind, channel)),
            }
        }
        story
    }

    pub(super) fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Occupied and vacated alternate, and end with what is so.
    pub(super) fn expect_rooms(&self, occupied: &BTreeSet<String>) -> Result<(), String> {
        for (room, kinds) in &self.rooms {
            for (index, kind) in kinds.iter().enumerate() {
                let expected = if index % 2 == 0 { Kind::Occupied } else { Kind::Vacated };
                if *kind != expected {
                    return Err(format!("{room}: {kinds:?}"));
                }
            }
        }
        let last = |(room, kinds): (&String, &Vec<Kind>)| {
            (kinds.last() == Some(&Kind::Occupied)).then(|| room.clone())
        };
        let told: BTreeSet<String> = self.rooms.iter().filter_map(last).collect();
        match told == *occupied {
            true => Ok(()),
            false => Err(format!("{told:?} were told as occupied, and {occupied:?} are: {:?}", self.rooms)),
        }
    }

    /// What was told as begun, and not as over, is what is there.
    pub(super) fn expect_there(&self, there: &BTreeSet<(String, String)>) -> Result<(), String> {
        let mut open = BTreeSet::new();
        for (client, story) in &self.clients {
            for (kind, channel) in story {
                let what = (client.clone(), channel.clone());
                match kind {
                    Kind::Connected | Kind::Subscribed => drop(open.insert(what)),
                    _ => drop(open.remove(&what)),
                }
            }
        }
        match open == *there {
            true => Ok(()),
            false => Err(format!("{open:?} were told as there, and {there:?} are")),
        }
    }

    /// No connection began twice.
    pub(super) fn expect_single(&self) -> Result<(), String> {
        let begun =
            |story: &Vec<(Kind, String)>| story.iter().filter(|(kind, _)| *kind == Kind::Connected).count();
        match self.clients.iter().find(|(_, story)| begun(story) != 1) {
            Some((client, story)) => Err(format!("{client}: {story:?}")),
            None => Ok(()),
        }
    }

    /// Each connection begins and ends once, its subscriptions within. Where its node may have been taken for dead it may begin
    /// again, and until the node knew it may have told of subscriptions without their connection.
    pub(super) fn expect_clients(
        &self,
        acked: &BTreeMap<(String, String), usize>,
        breaks: Breaks,
    ) -> Result<(), String> {
        let may_break = breaks == Breaks::Possible;
        for (client, story) in &self.clients {
            let wrong = || Err(format!("{client}: {story:?}"));
            let (mut is_connected, mut open, mut pairs) = (false, BTreeSet::new(), 0);
            let mut subscribed: BTreeMap<&str, usize> = BTreeMap::new();
            for (kind, channel) in story {
                let is_right = match kind {
                    Kind::Connected => {
                        pairs += 1;
                        !std::mem::replace(&mut is_connected, true)
                    }
                    Kind::Disconnected => (may_break || open.is_empty()) && std::mem::take(&mut is_connected),
                    Kind::Subscribed => {
                        *subscribed.entry(channel).or_default() += 1;
                        (may_break || is_connected) && open.insert(channel)
                    }
                    Kind::Unsubscribed => (may_break || is_connected) && open.remove(channel),
                    Kind::Occupied | Kind::Vacated => false,
                };
                if !is_right {
                    return wrong();
                }
            }
            if is_connected || !open.is_empty() || (!may_break && pairs > 1) {
                return wrong();
            }
            for ((_, channel), count) in acked.iter().filter(|((of, _), _)| of == client) {
                let told = subscribed.get(&**channel).copied().unwrap_or_default();
                // A command that was cut off may have been told, and not answered.
                if told < *count || (!may_break && told > count + 1) {
                    return Err(format!("{client} subscribed {count} times to {channel}: {story:?}"));
                }
            }
        }
        match acked.keys().find(|(client, _)| !self.clients.contains_key(client)) {
            Some((client, _)) => Err(format!("{client} was not told")),
            None => Ok(()),
        }
    }
}
