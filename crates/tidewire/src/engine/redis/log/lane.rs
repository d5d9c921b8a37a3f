//! A lane: the appends of one node to one hash tag that are to be equally durable, in order, in batches.
//!
//! While batches are being written and answered, the next one collects, so batches grow with the load and a lone append
//! waits for nobody. A few batches are in flight at once. When the link breaks, those that may have been executed
//! are sent again, in order and before anything else, and the server answers from memory those that it executed.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Floors, Job};
use super::elsewhere::Elsewhere;
use super::queue::Queue;
use crate::engine::redis::command::Asking;
use crate::engine::redis::connection::{
    Connection, LinkState, Need, Pending, Reached, Repeat, RequestError, Syncing,
};
use crate::engine::redis::keys::{self, Tag};
use crate::engine::redis::resp::Value;
use crate::engine::redis::scripts::Script;
use crate::engine::redis::topology::{Line, Next, Pauses, Topology};
use crate::error::{Error, ErrorKind};
use crate::name::ChannelPath;
use crate::tasks::Tasks;

/// Batches in flight per lane; the server keeps the answers of so many for each node and tag.
const BATCHES_IN_FLIGHT_MAX: u64 = 2;
/// Streams of which a lane remembers what it saw confirmed; past it, it starts to remember anew.
const FLOORS_MAX: usize = 8_192;
/// Streams that are looked at in one step.
const LOOKS_MAX: usize = 100;
/// A wait without anything to wait for.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// A handle on a lane, whose task runs until it is told to stop.
pub(super) struct Lane {
    queue: Arc<Queue>,
}

impl Lane {
    pub(super) fn begin(
        topology: Arc<Topology>,
        node: &str,
        tag: Tag,
        need: Need,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Self {
        let queue = Arc::new(Queue::default());
        let runner = Runner {
            node: node.to_owned(),
            topology: topology.clone(),
            tag,
            need,
            queue: queue.clone(),
            elsewhere: Elsewhere { topology, tasks: tasks.clone() },
            pauses: Pauses::default(),
            flight: VecDeque::new(),
            landed: VecDeque::new(),
            again: VecDeque::new(),
            last_number: 0,
            floors: Floors::default(),
            looks: Vec::new(),
            looked_on: None,
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            let queue = runner.queue.clone();
            stop.run_until_cancelled(runner.run()).await;
            queue.close();
        });
        Self { queue }
    }

    /// Adds a job behind the others; drops it if the lane has stopped.
    pub(super) fn push(&self, job: Job) {
        self.queue.push(job);
    }
}

struct Runner {
    topology: Arc<Topology>,
    tag: Tag,
    /// Who has an append before it is confirmed.
    need: Need,
    node: String,
    queue: Arc<Queue>,
    elsewhere: Elsewhere,
    /// How long to wait when nobody serves the slot; until something is answered.
    pauses: Pauses,
    /// Sent on the link that is open, oldest first.
    flight: VecDeque<(Batch, Pending)>,
    /// Came back from a link that cannot be used any more, and not with an answer, oldest first.
    landed: VecDeque<Batch>,
    /// To be sent again, oldest first, before anything else.
    again: VecDeque<Batch>,
    last_number: u64,
    floors: Floors,
    /// Streams that may have lost what was confirmed, because another link is used since.
    looks: Vec<ChannelPath>,
    /// The link for which they were noted.
    looked_on: Option<(Connection, u64)>,
}

/// A link on which a lane sends.
struct Route {
    connection: Connection,
    link: u64,
    /// How its server syncs, where that is needed.
    syncing: Option<Syncing>,
    /// The node only takes the slot over: one batch goes there, behind `ASKING`.
    is_asked: bool,
}

/// Why a lane stopped to use a link.
enum Halt {
    LinkLost,
    /// Somebody flushed the server's scripts.
    NoScript,
    /// The slot is elsewhere, or nobody serves it now: the error reply that says so.
    Refused(Bytes),
    /// The one batch is answered.
    Asked,
}

impl Runner {
    async fn run(mut self) {
        let mut asked = None;
        loop {
            let Some((connection, link, is_asked)) = self.find_link(asked.take()).await else { return };
            let syncing = match self.syncing(&connection, link).await {
                Ok(syncing) => syncing,
                Err(error @ RequestError::Refused(_)) => {
                    self.refuse(&error);
                    self.queue.pushed().await;
                    continue;
                }
                Err(error) => {
                    self.expire(&error);
                    continue;
                }
            };
            let route = Route { connection, link, syncing, is_asked };
            self.look_again(&route);
            let halt = self.use_link(&route).await;
            let last = self.land(&route).await;
            // The one batch that a node was asked to take is answered while it lands.
            let halt = if route.is_asked { last.unwrap_or(halt) } else { halt };
            match halt {
                Halt::LinkLost | Halt::Asked => {}
                Halt::NoScript => {
                    let load = Script::Append.load(self.topology.scripts.publish);
                    // If it fails, the next try says so to those who wait.
                    drop(route.connection.request(&load, Repeat::Safe, self.topology.deadline()).await);
                }
                Halt::Refused(text) => asked = self.heed(text, &route.connection).await,
            }
        }
    }

