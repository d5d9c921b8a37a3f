//! Turns taken by chance, on Redis and in memory: both answer the same.

use std::collections::BTreeMap;

use super::*;
use crate::engine::Listing;
use crate::engine::embedded::open_memory;

/// Numbers by chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A session as whoever leads it knows it.
#[derive(Default)]
struct Led {
    last: Option<Turn>,
    number: u64,
    held: Vec<Box<str>>,
}

fn shelf(number: u64) -> Shelf {
    [Shelf::Waiting, Shelf::Dead, Shelf::Outbox, Shelf::Audit][usize::try_from(number).unwrap_or_default()]
}

fn next_turn(chance: &mut Chance, name: &str, led: &Led, last: u64, partitions: u16) -> Turn {
    let mut turn = Turn { session: name.into(), number: led.number + 1, ..Turn::default() };
    // None: the next turn of any other session takes this one away.
    turn.lease = if chance.is(20) { Duration::ZERO } else { LONG };
    for record in &led.held {
        if chance.is(50) {
            let state =
                (chance.is(80) || partitions > 0).then(|| Bytes::from(format!("state {}", led.number)));
            let floor = if chance.is(30) { u64::MAX } else { 1 + chance.below(last + 1) };
            let is_released = chance.is(20) && **record != *name;
            turn.commits.push(Commit { record: record.clone(), state, floor, is_released });
        }
    }
    if chance.is(3) {
        // Of somebody else, or of nobody.
        let record = format!("s{}", chance.below(9)).into();
        turn.commits.push(Commit { record, state: Some(Bytes::new()), floor: 1, is_released: false });
    }
    turn.claim = usize::try_from(chance.below(6) * chance.below(12)).unwrap_or_default();
    turn.adopt = usize::try_from(chance.below(3)).unwrap_or_default();
    for _ in 0..chance.below(3) {
        let key: Box<str> = format!("k{}", chance.below(20)).into();
        let shelf = shelf(chance.below(4));
        match chance.is(60) {
            true => turn.puts.push(ShelfItem { shelf, key, bytes: Bytes::from(led.number.to_string()) }),
            false => turn.removes.push((shelf, key)),
        }
    }
    for _ in 0..chance.below(3) {
        turn.marks.push(Dedup { id: format!("m{}", chance.below(10)).into(), window: LONG });
        turn.lookups.push(format!("m{}", chance.below(10)).into());
    }
    if chance.is(20) {
        let first = chance.below(last + 2);
        turn.reads.push((first, first + chance.below(40)));
    }
    turn.is_last = chance.is(8);
    if turn.is_last {
        // What it would adopt it lets go of at once: sent again, it finds others' bytes there.
        turn.adopt = 0;
    }
    turn
}

/// What of an answer does not depend on epochs and clocks.
fn plain(answer: Result<Turned>) -> String {
    match answer {
        Ok(turned) => {
            let events: Vec<_> = turned.events.iter().map(|event| (event.offset, &event.envelope)).collect();
            let Turned { first, last, floor, generation, claimed, skipped, adopted, free, sessions, .. } =
                &turned;
            // Fences begin with a clock.
            let mut adopted = adopted.clone();
            adopted.iter_mut().for_each(|record| record.fence = 0);
            let look_again = turned.look_again.map(|after| after > LONG / 2);
            format!(
                "{first} {last} {floor} {generation:?} {claimed:?} {skipped:?} {adopted:?} {free} {sessions} {:?} {look_again:?} \
                 {events:?} {:?}",
                turned.marked, turned.unread
            )
        }
        Err(error) => format!("{:?} {error}", error.kind()),
    }
}

async fn look(engine: &Engine, group: &GroupPath) -> String {
    let stats = engine.log.group_stats(group).await.expect("stats");
    let sessions: Vec<_> = stats.sessions.iter().map(|(name, _)| name).collect();
    let mut shelves = Vec::new();
    for number in 0..4 {
        let listing = Listing::After("k1".into(), 5);
        shelves.push(engine.log.group_items(group, shelf(number), listing).await.expect("items"));
        let listing = Listing::Keys(vec!["k3".into(), "nothing".into(), "k1".into()]);
        shelves.push(engine.log.group_items(group, shelf(number), listing).await.expect("items"));
    }
    format!(
        "{} {} {} {} {:?} {sessions:?} {:?} {:?} {shelves:?}",
        stats.first, stats.last, stats.next, stats.floor, stats.generation, stats.records, stats.items
    )
}

