//! The world of one case: an engine under test, a tenant of its own, a clock of its own.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use super::Need;
use crate::bus::{Channel, Gap, Item, Received, Subscription};
use crate::clock::{Clock, Timestamp};
use crate::engine::{Engine, Setup};
use crate::event::Event;
use crate::tenant::Tenant;
use crate::tidewire::{self, Builder, Tidewire};

/// What a test does to an engine from outside, given the tenant of the case.
pub type Hook = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How long a case waits for something that should happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How fast a virtual clock is moved at most, a tick at a time: what has to be done in time is done by real threads.
const PACE: Duration = Duration::from_millis(5);

/// An engine under test.
pub struct Subject {
    /// Its name in the table.
    pub name: &'static str,
    /// What it has; a case that needs more is skipped.
    pub has: Vec<Need>,
    /// Whether its time is the node's clock, which is then a virtual one; else it is a server's.
    pub is_time_virtual: bool,
    /// The URL for a case; the same name gives the same data.
    pub url: Box<dyn Fn(&str) -> String + Send + Sync>,
    /// Cuts every link of every node.
    pub cut_links: Option<Hook>,
    /// Destroys what the engine keeps of a tenant.
    pub destroy_history: Option<Hook>,
}

/// One case's part of the world.
pub struct Scene {
    subject: Arc<Subject>,
    name: String,
    clock: Clock,
}

impl Scene {
    /// A scene under a name of its own: that of the case, or another one for a run that is to find nothing of an earlier one.
    pub fn new(subject: Arc<Subject>, name: impl Into<String>) -> Self {
        let clock = if subject.is_time_virtual {
            Clock::virtual_at(Timestamp::from_millis(1_700_000_000_000))
        } else {
            Clock::system()
        };
        Self { subject, name: name.into(), clock }
    }

    pub(super) fn builder(&self) -> Builder {
        Tidewire::builder(&(self.subject.url)(&self.name)).clock(self.clock.clone())
    }

    /// Opens a node.
    pub(super) async fn open(&self) -> Tidewire {
        self.builder().open().await.expect("the engine opens")
    }

    /// Opens an engine without a node around it.
    pub(super) async fn open_engine(&self, setup: Setup) -> Engine {
        tidewire::open_engine(&(self.subject.url)(&self.name), setup).await.expect("the engine opens")
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The tenant that no other case uses: its name, and that of this process, so that runs are apart.
    pub(super) fn tenant_name(&self) -> String {
        format!("{}-{}", std::process::id(), &self.name[..self.name.len().min(50)])
    }

    pub(super) fn tenant(&self, node: &Tidewire) -> Tenant {
        node.tenant(&self.tenant_name()).expect("a valid tenant")
    }

    /// A node and a channel of the case's tenant on it.
    pub(super) async fn channel(&self) -> (Tidewire, Channel) {
        let node = self.open().await;
        let channel = self.tenant(&node).channel("orders").expect("a valid name");
        (node, channel)
    }

    /// A time that is long for what a case does in between, and short for who waits for the case.
    pub(super) fn ticks(&self, count: u32) -> Duration {
        Duration::from_millis(if self.subject.is_time_virtual { 60_000 } else { 250 }) * count
    }

    /// The lease of a consumer: short enough for a case to see it end, and long enough that a busy machine renews it.
    pub(super) fn lease(&self) -> Duration {
        self.ticks(if self.subject.is_time_virtual { 40 } else { 8 })
    }

    /// How much later than it should something may happen on a busy machine.
    pub(super) fn late(&self) -> Duration {
        self.ticks(if self.subject.is_time_virtual { 60 } else { 6 })
    }

    /// Lets time pass: moves a virtual clock, or waits until a server's has moved.
    pub(super) async fn pass(&self, duration: Duration) {
        if self.subject.is_time_virtual {
            self.clock.advance(duration);
        } else {
            self.clock.sleep(duration).await;
        }
    }

    /// Waits for `future`, which itself waits for time to pass.
    pub(super) async fn pass_until<F: Future>(&self, what: &str, future: F) -> F::Output {
        let mut future = pin!(future);
        let passing = async {
            // A virtual clock is moved again and again: who waits may not have looked at it yet. Not faster than a disk
            // answers, else leases end before anybody can renew them.
            loop {
                match tokio::time::timeout(PACE, &mut future).await {
                    Ok(output) => break output,
                    Err(_) => self.clock.advance(self.ticks(1)),
                }
            }
        };
        patiently(what, passing).await
    }

    /// Looks again and again, while time passes, until `is_so`.
    pub(super) async fn until<F: Future<Output = bool>>(&self, what: &str, mut is_so: impl FnMut() -> F) {
        let looking = async {
            while !is_so().await {
                self.clock.sleep(self.ticks(1) / 10).await;
            }
        };
        self.pass_until(what, looking).await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) async fn cut_links(&self) {
        let hook = self.subject.cut_links.as_ref().expect("a subject with links has a hook to cut them");
        hook(self.tenant_name()).await;
    }

    pub(super) async fn destroy_history(&self) {
        let hook = self.subject.destroy_history.as_ref().expect("such a subject has a hook for it");
        hook(self.tenant_name()).await;
    }
}

/// Waits for `future`, at most as long as a case is patient.
pub(super) async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// An event whose data is a number.
pub(super) fn numbered(number: usize) -> Event {
    Event::new("numbered", number.to_string())
}

/// The number of a numbered event.
pub(super) fn number(received: &Received) -> usize {
    let text = std::str::from_utf8(received.event.data()).expect("a numbered event holds text");
    text.parse().expect("a numbered event holds a number")
}

/// Appends numbered events one after the other.
pub(super) async fn append_numbered(channel: &Channel, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        channel.append(numbered(number)).await.expect("the append is confirmed");
    }
}

pub(super) async fn next(subscription: &mut Subscription) -> Item {
    patiently("an item", subscription.next()).await.expect("the subscription goes on")
}

/// The next item, which must be an event.
pub(super) async fn next_event(subscription: &mut Subscription) -> Received {
    match next(subscription).await {
        Item::Event(received) => received,
        Item::Gap(gap) => panic!("expected an event, was told {gap:?}"),
    }
}

/// The next item, which must be a gap.
pub(super) async fn next_gap(subscription: &mut Subscription) -> Gap {
    match next(subscription).await {
        Item::Gap(gap) => gap,
        Item::Event(received) => panic!("expected a gap, got {received:?}"),
    }
}

/// The numbers of the next events, none of which may be a gap.
pub(super) async fn next_numbers(subscription: &mut Subscription, count: usize) -> Vec<usize> {
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        numbers.push(number(&next_event(subscription).await));
    }
    numbers
}
