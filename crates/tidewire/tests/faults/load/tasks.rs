//! Who writes, calls and listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tidewire::{
    Channel, Condition, Durability, Epoch, Error, ErrorKind, Event as Sent, Item, Position, Received,
    Subscription, Tenant,
};
use tokio::time::{Interval, MissedTickBehavior};

use crate::history::{Entry, Event, Heard, Written};
use crate::schedule::{Fault, Schedule, Topology};

/// How often a writer appends and a caller asks.
const EVERY: Duration = Duration::from_millis(15);
/// Who appends the last event of a stream.
const ENDER: usize = 1_000;

/// What every task of a load shares.
pub(super) struct Work {
    pub(super) schedule: Schedule,
    pub(super) is_over: AtomicBool,
    /// Appends confirmed, by writer.
    pub(super) confirmed: Vec<AtomicUsize>,
    pub(super) violations: Mutex<Vec<String>>,
}

impl Work {
    pub(super) fn new(schedule: Schedule, writers: usize) -> Self {
        let confirmed = (0..writers).map(|_| AtomicUsize::new(0)).collect();
        Self { schedule, is_over: AtomicBool::new(false), confirmed, violations: Mutex::default() }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn violation(&self, text: String) {
        self.violations.lock().push(text);
    }

    /// Whether a call may fail like this under the faults of the schedule, and nothing was done then.
    fn may_refuse(&self, error: &Error) -> bool {
        let is_refused = error.to_string().contains("OOM") && self.schedule.has(Fault::OutOfMemory)
            || error.to_string().contains("MISCONF") && self.schedule.has(Fault::FailedSave);
        is_refused || matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Backpressure)
    }
}

/// How a writer appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Deduplicated,
    /// With a dedup id too, so that it is tried again until it is confirmed.
    Replicated,
}

impl Style {
    pub(super) fn all(topology: Topology) -> &'static [Self] {
        match topology.has_replicas() {
            true => &[Self::Plain, Self::Deduplicated, Self::Replicated],
            false => &[Self::Plain, Self::Deduplicated],
        }
    }

    fn durability(self, topology: Topology) -> Durability {
        match (self, topology) {
            (Self::Plain | Self::Deduplicated, _) => Durability::Fast,
            // Sentinels may promote either replica, and let the other confirm meanwhile what the old primary takes.
            (Self::Replicated, Topology::Sentinel) => Durability::Replicated(2),
            (Self::Replicated, _) => Durability::Replicated(1),
        }
    }
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Appends one event after the other until the load is over. What was refused is tried again; of what may have been
/// done only what has a dedup id.
pub(super) async fn write(channel: Channel, writer: usize, style: Style, work: Arc<Work>) -> Vec<Written> {
    let (mut written, mut ticks) = (Vec::new(), ticks());
    let durability = style.durability(work.schedule.topology);
    for number in 0.. {
        ticks.tick().await;
        if work.is_over() {
            break;
        }
        let event = Event { writer, number };
        let text = format!("{writer}:{number}");
        let sent = Sent::new("numbered", text.clone());
        let position = loop {
            let append = channel.append(sent.clone()).durability(durability);
            let append = if style == Style::Plain { append } else { append.dedup(&text) };
            match append.await {
                Ok(receipt) => break receipt.position,
                Err(error) if work.may_refuse(&error) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut && style == Style::Plain => break None,
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(error) => {
                    work.violation(format!("{event:?}: an append fails: {error:?}"));
                    return written;
                }
            }
            ticks.tick().await;
        };
        work.confirmed[writer].fetch_add(usize::from(position.is_some()), Ordering::Relaxed);
        written.push(Written { event, position, durability });
    }
    written
}

/// Appends the event after which nothing comes.
pub(super) async fn append_end(channel: &Channel) -> Written {
    loop {
        if let Ok(receipt) = channel.append(Sent::new("numbered", format!("{ENDER}:0"))).dedup("end").await {
            let event = Event { writer: ENDER, number: 0 };
            return Written { event, position: receipt.position, durability: Durability::Fast };
        }
    }
}