struct Pair {
    engines: [Engine; 2],
    channel: ChannelPath,
    group: GroupPath,
}

impl Pair {
    async fn change(&self, change: Change) -> [String; 2] {
        let [one, other] = &self.engines;
        let of = async |engine: &Engine| match engine.log.group_change(&self.group, change.clone()).await {
            Ok(count) => count.to_string(),
            Err(error) => error.to_string(),
        };
        [of(one).await, of(other).await]
    }

    async fn turn(&self, turn: &Turn) -> ([String; 2], Option<Turned>) {
        let [one, other] = &self.engines;
        let answer = one.log.group_turn(&self.group, turn.clone()).await;
        let turned = answer.as_ref().ok().cloned();
        ([plain(answer), plain(other.log.group_turn(&self.group, turn.clone()).await)], turned)
    }

    async fn append(&self, count: u64) {
        for engine in &self.engines {
            append_many(engine, &self.channel, usize::try_from(count).unwrap_or_default()).await;
        }
    }
}

fn keep_up(led: &mut Led, turn: &Turn, answer: Option<&Turned>) {
    let Some(answer) = answer else {
        *led = Led { number: u64::MAX, ..Led::default() };
        return;
    };
    led.number = turn.number;
    led.held.retain(|name| {
        !turn
            .commits
            .iter()
            .any(|commit| commit.record == *name && (commit.is_released || commit.state.is_none()))
    });
    let claimed = answer.claimed.map(|_| turn.session.clone());
    for name in answer.adopted.iter().map(|adopted| adopted.name.clone()).chain(claimed) {
        if !led.held.contains(&name) {
            led.held.push(name);
        }
    }
    led.last = Some(turn.clone());
}

async fn run(seed: u64, partitions: u16) {
    let mut chance = Chance(seed);
    let channel = path("same", &format!("c{seed}-{partitions}"));
    let setup = Setup {
        sink: Arc::new(Ears::default()),
        clock: Clock::system(),
        limits: Limits::default(),
        tasks: Tasks::new(),
    };
    let engines = [open(&server_url()).await.0, open_memory(&setup)];
    let pair = Pair { engines, group: group(&channel), channel };
    let mut last = chance.below(10);
    pair.append(last).await;
    for engine in &pair.engines {
        opened(engine, &pair.channel, Start::Earliest, partitions).await;
    }
    let (mut led, mut names) = (BTreeMap::<String, Led>::new(), 0);
    for step in 0..150 {
        if chance.is(40) {
            let count = chance.below(30);
            pair.append(count).await;
            last += count;
        }
        if chance.is(4) {
            let starts = [Start::Earliest, Start::Latest];
            let start = starts[usize::try_from(chance.below(2)).unwrap_or_default()];
            let [one, other] = pair.change(Change::Seek(start)).await;
            assert_eq!(one, other, "seed {seed}, step {step}: a seek");
        }
        if led.len() < 4 && chance.is(50) {
            names += 1;
            led.insert(format!("s{names}"), Led::default());
        }
        let place = usize::try_from(chance.below(5)).unwrap_or_default();
        let Some((name, session)) = led.iter_mut().nth(place) else { continue };
        // What is read is what is there when it is read.
        let again = session.last.clone().filter(|turn| turn.reads.is_empty() && chance.is(10));
        let turn = match again {
            Some(turn) => turn,
            None => next_turn(&mut chance, name, session, last, partitions),
        };
        let ([one, other], answer) = pair.turn(&turn).await;
        assert_eq!(one, other, "seed {seed}, step {step}: {turn:?}");
        keep_up(session, &turn, answer.as_ref());
        let looks = [look(&pair.engines[0], &pair.group).await, look(&pair.engines[1], &pair.group).await];
        assert_eq!(looks[0], looks[1], "seed {seed}, step {step}, after {turn:?}");
        if answer.is_none() {
            let name = name.clone();
            led.remove(&name);
        }
    }
}

#[tokio::test]
async fn turns_are_answered_as_in_memory() {
    for seed in 1..=4 {
        run(seed, 0).await;
        run(seed, 5).await;
    }
}
