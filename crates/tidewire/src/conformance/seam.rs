//! A case's way to the engine itself: its log, one group, and what its sink hears.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::scene::{Scene, patiently};
use crate::engine::{
    Announce, Append, Appended, Commit, Durability, Engine, GroupStats, Heard, Interest, Log, Opened,
    Opening, Retention, Setup, Sink, Start, Stored, Turn, Turned,
};
use crate::error::Result;
use crate::limits::Limits;
use crate::name::{ChannelPath, GroupPath};
use crate::tasks::Tasks;

/// An engine, and a group of the case's tenant on it.
pub(super) struct Seam {
    engine: Engine,
    work: Arc<Work>,
    group: GroupPath,
}

/// Hears that there may be work.
#[derive(Default)]
struct Work(Notify);

impl Sink for Work {
    fn hear(&self, heard: Heard) {
        if !matches!(heard, Heard::Event { .. }) {
            self.0.notify_one();
        }
    }
}

impl Seam {
    pub(super) async fn open(scene: &Scene) -> Self {
        let work = Arc::new(Work::default());
        let (clock, limits, tasks) = (scene.clock(), Limits::default(), Tasks::new());
        let setup = Setup { sink: work.clone(), clock, limits, tasks };
        let engine = scene.open_engine(setup).await;
        let channel = ChannelPath::new("dev", &scene.tenant_name(), "orders").expect("a valid name");
        engine.pubsub.subscribe(vec![Interest::Work(channel.clone())]).await.expect("listening");
        let group = GroupPath::new(channel, "workers").expect("a valid name");
        Self { engine, work, group }
    }

    /// The same with the group, which begins with the oldest event.
    pub(super) async fn with_group(scene: &Scene, partitions: u16) -> Self {
        let seam = Self::open(scene).await;
        seam.open_group(Opening { start: Start::Earliest, partitions }).await.expect("opened");
        seam
    }

    pub(super) async fn close(self) {
        assert!(self.engine.tasks.close(Duration::from_secs(10)).await, "the engine closes");
    }

    pub(super) fn log(&self) -> &dyn Log {
        &*self.engine.log
    }

    pub(super) fn group(&self) -> &GroupPath {
        &self.group
    }

    pub(super) fn channel(&self) -> &ChannelPath {
        self.group.channel()
    }

    pub(super) async fn open_group(&self, opening: Opening) -> Result<Opened> {
        self.log().group_open(&self.group, opening).await
    }

    pub(super) async fn stats(&self) -> GroupStats {
        self.log().group_stats(&self.group).await.expect("the group is there")
    }

    /// An event whose data is a number, to be appended without an announcement.
    pub(super) fn event(&self, number: u64) -> Append {
        Append {
            channel: self.channel().clone(),
            envelope: number.to_string().into(),
            announce: Announce::Quiet,
            dedup: None,
            retention: Retention::default(),
            durability: Durability::Fast,
            version: None,
            deliver_at: None,
        }
    }

    pub(super) async fn append(&self, append: Append) -> Result<Appended> {
        self.log().append(vec![append]).await?.pop().expect("an outcome for each entry")
    }

    /// Appends events with these numbers, which are to be their offsets.
    pub(super) async fn append_all(&self, numbers: impl IntoIterator<Item = u64>) {
        let batch = numbers.into_iter().map(|number| self.event(number)).collect();
        for outcome in self.log().append(batch).await.expect("appended") {
            outcome.expect("appended");
        }
    }

    /// A session of the group. Its lease is long, unless it is given another.
    pub(super) fn session(&self, scene: &Scene, name: &str) -> Session<'_> {
        Session { seam: self, name: name.into(), number: 0, lease: scene.ticks(80) }
    }

    /// Waits until it is told that there may be work.
    pub(super) async fn hear_work(&self) {
        patiently("work", self.work.0.notified()).await;
    }
}

/// A session that takes one turn after the other.
pub(super) struct Session<'a> {
    seam: &'a Seam,
    name: Box<str>,
    number: u64,
    pub(super) lease: Duration,
}

impl Session<'_> {
    /// Takes its next turn.
    pub(super) async fn turn(&mut self, turn: Turn) -> Result<Turned> {
        self.number += 1;
        self.again(turn).await
    }

    /// Sends a turn under the number of the last one.
    pub(super) async fn again(&self, turn: Turn) -> Result<Turned> {
        self.numbered(self.number, turn).await
    }

    pub(super) async fn numbered(&self, number: u64, turn: Turn) -> Result<Turned> {
        let turn = Turn { session: self.name.clone(), number, lease: self.lease, ..turn };
        self.seam.log().group_turn(&self.seam.group, turn).await
    }

    /// Claims up to so many events.
    pub(super) async fn claim(&mut self, claim: usize) -> Turned {
        self.turn(Turn { claim, ..Turn::default() }).await.expect("a turn")
    }

    /// Adopts up to so many records.
    pub(super) async fn adopt(&mut self, adopt: usize) -> Turned {
        self.turn(Turn { adopt, ..Turn::default() }).await.expect("a turn")
    }

    /// Changes records.
    pub(super) async fn commit(&mut self, commits: Vec<Commit>) -> Result<Turned> {
        self.turn(Turn { commits, ..Turn::default() }).await
    }
}

/// A record's new state, held on to.
pub(super) fn commit(record: &str, state: &'static str, floor: u64) -> Commit {
    Commit {
        record: record.into(),
        state: Some(Bytes::from_static(state.as_bytes())),
        floor,
        is_released: false,
    }
}

/// The numbers of events, which are their offsets too.
pub(super) fn numbers(events: &[Stored]) -> Vec<u64> {
    let number = |event: &Stored| {
        let text = std::str::from_utf8(&event.envelope).expect("an event holds text");
        assert_eq!(text, event.offset.to_string());
        event.offset
    };
    events.iter().map(number).collect()
}
