//! The load of one schedule: two nodes that write to the same streams, and one that listens.

mod tasks;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tidewire::{Channel, Event, Subscription, Tidewire};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use self::tasks::{Style, Work, append_end, call, listen, read_all, write};
use crate::history::{Ear, Heard, History, Written};
use crate::schedule::{Loss, Schedule};

/// Nodes of a schedule; all but the last write.
pub(crate) const NODES: usize = 3;
const STREAMS: usize = 2;
/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(10);
/// Appends of each writer that show that it is well again.
const SIGN_OF_LIFE: usize = 2;
/// More than the output buffer that a fault leaves a listener.
const LARGE_BYTES: usize = 256 * 1024;

/// What the load came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) confirmed: usize,
    pub(crate) unknown: usize,
    pub(crate) gaps: usize,
    /// Of groups: attempts, acks of what was acked before, and dead letters.
    pub(crate) handled: usize,
    pub(crate) again: usize,
    pub(crate) dead: usize,
    pub(crate) violations: Vec<String>,
}

/// What a fault may aim at.
#[derive(Clone)]
pub(crate) struct Target {
    tenant: String,
    channel: Channel,
    runtime: tokio::runtime::Handle,
}

impl Target {
    pub(crate) fn new(tenant: &str, channel: Channel) -> Self {
        Self { tenant: tenant.to_owned(), channel, runtime: tokio::runtime::Handle::current() }
    }

    /// A pattern that keys of one kind of a channel match, and of its groups.
    pub(crate) fn keys(&self, kind: &str, name: &str) -> String {
        format!("*:tenant:{}:*:{kind}:{name}", self.tenant)
    }

    /// A pattern that the key of one of the streams matches.
    pub(crate) fn stream_keys(&self, number: usize) -> String {
        format!("*:tenant:{}:*:stream:{}", self.tenant, stream_name(number % STREAMS))
    }

    /// Sends more than a small output buffer holds to everyone who listens.
    pub(crate) fn publish_large(&self) {
        let event = Event::new("large", vec![b'x'; LARGE_BYTES]);
        // At most once: whether anybody hears it is not the question.
        drop(self.runtime.block_on(self.channel.publish(event)));
    }
}

pub(crate) struct Load {
    work: Arc<Work>,
    nodes: Vec<Tidewire>,
    tenant: String,
    /// Each with the stream that it writes to.
    writers: Vec<(usize, JoinHandle<Vec<Written>>)>,
    callers: Vec<JoinHandle<()>>,
    ears: Vec<Listening>,
}

/// A subscription that is being heard.
struct Listening {
    name: String,
    is_late: bool,
    streams: Vec<usize>,
    /// By stream.
    heard: Arc<Mutex<Vec<Vec<Heard>>>>,
    task: JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "every task of the load is awaited when it is finished")]
fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(future)
}

fn stream_name(number: usize) -> String {
    format!("load:{number}")
}

impl Load {
    /// Opens the nodes and waits until everyone who listens has heard of every stream.
    pub(crate) async fn start(schedule: &Schedule, urls: &[String]) -> Result<Self> {
        let nodes = join_all(urls.iter().map(|url| Tidewire::open(url))).await;
        let nodes = nodes.into_iter().collect::<tidewire::Result<Vec<_>>>()?;
        let styles = Style::all(schedule.topology);
        let writer_count = (NODES - 1) * STREAMS * styles.len();
        let mut load = Self {
            work: Arc::new(Work::new(schedule.clone(), writer_count)),
            nodes,
            // A seed may run again on the same servers.
            tenant: format!("seed-{}-{:08x}", schedule.seed, fastrand::u32(..)),
            writers: Vec::new(),
            callers: Vec::new(),
            ears: Vec::new(),
        };
        for stream in 0..STREAMS {
            let subscription = load.channel(NODES - 1, stream)?.subscribe().open().await?;
            load.hear(&format!("channel {stream}"), false, subscription, vec![stream]);
        }
        let beside_writers = load.channel(0, 0)?.subscribe().open().await?;
        load.hear("channel 0 on a node that writes", false, beside_writers, vec![0]);
        let pattern = load.nodes[NODES - 1].tenant(&load.tenant)?.subscribe("load:*")?.open().await?;
        load.hear("pattern", false, pattern, (0..STREAMS).collect());
        for writer in 0..writer_count {
            let (node, stream) = (writer % (NODES - 1), writer / (NODES - 1) % STREAMS);
            let style = styles[writer / (NODES - 1) / STREAMS];
            let channel = load.channel(node, stream)?;
            load.writers.push((stream, spawn(write(channel, writer, style, load.work.clone()))));
        }
        for (number, node) in load.nodes.iter().enumerate() {
            load.callers.push(spawn(call(node.tenant(&load.tenant)?, number, load.work.clone())));
        }
        let hears_all = |ear: &Listening| {
            let heard = ear.heard.lock();
            ear.streams.iter().all(|&stream| !heard[stream].is_empty())
        };
        load.until("everyone hears every stream", |load| load.ears.iter().all(hears_all)).await?;
        Ok(load)
    }