    /// Notes every stream to be looked at when the link is a new one: whoever answers on it may be a replica that took
    /// over, or may have started again.
    fn look_again(&mut self, Route { connection, link, is_asked, .. }: &Route) {
        let is_known = |(known, number): &(Connection, u64)| known.is(connection) && number == link;
        if !is_asked && !self.looked_on.as_ref().is_some_and(is_known) {
            self.looks = self.floors.keys().cloned().collect();
            self.looked_on = Some((connection.clone(), *link));
        }
    }

    /// Finds out where a refused batch goes, and waits if it cannot go anywhere now.
    async fn heed(&mut self, text: Bytes, connection: &Connection) -> Option<Connection> {
        // A batch that nobody waits for, which only looks, must not hold up those that come.
        let deadline = self.next_deadline().min(self.topology.deadline());
        let next = self.topology.heed(self.tag, &text, connection, &mut self.pauses, deadline).await;
        self.expire(&RequestError::Refused(text));
        match next {
            Some(Next::Asked(connection)) => Some(connection),
            Some(Next::Owner | Next::Nowhere) | None => None,
        }
    }

    /// The link to send on, and whether it is that of a node that is asked; while there is none, deadlines pass. None when
    /// the connection was closed.
    async fn find_link(&mut self, asked: Option<Connection>) -> Option<(Connection, u64, bool)> {
        if let Some(connection) = asked
            && let LinkState::Up(link) = connection.state()
        {
            return Some((connection, link, true));
        }
        let line = if self.need.is_any() { Line::Durable } else { Line::Data };
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                biased;
                link = self.topology.link(self.tag, line, deadline) => match link {
                    Ok((connection, link)) => return Some((connection, link, false)),
                    Err(RequestError::Closed) => return None,
                    Err(error) => self.expire(&error),
                },
                // A job that came meanwhile has a deadline too.
                () = self.queue.pushed() => {}
            }
        }
    }

    /// How the server of a link syncs, where that matters; an error if it cannot, or cannot tell.
    async fn syncing(&self, connection: &Connection, link: u64) -> Result<Option<Syncing>, RequestError> {
        match self.need.is_fsynced {
            true => connection.syncing(link, self.topology.deadline()).await.map(Some),
            false => Ok(None),
        }
    }

    /// Ends all that waits: it cannot be confirmed as it is to be.
    fn refuse(&mut self, error: &RequestError) {
        let error = Error::from(error.clone());
        self.queue.fail(error.kind(), &error.to_string());
        let sent = std::mem::take(&mut self.again);
        sent.into_iter().for_each(|batch| batch.fail(ErrorKind::TimedOut, &error.to_string()));
    }

    fn next_deadline(&self) -> Instant {
        let sent = self.again.iter().filter_map(Batch::deadline);
        sent.chain(self.queue.deadline()).min().unwrap_or_else(|| Instant::now() + FOREVER)
    }

    /// Ends those whose deadline has passed: what was never sent was not done, what was sent may have been.
    fn expire(&mut self, error: &RequestError) {
        let (now, text) = (Instant::now(), error.to_string());
        self.queue.expire(&text);
        // A batch keeps its place and its entries: it is sent again whole or not at all.
        while self.again.front().and_then(Batch::deadline).is_some_and(|deadline| deadline <= now) {
            self.again.pop_front().into_iter().for_each(|batch| batch.fail(ErrorKind::TimedOut, &text));
        }
    }

    /// Sends and answers until the link cannot be used any more.
    async fn use_link(&mut self, route: &Route) -> Halt {
        let (queue, topology) = (self.queue.clone(), self.topology.clone());
        let mut rerouted = pin!(topology.rerouted(self.tag, &route.connection, route.link));
        loop {
            while self.has_room() {
                let next = self.again.pop_front().or_else(|| self.look()).or_else(|| self.collect());
                let Some(batch) = next else { break };
                if let Err(halt) = self.send(batch, route).await {
                    return halt;
                }
                if route.is_asked {
                    return Halt::Asked;
                }
            }
            let has_room = self.has_room();
            let reply = async {
                match self.flight.front_mut() {
                    Some((_, pending)) => pending.wait().await,
                    None => std::future::pending().await,
                }
            };
            let reply = tokio::select! {
                biased;
                reply = reply => reply,
                () = &mut rerouted, if !route.is_asked => return Halt::LinkLost,
                () = queue.pushed(), if has_room => {
                    // Those who were woken with the first caller join its batch.
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            if let Some((batch, _)) = self.flight.pop_front()
                && let Err(halt) = self.settle(batch, reply, route).await
            {
                return halt;
            }
        }
    }

    /// Whether the answer to the next batch would take the place of one that may be needed.
    fn has_room(&self) -> bool {
        let next = self.again.front().map_or(self.last_number + 1, |batch| batch.number);
        self.flight.front().is_none_or(|(oldest, _)| next - oldest.number < BATCHES_IN_FLIGHT_MAX)
    }

    /// Some of the streams to be looked at; apart from appends, which may be possible where this is not.
    fn look(&mut self) -> Option<Batch> {
        let rest = self.looks.len().saturating_sub(LOOKS_MAX);
        let looks = self.looks.split_off(rest);
        if looks.is_empty() {
            return None;
        }
        self.last_number += 1;
        Some(Batch { number: self.last_number, jobs: Vec::new(), looks, was_sent: false })
    }

    /// The jobs that wait, as many as a batch holds.
    fn collect(&mut self) -> Option<Batch> {
        let taken = self.queue.take();
        if taken.is_empty() {
            return None;
        }
        self.last_number += 1;
        Some(Batch { number: self.last_number, jobs: taken, looks: Vec::new(), was_sent: false })
    }

    async fn send(&mut self, batch: Batch, route: &Route) -> Result<(), Halt> {
        let answer = keys::answer(&self.node, self.tag, self.need, batch.number % BATCHES_IN_FLIGHT_MAX);
        let call = batch.call(&self.topology, &answer, &self.floors);
        let deadline = batch.deadline().unwrap_or_else(|| self.topology.deadline());
        let Route { connection, link, is_asked, .. } = route;
        let submitted = match is_asked {
            true => connection.submit(&Asking(&call), Some(*link), deadline).await,
            false => connection.submit(&call, Some(*link), deadline).await,
        };
        match submitted {
            Ok(pending) => self.flight.push_back((batch, pending)),
            Err(RequestError::NotSent(_)) => {
                self.put_back(batch);
                return Err(Halt::LinkLost);
            }
            Err(error) => fail(batch, error),
        }
        Ok(())
    }

    /// Brings a batch to its end, or lands it to be sent again.
    async fn settle(
        &mut self,
        mut batch: Batch,
        reply: Result<Value, RequestError>,
        route: &Route,
    ) -> Result<(), Halt> {
        let reply = match reply {
            Ok(Value::Error(text)) => Ok(Err(text)),
            Ok(answer) => self.reach(&batch, route).await.map(|reached| Ok((answer, reached))),
            Err(error) => Err(error),
        };
        let halt = match reply {
            Ok(Err(text)) if text.starts_with(b"NOSCRIPT") => Halt::NoScript,
            Ok(Err(text)) if self.topology.is_redirect(&text) => Halt::Refused(text),
            Ok(Err(text)) => {
                fail(batch, RequestError::Refused(text));
                return Ok(());
            }
            Ok(Ok((answer, reached))) => {
                if self.floors.len() > FLOORS_MAX {
                    self.floors.clear();
                }
                self.pauses = Pauses::default();
                let answer = answer.as_bytes().unwrap_or_default();
                batch.answer(answer, reached, &mut self.floors, &self.elsewhere);
                return Ok(());
            }
            Err(RequestError::NotSent(_)) => Halt::LinkLost,
            // It is sent again also where it was answered and its copies are not known: to whoever took over.
            Err(RequestError::Unknown(_)) => {
                batch.was_sent = true;
                Halt::LinkLost
            }
            Err(error) => {
                fail(batch, error);
                return Ok(());
            }
        };
        // One that only looks is not sent again: the next link is looked at anew, and having no deadline it would stand
        // before those that have one.
        if !batch.jobs.is_empty() {
            self.landed.push_back(batch);
        }
        Err(halt)
    }

    /// Waits until those have a batch that are to have it, or its time is up.
    async fn reach(&self, batch: &Batch, route: &Route) -> Result<Reached, RequestError> {
        let Route { connection, link, syncing, .. } = route;
        let Some(deadline) = batch.deadline().filter(|_| self.need.is_any()) else {
            return Ok(Reached::default());
        };
        match connection.reach(*link, self.need, *syncing, deadline).await {
            // The batch was executed, and the link on which that could be confirmed is gone.
            Err(RequestError::NotSent(why)) => Err(RequestError::Unknown(why)),
            outcome => outcome,
        }
    }

    /// Waits for what is still in flight on a link that is not used any more, and puts everything in order again.
    /// Gives what the last that was not answered said.
    async fn land(&mut self, route: &Route) -> Option<Halt> {
        let mut last = None;
        while let Some((batch, pending)) = self.flight.pop_front() {
            // Each is landed or ended by itself.
            last = self.settle(batch, pending.reply().await, route).await.err().or(last);
        }
        self.landed.append(&mut self.again);
        std::mem::swap(&mut self.landed, &mut self.again);
        // What cannot have been executed may be cut into other batches, and its callers told so in time.
        while self.again.back().is_some_and(|batch| !batch.was_sent) {
            self.again.pop_back().into_iter().for_each(|batch| self.put_back(batch));
        }
        last
    }

    /// Puts a batch that was not sent before everything else that waits.
    fn put_back(&mut self, batch: Batch) {
        if batch.was_sent {
            self.again.push_front(batch);
            return;
        }
        // What was to be looked at is given up when it is refused: the next append to it looks too.
        self.queue.put_back(batch.jobs);
    }
}

fn fail(batch: Batch, error: RequestError) {
    let error = Error::from(error);
    batch.fail(error.kind(), &error.to_string());
}
