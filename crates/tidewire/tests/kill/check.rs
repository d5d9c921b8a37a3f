//! What was confirmed, and whether it is all there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tidewire::Epoch;
use tidewire::engine::{Engine, Range, Stored};

use crate::grouped::Settled;
use crate::{KEPT_EVENTS, STREAMS, channel, entry, envelope, open};

/// All that writers have confirmed.
pub(crate) struct Confirmed {
    seed: u64,
    epoch: Epoch,
    streams: BTreeMap<String, Stream>,
    /// The value that the entry was last confirmed to have.
    entry: Option<u64>,
    settled: Settled,
    runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Stream {
    /// Round and number of the event by its offset.
    events: BTreeMap<u64, (u64, u64)>,
    /// Everything up to this offset has been found.
    checked: u64,
    /// Round and number of the last event that was found there.
    last: (u64, u64),
}

impl Confirmed {
    /// Nothing yet. Creates the engine in `directory`.
    pub(crate) fn new(directory: &Path, seed: u64) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let epoch = runtime.block_on(async {
            let engine = open(directory);
            let epoch = engine.log.read(&channel("fast"), Range::BOUNDS).await.expect("read").epoch;
            assert!(engine.tasks.close(Duration::from_secs(20)).await);
            epoch
        });
        let streams = STREAMS.map(|stream| (stream.to_owned(), Stream::default())).into();
        Self { seed, epoch, streams, entry: None, settled: Settled::default(), runtime }
    }

    /// Takes note of a line of a writer.
    pub(crate) fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().expect("a number");
        match words.as_slice() {
            ["opening" | "opened"] => {}
            ["settled", offset] => self.settled.note(number(offset)),
            ["entry", value] => self.entry = Some(number(value)),
            [stream, round, count, offset] => {
                let stream = self.streams.get_mut(*stream).expect("a stream of the test");
                let event = (number(round), number(count));
                let before = stream.events.insert(number(offset), event);
                assert!(
                    before.is_none_or(|before| before == event),
                    "{line}: the offset is that of {before:?}"
                );
            }
            _ => panic!("the writer said {line:?}"),
        }
    }

    /// The first dedup id that was not confirmed.
    pub(crate) fn next_id(&self) -> u64 {
        let last = self.streams.get("dedup").and_then(|stream| stream.events.values().next_back());
        last.map_or(1, |(_, id)| id + 1)
    }

    /// How many appends were confirmed.
    pub(crate) fn count(&self) -> usize {
        self.streams.values().map(|stream| stream.events.len()).sum()
    }

    /// How many events were settled.
    pub(crate) fn settled(&self) -> usize {
        self.settled.count()
    }

    /// Opens the engine and looks for everything that was confirmed since the last time.
    pub(crate) fn check(&mut self, directory: &Path, round: u64) {
        let Self { seed, epoch, streams, entry: confirmed_entry, settled, runtime } = self;
        runtime.block_on(async {
            let engine = open(directory);
            for (name, stream) in streams {
                stream.check(&engine, name, *seed, *epoch, round).await;
            }
            settled.check(&engine, round).await;
            let value = engine.store.get(&entry()).await.expect("get");
            let value =
                value.map(|value| String::from_utf8(value.into()).expect("text").parse().expect("a number"));
            assert!(value >= *confirmed_entry, "round {round}: entry is {value:?}, not {confirmed_entry:?}");
            assert!(engine.tasks.close(Duration::from_secs(20)).await);
        });
    }
}

impl Stream {
    async fn check(&mut self, engine: &Engine, name: &str, seed: u64, epoch: Epoch, round: u64) {
        let path = channel(name);
        let what = format!("round {round}, stream {name}");
        let bounds = engine.log.read(&path, Range::BOUNDS).await.expect("read");
        assert_eq!(bounds.epoch, epoch, "{what}");
        let confirmed_last = self.events.last_key_value().map_or(0, |(offset, _)| *offset);
        assert!(bounds.last >= confirmed_last, "{what}: ends at {}, not {confirmed_last}", bounds.last);
        if name == "kept" {
            assert_eq!(bounds.first, (bounds.last + 1).saturating_sub(KEPT_EVENTS).max(1), "{what}");
        } else {
            assert_eq!(bounds.first, 1, "{what}");
        }
        let mut next = (self.checked + 1).max(bounds.first);
        while next <= bounds.last {
            let page = engine.log.read(&path, Range::from(next, 1_000)).await.expect("read");
            assert!(!page.events.is_empty(), "{what}: nothing at {next} of {}", bounds.last);
            for event in page.events {
                assert_eq!(event.offset, next, "{what}: events are missing");
                self.check_event(&event, name, seed, &what);
                next += 1;
            }
        }
        self.checked = bounds.last;
    }

    /// Checks that the event is whole, the one that was confirmed, and after the one before it.
    fn check_event(&mut self, event: &Stored, name: &str, seed: u64, what: &str) {
        let text = std::str::from_utf8(&event.envelope).expect("text");
        let mut words = text.split(' ').skip(1).map(|word| word.parse::<u64>());
        let (Some(Ok(round)), Some(Ok(number))) = (words.next(), words.next()) else {
            panic!("{what}: offset {} has {text:?}", event.offset)
        };
        assert_eq!(text, envelope(seed, name, round, number), "{what}: offset {}", event.offset);
        if let Some(confirmed) = self.events.get(&event.offset) {
            assert_eq!((round, number), *confirmed, "{what}: offset {}", event.offset);
        }
        assert!((round, number) > self.last, "{what}: {:?} is followed by {:?}", self.last, (round, number));
        self.last = (round, number);
    }
}