    fn channel(&self, node: usize, stream: usize) -> Result<Channel> {
        Ok(self.nodes[node].tenant(&self.tenant)?.channel(&stream_name(stream))?)
    }

    fn hear(&mut self, name: &str, is_late: bool, subscription: Subscription, streams: Vec<usize>) {
        let heard = Arc::new(Mutex::new(vec![Vec::new(); STREAMS]));
        let task = spawn(listen(subscription, streams.clone(), heard.clone(), self.work.clone()));
        self.ears.push(Listening { name: name.to_owned(), is_late, streams, heard, task });
    }

    pub(crate) fn target(&self) -> Result<Target> {
        Ok(Target::new(&self.tenant, self.channel(0, 0)?))
    }

    /// Listens to a stream from its beginning, when there are events already.
    pub(crate) async fn listen_late(&mut self) -> Result<()> {
        let channel = self.channel(NODES - 1, 0)?;
        let opening = async {
            loop {
                match channel.subscribe().earliest().open().await {
                    Err(error) if error.is_retryable() => {}
                    outcome => break outcome,
                }
            }
        };
        let subscription = timeout(PATIENCE, opening).await.context("a late subscription opens")??;
        self.hear("channel 0 from the earliest", true, subscription, vec![0]);
        Ok(())
    }

    /// Waits until every link of every node answers and every writer's appends are confirmed, without anything
    /// being opened anew.
    pub(crate) async fn recover(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for (number, node) in self.nodes.iter().enumerate() {
            loop {
                let health = node.health().await;
                if health.is_healthy() {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("node {number} is not well {PATIENCE:?} after the fault: {health:?}");
                }
                tokio::time::sleep(POLL).await; // tidy: health is asked for
            }
        }
        let confirmed = || self.work.confirmed.iter().map(|count| count.load(Ordering::Relaxed));
        let before: Vec<usize> = confirmed().collect();
        self.until("every writer's appends are confirmed again", |_| {
            confirmed().zip(&before).all(|(now, before)| now >= before + SIGN_OF_LIFE)
        })
        .await
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > deadline {
                bail!("waited {PATIENCE:?} until {what}");
            }
            tokio::time::sleep(POLL).await; // tidy: counters are watched
        }
        Ok(())
    }

    /// Ends the load and checks all that was seen of it, where no more than `loss` may be lost.
    pub(crate) async fn finish(self, loss: Loss) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        self.work.is_over.store(true, Ordering::Relaxed);
        let mut written = vec![Vec::new(); STREAMS];
        for (stream, writer) in self.writers {
            written[stream].extend(timeout(PATIENCE, writer).await.context("a writer ends")??);
        }
        for caller in self.callers {
            timeout(PATIENCE, caller).await.context("a caller ends")??;
        }
        let channels = |node: usize| {
            let tenant = self.nodes[node].tenant(&self.tenant)?;
            (0..STREAMS)
                .map(move |stream| tenant.channel(&stream_name(stream)))
                .collect::<tidewire::Result<Vec<_>>>()
        };
        for (stream, channel) in channels(1)?.iter().enumerate() {
            written[stream]
                .push(timeout(PATIENCE, append_end(channel)).await.context("the end is appended")?);
        }
        let mut ears = vec![Vec::new(); STREAMS];
        for listening in self.ears {
            if timeout(PATIENCE, listening.task).await.is_err() {
                outcome.violations.push(format!("{}: did not hear the end", listening.name));
            }
            let heard = std::mem::take(&mut *listening.heard.lock());
            for (stream, heard) in heard.into_iter().enumerate() {
                outcome.gaps += heard.iter().filter(|heard| matches!(heard, Heard::Gap(_))).count();
                if listening.streams.contains(&stream) {
                    ears[stream].push(Ear {
                        name: listening.name.clone(),
                        is_late: listening.is_late,
                        heard,
                    });
                }
            }
        }
        for (stream, (written, ears)) in written.into_iter().zip(ears).enumerate() {
            let (epoch, kept) = read_all(&channels(0)?[stream]).await?;
            outcome.confirmed += written.iter().filter(|written| written.position.is_some()).count();
            outcome.unknown += written.iter().filter(|written| written.position.is_none()).count();
            let history = History { loss, written, ears, epoch, kept };
            let name = stream_name(stream);
            outcome.violations.extend(history.violations().into_iter().map(|rule| format!("{name}: {rule}")));
        }
        outcome.violations.append(&mut self.work.violations.lock());
        for node in &self.nodes {
            if let Err(error) = node.close(PATIENCE).await {
                outcome.violations.push(format!("a node does not close: {error}"));
            }
        }
        Ok(outcome)
    }
}
