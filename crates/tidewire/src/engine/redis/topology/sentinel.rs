//! The primary that sentinels name: found out again and again, with links that end when it is another one.
//!
//! Every sentinel has one link of long life, over which it is asked now and then, tells of a switch when it happens, and
//! is asked once more whenever the primary is dialed. Of their answers, those with the highest epoch count: it grows with
//! every failover, so a sentinel that was away does not lead back to the old primary.

mod tether;
mod views;
mod watcher;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::DropGuard;

use self::tether::Tethered;
use self::views::{Says, Views};
use crate::engine::Probe;
use crate::engine::redis::address::{Address, Endpoint, Group};
use crate::engine::redis::command::Command;
use crate::engine::redis::link::{Dial, DialAddress, DialError, Link};
use crate::tasks::Tasks;

/// How long a sentinel may take to answer a probe.
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// The sentinels of one primary. Dropping it closes the links to them.
pub(super) struct Sentinels {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    group: Group,
    views: watch::Sender<Views>,
    /// The primary as it is known; it stays when no sentinel answers.
    named: watch::Sender<Option<Endpoint>>,
    /// Counts the questions: every sentinel is asked when it grows.
    question: watch::Sender<u64>,
}

impl Sentinels {
    /// Starts to ask and to listen; `node` names the links.
    pub(super) fn open(group: Group, node: &str, tasks: &Tasks) -> Self {
        let stop = tasks.stopping().child_token();
        let shared = Arc::new(Shared {
            views: watch::channel(Views::new(group.sentinels.len())).0,
            named: watch::channel(None).0,
            question: watch::channel(0).0,
            group,
        });
        for (number, sentinel) in shared.group.sentinels.iter().enumerate() {
            let dial = DialAddress::sentinel(sentinel.clone(), format!("tidewire-{node}-sentinel"));
            let watching = watcher::keep_watching(shared.clone(), number, dial);
            let stopped = stop.clone();
            tasks.spawn(async move {
                stopped.run_until_cancelled(watching).await;
            });
        }
        Self { shared, _stop: stop.drop_guard() }
    }

    /// Dials the primary of the moment, with `prelude` before anything else.
    pub(super) fn dialer(&self, client_name: String, prelude: Vec<Command>) -> Arc<dyn Dial> {
        Arc::new(DialPrimary { shared: self.shared.clone(), client_name, prelude: prelude.into() })
    }

    /// The primary as it is known now, for people.
    pub(super) fn endpoint(&self) -> String {
        match &*self.shared.named.borrow() {
            Some(endpoint) => endpoint.to_string(),
            None => format!("the primary {:?}", self.shared.group.name),
        }
    }

    /// The primary as it is known now.
    pub(super) fn address(&self) -> Option<Address> {
        self.shared.named.borrow().as_ref().map(|endpoint| self.shared.address(endpoint))
    }

    pub(super) fn group(&self) -> &Group {
        &self.shared.group
    }

    /// Proves a round trip to every sentinel. One is enough: only when none answers are they needed.
    pub(super) async fn probe(&self) -> Vec<Probe> {
        let (start, question) = (Instant::now(), self.shared.ask());
        let mut views = self.shared.views.subscribe();
        let mut took: Vec<Option<Duration>> = vec![None; self.shared.group.sentinels.len()];
        let all = async {
            loop {
                let is_settled = {
                    let views = views.borrow_and_update();
                    for (took, has_answered) in took.iter_mut().zip(views.answered(question)) {
                        *took = took.or(has_answered.then(|| start.elapsed()));
                    }
                    views.is_settled(question)
                };
                if is_settled || views.changed().await.is_err() {
                    return;
                }
            }
        };
        // Those that are late have no time in `took`.
        drop(timeout(PROBE_TIME_MAX, all).await);
        let is_needed = took.iter().all(Option::is_none);
        let views = self.shared.views.borrow();
        let sentinels = self.shared.group.sentinels.iter().zip(views.faults(&self.shared.group.name));
        let probe = |((sentinel, fault), took): ((&Address, Option<String>), Option<Duration>)| Probe {
            link: format!("sentinel {}", sentinel.endpoint),
            outcome: match (took, fault) {
                (Some(took), None) => Ok(took),
                (_, Some(fault)) => Err(fault),
                (None, None) => Err(format!("no answer within {PROBE_TIME_MAX:?}")),
            },
            is_needed,
            opened: 0,
            open_for: None,
        };
        sentinels.zip(took).map(probe).collect()
    }
}

