//! What was confirmed against what was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tidewire::{Channel, ErrorKind, Event, GapReason, Item, Position, Subscription, Tidewire};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};

/// How long a listener may take to hear what was confirmed.
const PATIENCE: Duration = Duration::from_secs(30);
const TENANT: &str = "history";
/// 200 appends a second to each channel.
const APPEND_EVERY: Duration = Duration::from_millis(5);
/// How often the channels are told that they have ended.
const END_EVERY: Duration = Duration::from_millis(500);

/// Writers on one node, listeners on another: one of each per channel, and one listener to all by a pattern.
pub(crate) struct Load {
    channels: Vec<Channel>,
    is_over: Arc<AtomicBool>,
    confirmed: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Written>>,
    listeners: Vec<JoinHandle<BTreeMap<String, Heard>>>,
    nodes: [Tidewire; 2],
}

/// The appends of one channel.
struct Written {
    /// By number; none where it is not known whether it was appended.
    positions: Vec<Option<Position>>,
    /// Tries of which nothing came; the same event was tried again.
    failed: usize,
    /// The longest time from the first try of an append to its confirmation.
    longest: Duration,
}

impl Written {
    fn unknown(&self) -> usize {
        self.positions.iter().filter(|position| position.is_none()).count()
    }
}

/// What one listener was given of one channel.
#[derive(Debug, Default)]
struct Heard {
    numbers: Vec<usize>,
    /// How many events the writer said that there are.
    total: Option<usize>,
    gaps: usize,
    is_history_lost: bool,
}

/// What a run came to. That nothing was lost untold, doubled or reordered is asserted.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) confirmed: usize,
    pub(crate) unknown: usize,
    pub(crate) failed: usize,
    /// Channels whose listeners were told that history was lost.
    pub(crate) histories_lost: usize,
    pub(crate) gaps: usize,
    pub(crate) longest: Duration,
}

#[expect(clippy::disallowed_methods, reason = "every task of the load is awaited when it is finished")]
fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(future)
}

impl Load {
    /// Starts to append to `count` channels and to listen to them.
    pub(crate) async fn start(url: &str, count: usize) -> Self {
        let writing = Tidewire::open(url).await.expect("the engine opens");
        let listening = Tidewire::open(url).await.expect("the engine opens");
        let channels = |node: &Tidewire| -> Vec<Channel> {
            let tenant = node.tenant(TENANT).expect("a valid name");
            (0..count).map(|n| tenant.channel(&format!("load:{n}")).expect("a valid name")).collect()
        };
        let mut listeners = Vec::new();
        for channel in channels(&listening) {
            let subscription = channel.subscribe().open().await.expect("listening");
            listeners.push(spawn(listen(subscription, 1)));
        }
        let pattern = listening.tenant(TENANT).and_then(|tenant| tenant.subscribe("load:*"));
        let pattern = pattern.expect("a valid pattern").open().await.expect("listening");
        listeners.push(spawn(listen(pattern, count)));
        let (is_over, confirmed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let channels = channels(&writing);
        let write = |(number, channel): (usize, &Channel)| {
            // Half of them leave it to the engine to send again without a second effect.
            let ids = if number % 2 == 0 { Ids::Given } else { Ids::None };
            spawn(write(channel.clone(), ids, is_over.clone(), confirmed.clone()))
        };
        let writers = channels.iter().enumerate().map(write).collect();
        Self { channels, is_over, confirmed, writers, listeners, nodes: [writing, listening] }
    }

    /// Waits until so many more appends are confirmed.
    pub(crate) async fn go_on(&self, appends: usize) {
        let target = self.confirmed.load(Ordering::Relaxed) + appends;
        let mut polls = tokio::time::interval(Duration::from_millis(5));
        let deadline = Instant::now() + PATIENCE;
        while self.confirmed.load(Ordering::Relaxed) < target {
            assert!(Instant::now() < deadline, "appends go on");
            polls.tick().await;
        }
    }

    /// Waits until every link of both nodes answers again.
    pub(crate) async fn until_healthy(&self) {
        let mut polls = tokio::time::interval(Duration::from_millis(50));
        let deadline = Instant::now() + PATIENCE;
        for node in &self.nodes {
            loop {
                let health = node.health().await;
                if health.is_healthy() {
                    break;
                }
                assert!(Instant::now() < deadline, "{health:?}");
                polls.tick().await;
            }
        }
    }

    /// The channels, by the node that writes.
    pub(crate) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Ends the load and checks what was heard.
    ///
    /// # Panics
    /// Where a confirmed append is neither heard nor told as lost, or something is heard twice or out of order.
    pub(crate) async fn finish(self) -> Outcome {
        self.is_over.store(true, Ordering::Relaxed);
        let mut outcome = Outcome::default();
        let mut written = BTreeMap::new();
        for (channel, writer) in self.channels.iter().zip(self.writers) {
            let log = writer.await.expect("the writer ends");
            outcome.confirmed += log.positions.len() - log.unknown();
            outcome.unknown += log.unknown();
            outcome.failed += log.failed;
            outcome.longest = outcome.longest.max(log.longest);
            check_stream(channel, &log).await;
            written.insert(channel.path().channel().to_owned(), log);
        }
        // Live events, which arrive only over what was repaired; one may come just while a slot moves.
        let ends = async {
            let mut ticks = tokio::time::interval(END_EVERY);
            loop {
                ticks.tick().await;
                for channel in &self.channels {
                    let total = written[channel.path().channel()].positions.len();
                    channel.publish(Event::new("end", total.to_string())).await.expect("published");
                }
            }
        };
        let heard = tokio::select! {
            heard = join_all(self.listeners) => heard,
            () = ends => unreachable!("it goes on for ever"),
        };
        for heard in heard {
            let heard = heard.expect("the listener ends");
            for (channel, heard) in heard {
                outcome.gaps += heard.gaps;
                outcome.histories_lost += usize::from(heard.is_history_lost);
                check_heard(&channel, &heard, &written[&channel]);
            }
        }
        outcome
    }
}

/// Whether an append has a dedup id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ids {
    Given,
    None,
}