/// Puts and gets an entry of its own: a reply that is not one's own shows.
pub(super) async fn call(tenant: Tenant, number: usize, work: Arc<Work>) {
    let (owner, mut entry, mut ticks) = (format!("caller {number}: "), Entry::default(), ticks());
    let key = format!("entry:{number}");
    while !work.is_over() {
        ticks.tick().await;
        let value = entry.next();
        match tenant.put(&key, format!("{owner}{value}"), None, Condition::Always).await {
            Ok(true) => entry.confirmed(value),
            Ok(false) => work.violation(format!("{owner}an unconditional put says that it did nothing")),
            Err(error) if work.may_refuse(&error) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => entry.unknown(value),
            Err(error) => work.violation(format!("{owner}a put fails: {error:?}")),
        }
        match tenant.get(&key).await {
            Ok(found) => {
                let found = found.map(|found| String::from_utf8_lossy(&found).into_owned());
                let refuted = entry.refutes(work.schedule.loss(), &owner, found.as_deref());
                refuted.into_iter().for_each(|why| work.violation(why));
            }
            Err(error) if work.may_refuse(&error) || error.kind() == ErrorKind::TimedOut => {}
            Err(error) => work.violation(format!("{owner}a get fails: {error:?}")),
        }
    }
}

/// Listens until it has heard the end of each of `streams`.
pub(super) async fn listen(
    mut subscription: Subscription,
    streams: Vec<usize>,
    heard: Arc<Mutex<Vec<Vec<Heard>>>>,
    work: Arc<Work>,
) {
    let mut running = streams.clone();
    let stream_of = |name: &str| name.strip_prefix("load:")?.parse::<usize>().ok();
    while !running.is_empty() {
        let Some(item) = subscription.next().await else {
            work.violation("a subscription ended by itself".into());
            return;
        };
        let mut heard = heard.lock();
        match item {
            Item::Event(received) => {
                let Some(position) = received.position else { continue };
                let (Some(stream), Some(event)) = (stream_of(received.channel.channel()), read(&received))
                else {
                    work.violation(format!("heard what nobody sent: {received:?}"));
                    continue;
                };
                heard[stream].push(Heard::Kept(position, event));
                if event.writer == ENDER {
                    running.retain(|running| *running != stream);
                }
            }
            Item::Gap(gap) => {
                let of = gap.channel.as_ref().and_then(|channel| stream_of(channel.channel()));
                for stream in streams.iter().filter(|&&stream| of.is_none_or(|of| of == stream)) {
                    heard[*stream].push(Heard::Gap(gap.clone()));
                }
            }
        }
    }
}

fn read(received: &Received) -> Option<Event> {
    let (writer, number) = std::str::from_utf8(received.event.data()).ok()?.split_once(':')?;
    Some(Event { writer: writer.parse().ok()?, number: number.parse().ok()? })
}

/// Everything that a stream keeps, and its epoch.
pub(super) async fn read_all(channel: &Channel) -> Result<(Epoch, Vec<(u64, Event)>)> {
    let (mut kept, mut epoch): (Vec<(u64, Event)>, _) = (Vec::new(), None);
    loop {
        let mut reading = channel.read();
        if let (Some(epoch), Some((offset, _))) = (epoch, kept.last()) {
            reading = reading.after(Position { epoch, offset: *offset });
        }
        let page = reading.await?;
        if page.missing_count > 0 {
            bail!("{} events of {channel:?} are missing or cannot be decoded", page.missing_count);
        }
        epoch = Some(page.epoch);
        if page.events.is_empty() {
            return Ok((page.epoch, kept));
        }
        for received in page.events {
            let position = received.position.context("a kept event")?;
            kept.push((position.offset, read(&received).context("an event of the load")?));
        }
    }
}
