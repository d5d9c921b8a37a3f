//! Appends over links that are cut at random bytes: what is confirmed is there once, in order.

use std::sync::Arc;

use tidewire_fleet::{Admin, Proxy};

use super::*;
use crate::engine::{Effect, Interest, Range, Stored};
use crate::error::ErrorKind;
use crate::position::Position;

const CALLERS: usize = 12;
const APPENDS: usize = 40;
const SCHEDULES: u64 = 16;
/// Links cut in one schedule; after more, the waits between dials would be most of the test.
const CUTS: u64 = 6;

/// Every event of the stream.
async fn read_all(engine: &Engine, channel: &ChannelPath) -> Vec<Stored> {
    let mut events = Vec::new();
    loop {
        let next = events.last().map_or(1, |event: &Stored| event.offset + 1);
        let page = engine.log.read(channel, Range::from(next, 1_000)).await.expect("a page");
        if page.events.is_empty() {
            return events;
        }
        events.extend(page.events);
    }
}

/// One caller's appends, one after the other, and where each was confirmed.
async fn append_all(
    engine: Arc<Engine>,
    channel: ChannelPath,
    caller: usize,
) -> Vec<(String, Option<Position>)> {
    let mut outcomes = Vec::new();
    for number in 0..APPENDS {
        let text = format!("{caller}:{number}:{}", "x".repeat(1_000));
        let outcomes_of_one = engine.log.append(vec![append(&channel, text.clone())]).await;
        let confirmed = match outcomes_of_one.map(|mut one| one.pop()) {
            Ok(Some(Ok(appended))) => {
                assert_eq!(appended.effect, Effect::New, "no dedup id was given");
                appended.position
            }
            Ok(Some(Err(error))) | Err(error) => {
                // Links that break again and again may use up the time of a call; then it says so.
                assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable), "{error:?}");
                None
            }
            Ok(None) => panic!("an append without an outcome"),
        };
        outcomes.push((text, confirmed));
    }
    outcomes
}

/// Runs one schedule of cuts; says how many links were cut.
async fn schedule(seed: u64) -> u64 {
    let server = Admin::parse(&server_url()).expect("a plain server").address();
    let proxy = Proxy::open(server, seed).expect("a port");
    let (engine, ears) = open(&proxy.url()).await;
    let engine = Arc::new(engine);
    let channel = path("faults", &format!("cut-{seed}"));
    engine.pubsub.subscribe(vec![Interest::Channel(channel.clone())]).await.expect("subscribed");
    // A link that is opened takes some 40,000 bytes, for the scripts.
    proxy.cut_next(CUTS, 60_000);
    let callers = (0..CALLERS).map(|caller| append_all(engine.clone(), channel.clone(), caller));
    let outcomes = futures_util::future::join_all(callers).await;
    proxy.cut_next(0, 0);

    let events = read_all(&engine, &channel).await;
    assert!(
        events.iter().map(|event| event.offset).eq(1..=events.len() as u64),
        "offsets are not contiguous"
    );
    let at = |position: Position| &events[usize::try_from(position.offset).expect("small") - 1];
    for outcomes in &outcomes {
        let mut last = 0;
        for (text, confirmed) in outcomes {
            let copies = events.iter().filter(|event| event.envelope == text.as_bytes()).count();
            match confirmed {
                Some(position) => {
                    assert_eq!(
                        at(*position).envelope,
                        text.as_bytes(),
                        "seed {seed}: not where it was confirmed"
                    );
                    assert_eq!(copies, 1, "seed {seed}: {} is in the stream {copies} times", &text[..9]);
                    assert!(position.offset > last, "seed {seed}: a caller's appends changed places");
                    last = position.offset;
                }
                None => assert!(copies <= 1, "seed {seed}: {} is in the stream {copies} times", &text[..9]),
            }
        }
    }
    check_announcements(&ears, seed);
    assert!(engine.tasks.close(Duration::from_secs(10)).await, "seed {seed}: tasks still run");
    proxy.cuts()
}

/// What was heard is in stream order; a hole is preceded by the news that the link was lost.
fn check_announcements(ears: &Ears, seed: u64) {
    let (mut last, mut may_skip) = (0, false);
    for heard in ears.0.lock().iter() {
        match heard {
            Heard::Relinked | Heard::Moved(_) => may_skip = true,
            Heard::Work(_) => {}
            Heard::Event { kept, .. } => {
                let offset = kept.as_ref().expect("an announcement").position.offset;
                let is_next = offset == last + 1 || (may_skip && offset > last);
                // The news follows once every interest is restored, and an event may be heard just before it.
                let is_early = offset > last && !may_skip;
                assert!(is_next || is_early, "seed {seed}: heard {offset} after {last}");
                last = offset;
                may_skip = false;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_over_a_link_that_is_cut_again_and_again_is_there_once_and_in_order() {
    let cuts: u64 = futures_util::future::join_all((0..SCHEDULES).map(schedule)).await.iter().sum();
    println!("{SCHEDULES} schedules, {cuts} cuts");
    assert!(cuts > SCHEDULES, "links were cut {cuts} times only");
}
