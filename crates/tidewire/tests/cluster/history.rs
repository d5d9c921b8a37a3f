//! What was confirmed against what was heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidewire::{Channel, Event, GapReason, Item, Position, Subscription, Tidewire};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long a listener may take to hear what was confirmed.
const PATIENCE: Duration = Duration::from_secs(30);
const TENANT: &str = "history";

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
    /// By number.
    positions: Vec<Position>,
    /// Tries that were not confirmed; the same event was tried again.
    failed: usize,
    /// The longest time from the first try of an append to its confirmation.
    longest: Duration,
}

/// What one listener was given of one channel.
#[derive(Default)]
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
    pub(crate) failed: usize,
    pub(crate) lost_and_told: usize,
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
        let writer = |channel| spawn(write(channel, is_over.clone(), confirmed.clone()));
        let channels = channels(&writing);
        let writers = channels.iter().cloned().map(writer).collect();
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
            outcome.confirmed += log.positions.len();
            outcome.failed += log.failed;
            outcome.longest = outcome.longest.max(log.longest);
            check_stream(channel, &log).await;
            // A live event: everything is up again, so it must arrive, over what was just repaired.
            let end = Event::new("end", log.positions.len().to_string());
            channel.publish(end).await.expect("published");
            written.insert(channel.path().channel().to_owned(), log);
        }
        for listener in self.listeners {
            let heard =
                timeout(PATIENCE, listener).await.expect("the listeners hear the end").expect("it ends");
            for (channel, heard) in heard {
                outcome.gaps += heard.gaps;
                outcome.lost_and_told += check_heard(&channel, &heard, written[&channel].positions.len());
            }
        }
        outcome
    }
}

async fn write(channel: Channel, is_over: Arc<AtomicBool>, confirmed: Arc<AtomicUsize>) -> Written {
    let mut written = Written { positions: Vec::new(), failed: 0, longest: Duration::ZERO };
    while !is_over.load(Ordering::Relaxed) {
        let (number, start) = (written.positions.len().to_string(), Instant::now());
        let receipt = loop {
            match channel.append(Event::new("numbered", number.clone())).dedup(&number).await {
                Ok(receipt) => break receipt,
                Err(error) => {
                    assert!(error.is_retryable(), "{error:?}");
                    written.failed += 1;
                }
            }
        };
        written.longest = written.longest.max(start.elapsed());
        written.positions.push(receipt.position.expect("it is appended now"));
        confirmed.fetch_add(1, Ordering::Relaxed);
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
        match subscription.next().await.expect("the subscription goes on") {
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

/// Each event once and in order; none missing unless the loss was told. Gives the number of those told.
fn check_heard(channel: &str, heard: &Heard, total: usize) -> usize {
    let is_rising = heard.numbers.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(is_rising, "{channel}: heard twice or out of order: {:?}", heard.numbers);
    let missing = total - heard.numbers.len();
    assert!(
        missing == 0 || heard.is_history_lost,
        "{channel}: {missing} of {total} are missing, and nobody was told"
    );
    missing
}

/// What is kept is what was confirmed in its epoch, each at its position.
async fn check_stream(channel: &Channel, written: &Written) {
    let Some(last) = written.positions.last() else { return };
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
    let confirmed = written.positions.iter().enumerate().filter(|(_, position)| position.epoch == last.epoch);
    for (number, position) in confirmed {
        assert_eq!(kept.get(&position.offset), Some(&number), "{} at {position}", channel.path());
    }
}