impl Shared {
    /// Has every sentinel asked; gives the number that their answers will have.
    fn ask(&self) -> u64 {
        let mut number = 0;
        self.question.send_modify(|question| {
            *question += 1;
            number = *question;
        });
        number
    }

    /// Takes over what a sentinel says, in answer to a question.
    fn hear(&self, number: usize, says: Says, question: u64) {
        let mut primary = None;
        self.views
            .send_modify(|views| primary = views.take(number, says, question, self.named.borrow().as_ref()));
        if let Some(primary) = primary {
            let before = self.named.send_replace(Some(primary.clone()));
            match before {
                Some(before) if before != primary => {
                    tracing::warn!(name = %self.group.name, %before, now = %primary, "sentinels name another primary");
                }
                _ => {}
            }
        }
    }

    fn address(&self, endpoint: &Endpoint) -> Address {
        Address { endpoint: endpoint.clone(), access: self.group.access.clone() }
    }

    /// Why there is no primary to dial.
    fn fault(&self) -> DialError {
        let views = self.views.borrow();
        let name = &self.group.name;
        let fault = |(sentinel, fault): (&Address, Option<String>)| {
            let (endpoint, fault) = (sentinel.endpoint.to_string(), fault?);
            Some(if fault.contains(&endpoint) { fault } else { format!("{endpoint}: {fault}") })
        };
        let faults: Vec<_> = self.group.sentinels.iter().zip(views.faults(name)).filter_map(fault).collect();
        let text = format!("no sentinel names the primary {name:?} ({})", faults.join("; "));
        DialError::NoPrimary { text, is_permanent: views.is_in_vain() }
    }
}

/// Dials the primary that the sentinels name at that moment, and checks that it is one.
struct DialPrimary {
    shared: Arc<Shared>,
    client_name: String,
    prelude: Arc<[Command]>,
}

impl Dial for DialPrimary {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send + '_>> {
        Box::pin(self.find())
    }
}

impl DialPrimary {
    async fn find(&self) -> Result<Link, DialError> {
        let question = self.shared.ask();
        let mut views = self.shared.views.subscribe();
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let (candidate, is_settled) = {
                let views = views.borrow_and_update();
                (
                    views.candidates(question).find(|endpoint| !tried.contains(endpoint)),
                    views.is_settled(question),
                )
            };
            // Without any sentinel, the primary that was named last is one for as long as it says so.
            let last_named = || self.shared.named.borrow().clone().filter(|_| is_settled && tried.is_empty());
            let Some(endpoint) = candidate.or_else(last_named) else {
                if is_settled || views.changed().await.is_err() {
                    return Err(last.unwrap_or_else(|| self.shared.fault()));
                }
                continue;
            };
            tokio::select! {
                biased;
                link = self.dial_at(&endpoint) => match link {
                    Ok(link) => return Ok(link),
                    Err(error) => {
                        tried.push(endpoint);
                        last = Some(error);
                    }
                },
                // A server that takes long to be dialed may be one that was just replaced.
                () = tether::left(self.shared.named.subscribe(), endpoint.clone()) => {}
            }
        }
    }

    async fn dial_at(&self, endpoint: &Endpoint) -> Result<Link, DialError> {
        // From before the link is there: what changes meanwhile counts.
        let left = tether::left(self.shared.named.subscribe(), endpoint.clone());
        let address = self.shared.address(endpoint);
        let dial = DialAddress::new(address, self.client_name.clone(), self.prelude.clone());
        let link = dial.dial().await?;
        Ok(Link { reader: Box::new(Tethered::new(link.reader, left)), ..link })
    }
}