async fn write(channel: Channel, ids: Ids, is_over: Arc<AtomicBool>, confirmed: Arc<AtomicUsize>) -> Written {
    let mut written = Written { positions: Vec::new(), failed: 0, longest: Duration::ZERO };
    let mut ticks = tokio::time::interval(APPEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The last one is confirmed, so that listeners know when they have all.
    while !is_over.load(Ordering::Relaxed) || written.positions.last().is_some_and(Option::is_none) {
        ticks.tick().await;
        let (number, start) = (written.positions.len().to_string(), Instant::now());
        let position = loop {
            let append = channel.append(Event::new("numbered", number.clone()));
            let append = if ids == Ids::Given { append.dedup(&number) } else { append };
            match append.await {
                Ok(receipt) => break Some(receipt.position.expect("it is appended now")),
                Err(error) if error.kind() == ErrorKind::TimedOut && ids == Ids::None => break None,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            written.failed += 1;
        };
        written.longest = written.longest.max(start.elapsed());
        written.positions.push(position);
        confirmed.fetch_add(usize::from(position.is_some()), Ordering::Relaxed);
    }
    written
}

/// Listens until the ends of so many channels, and all that was written to them, were heard.
async fn listen(mut subscription: Subscription, channels: usize) -> BTreeMap<String, Heard> {
    let mut all: BTreeMap<String, Heard> = BTreeMap::new();
    let mut untold = Heard::default();
    let is_done = |heard: &Heard| {
        heard.total.is_some_and(|total| heard.numbers.last().is_some_and(|last| last + 1 == total))
    };
    while all.values().filter(|heard| is_done(heard)).count() < channels {
        let Ok(item) = timeout(PATIENCE, subscription.next()).await else {
            panic!("nothing comes any more, and the end was not heard: {all:?}");
        };
        match item.expect("the subscription goes on") {
            Item::Event(received) => {
                let number =
                    std::str::from_utf8(received.event.data()).expect("text").parse().expect("a number");
                let heard = all.entry(received.channel.channel().to_owned()).or_default();
                match received.position {
                    Some(_) => heard.numbers.push(number),
                    None => heard.total = Some(number),
                }
            }
            Item::Gap(gap) => {
                let heard = match &gap.channel {
                    Some(channel) => all.entry(channel.channel().to_owned()).or_default(),
                    None => &mut untold,
                };
                heard.gaps += 1;
                heard.is_history_lost |= gap.reason == GapReason::HistoryLost;
            }
        }
    }
    all
}

/// Each event once and in order; no confirmed one missing unless the loss was told.
fn check_heard(channel: &str, heard: &Heard, written: &Written) {
    let is_rising = heard.numbers.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(is_rising, "{channel}: heard twice or out of order: {:?}", heard.numbers);
    let numbers: BTreeSet<usize> = heard.numbers.iter().copied().collect();
    let confirmed = written.positions.iter().enumerate().filter(|(_, position)| position.is_some());
    let missing = confirmed.filter(|(number, _)| !numbers.contains(number)).count();
    let is_told = missing == 0 || heard.is_history_lost;
    assert!(is_told, "{channel}: {missing} are missing, and nobody was told");
}

/// What is kept is what was confirmed in its epoch, each at its position.
async fn check_stream(channel: &Channel, written: &Written) {
    let Some(last) = written.positions.last().copied().flatten() else { return };
    let mut kept = BTreeMap::new();
    let mut next = Position { epoch: last.epoch, offset: 0 };
    loop {
        let history = channel.read().after(next).await.expect("the stream can be read");
        let Some(newest) = history.events.last().and_then(|received| received.position) else { break };
        for received in &history.events {
            let number = std::str::from_utf8(received.event.data()).expect("text").parse::<usize>();
            kept.insert(received.position.expect("a kept event").offset, number.expect("a number"));
        }
        next = newest;
    }
    for (number, position) in written.positions.iter().enumerate() {
        if let Some(position) = position
            && position.epoch == last.epoch
        {
            assert_eq!(kept.get(&position.offset), Some(&number), "{} at {position}", channel.path());
        }
    }
}
