//! A group beside the appends: what the killed process settled is settled once, what it held is there to be adopted.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewire::ErrorKind;
use tidewire::engine::{Change, Commit, Engine, Listing, Opening, Shelf, ShelfItem, Start, Turn, Turned};
use tidewire::name::GroupPath;

use crate::channel;

/// The stream whose events the group gets.
pub(crate) const STREAM: &str = "grouped";

fn group() -> GroupPath {
    GroupPath::new(channel(STREAM), "workers").expect("a valid name")
}

/// Settles events until the process is killed, each by an item of its own in the step that commits the record; `say` is
/// told when a turn was confirmed.
pub(crate) async fn consume_for_ever(engine: &Engine, session: &str, say: impl Fn(&str)) {
    let opening = Opening { start: Start::Earliest, partitions: 0 };
    engine.log.group_open(&group(), opening).await.expect("opened");
    let mut held: Vec<(Box<str>, u64)> = Vec::new();
    for number in 1.. {
        let commit = |(record, _): &(Box<str>, u64)| Commit {
            record: record.clone(),
            state: None,
            floor: u64::MAX,
            is_released: false,
        };
        let item = |(_, offset): &(Box<str>, u64)| ShelfItem {
            shelf: Shelf::Audit,
            key: format!("{offset:020}-{session}-{number}").into(),
            bytes: "".into(),
        };
        // One commit for each record, however many events it has.
        let mut records = held.clone();
        records.dedup_by(|one, next| one.0 == next.0);
        let turn = Turn {
            session: session.into(),
            number,
            lease: Duration::from_secs(60),
            commits: records.iter().map(commit).collect(),
            puts: held.iter().map(item).collect(),
            claim: 7,
            adopt: 2,
            ..Turn::default()
        };
        let turned = engine.log.group_turn(&group(), turn).await.expect("a turn");
        for (_, offset) in held.drain(..) {
            say(&format!("settled {offset}"));
        }
        held = taken(session, turned);
        if held.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

/// The events of an answer, and in which records they are.
fn taken(session: &str, turned: Turned) -> Vec<(Box<str>, u64)> {
    let offsets = turned.events.iter().map(|event| event.offset);
    let claimed = turned.claimed.map_or(0..0, |(first, last)| first..last + 1);
    assert!(claimed.clone().eq(offsets), "what is claimed is read");
    let mut held: Vec<(Box<str>, u64)> = claimed.map(|offset| (session.into(), offset)).collect();
    for adopted in turned.adopted {
        let offsets = adopted.claims.iter().flat_map(|(first, last)| *first..=*last);
        held.extend(offsets.map(|offset| (adopted.name.clone(), offset)));
    }
    held
}

/// What was settled.
#[derive(Default)]
pub(crate) struct Settled {
    /// Confirmed, and not found yet.
    confirmed: BTreeSet<u64>,
    found: BTreeSet<u64>,
}

impl Settled {
    /// Takes note that the event was confirmed to be settled.
    pub(crate) fn note(&mut self, offset: u64) {
        self.confirmed.insert(offset);
    }

    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    /// Every event before the next one to be claimed is settled once, or held by one record.
    pub(crate) async fn check(&mut self, engine: &Engine, round: u64) {
        let stats = match engine.log.group_stats(&group()).await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.confirmed.is_empty() => return,
            stats => stats.expect("the group"),
        };
        self.collect(engine, round).await;
        assert!(self.confirmed.is_empty(), "round {round}: {:?} are not settled", self.confirmed);
        let mut held = BTreeSet::new();
        for record in stats.records {
            for offset in record.claims.iter().flat_map(|(first, last)| *first..=*last) {
                let is_one = held.insert(offset) && !self.found.contains(&offset);
                assert!(is_one, "round {round}: {} has {offset}, which is settled or held", record.name);
            }
        }
        let lost = (1..stats.next).find(|offset| !held.contains(offset) && !self.found.contains(offset));
        assert_eq!(lost, None, "round {round}: an event is neither settled nor held");
        let first_held = held.first().copied().unwrap_or(stats.next);
        assert_eq!(stats.floor, first_held, "round {round}");
    }

    /// Takes away the items of settled events.
    async fn collect(&mut self, engine: &Engine, round: u64) {
        loop {
            let listing = Listing::After("".into(), 1_000);
            let page = engine.log.group_items(&group(), Shelf::Audit, listing).await.expect("a page");
            if page.is_empty() {
                return;
            }
            let count = page.len() as u64;
            for item in &page {
                let offset = item.key.split('-').next().expect("a part").parse().expect("an offset");
                assert!(self.found.insert(offset), "round {round}: {offset} is settled twice: {}", item.key);
                self.confirmed.remove(&offset);
            }
            let removes = page.into_iter().map(|item| (item.shelf, item.key)).collect();
            let change = Change::Items { removes, puts: Vec::new() };
            let removed = engine.log.group_change(&group(), change).await.expect("removed");
            assert_eq!(removed, count);
        }
    }
}
