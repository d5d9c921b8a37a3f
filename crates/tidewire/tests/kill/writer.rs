//! The process that is killed: appends, and prints each confirmation.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tidewire::engine::{Announce, Append, Condition, Dedup, Durability, Engine, Retention};

use crate::{KEPT_EVENTS, channel, entry, envelope, grouped, open};

/// Appends until it is killed.
pub(crate) fn run(directory: &Path, seed: u64, round: u64, next_id: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        say("opening");
        let engine = open(directory);
        say("opened");
        let writer = Writer { engine: &engine, seed, round };
        let sessions = [format!("r{round}-a"), format!("r{round}-b")];
        let kept = Retention { events_max: Some(KEPT_EVENTS), ..Retention::default() };
        tokio::join!(
            writer.append_for_ever("fast", 1, |_| {}),
            writer.append_for_ever("synced", 1, |append| append.durability = Durability::Fsynced),
            writer.append_for_ever("batch", 25, |_| {}),
            writer.append_for_ever("kept", 10, move |append| append.retention = kept),
            writer.append_for_ever(grouped::STREAM, 5, |_| {}),
            grouped::consume_for_ever(&engine, &sessions[0], say),
            grouped::consume_for_ever(&engine, &sessions[1], say),
            writer.append_ids(next_id),
            writer.put_for_ever(),
        );
    });
}

struct Writer<'a> {
    engine: &'a Engine,
    seed: u64,
    round: u64,
}

impl Writer<'_> {
    async fn append_for_ever(&self, stream: &str, batch: u64, change: impl Fn(&mut Append)) {
        for first in (1..).step_by(usize::try_from(batch).expect("a small number")) {
            let numbers = first..first + batch;
            let appends = numbers.clone().map(|number| {
                let mut append = append(stream, envelope(self.seed, stream, self.round, number));
                change(&mut append);
                append
            });
            let outcomes = self.engine.log.append(appends.collect()).await.expect("appended");
            for (number, outcome) in numbers.zip(outcomes) {
                let offset = outcome.expect("appended").position.expect("a position").offset;
                say(&format!("{stream} {} {number} {offset}", self.round));
            }
        }
    }

    /// Appends under dedup ids; which process does it does not show in the events.
    async fn append_ids(&self, next_id: u64) {
        for id in next_id.. {
            let dedup = Dedup { id: format!("id-{id}").into(), window: Duration::from_secs(3_600) };
            let append =
                Append { dedup: Some(dedup), ..append("dedup", envelope(self.seed, "dedup", 0, id)) };
            let outcome = self.engine.log.append(vec![append]).await.expect("appended").pop();
            let position = outcome.expect("an outcome").expect("appended").position.expect("a position");
            say(&format!("dedup 0 {id} {}", position.offset));
        }
    }

    async fn put_for_ever(&self) {
        for number in 0..u64::from(u32::MAX) {
            let value = (self.round << 32) + number;
            let put = self.engine.store.put(&entry(), value.to_string().into(), None, Condition::Always);
            assert!(put.await.expect("put"));
            say(&format!("entry {value}"));
        }
    }
}

fn append(stream: &str, envelope: String) -> Append {
    Append {
        channel: channel(stream),
        envelope: envelope.into(),
        announce: Announce::Quiet,
        dedup: None,
        retention: Retention::default(),
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    }
}

/// Prints a line in one write.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the test listens");
}
