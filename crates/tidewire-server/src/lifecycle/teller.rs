//! What is told of one connection, one thing after the other: what began is over later, and in that order.
//!
//! A beginning writes its row first, and is told before the client is answered. An end is told, and then the row goes. Each is
//! tried until it is done; where this node ends before, the row stays for another one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewire::{Error, ErrorKind};
use tidewire_protocol::codes::ErrorCode;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::fact::{Ending, Fact};
use super::{Done, Lifecycle};
use crate::failure::Failure;
use crate::gateway::Vitals;

/// How long a client waits for its beginning to be told; a try at the engine and its repetitions take less.
const BEGIN_WITHIN: Duration = Duration::from_secs(9);

/// Steps of one connection that wait, when nothing can be told. Each subscribe command that fails adds two.
const STEPS_MAX: usize = 1_000;

/// Tells of one connection.
pub(crate) struct Teller {
    lifecycle: Arc<Lifecycle>,
    key: u64,
    user: Box<str>,
    client: Box<str>,
    vitals: Arc<Vitals>,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    steps: VecDeque<Step>,
    is_running: bool,
    /// What has a row, by the number under which it began: a connection before its subscriptions.
    rows: BTreeMap<u64, Row>,
}

enum Step {
    Begin {
        row: u64,
        channel: Option<Box<str>>,
        answer: oneshot::Sender<tidewire::Result<()>>,
    },
    End {
        row: u64,
    },
    /// What has begun may have been told as over.
    Renew,
}

#[derive(Clone)]
struct Row {
    fact: Fact,
    /// Its beginning was told, by this node.
    is_told: bool,
}

/// Something that is told to have begun. Dropping it has it told that it is over.
pub(crate) struct Told {
    teller: Arc<Teller>,
    row: u64,
}

impl Lifecycle {
    /// One who tells of a connection.
    ///
    /// # Errors
    /// 100 where so many connections have ended untold that no more may be there.
    pub(crate) fn teller(
        self: &Arc<Self>,
        user: &str,
        client: &str,
        vitals: &Arc<Vitals>,
    ) -> Result<Arc<Teller>, Failure> {
        if self.tellers.lock().len() >= self.tellers_max {
            let detail = Some("too much waits to be told: the engine does not take it".into());
            return Err(Failure { detail, ..ErrorCode::INTERNAL.into() });
        }
        Ok(Arc::new(Teller {
            lifecycle: self.clone(),
            key: self.next_number(),
            user: user.into(),
            client: client.into(),
            vitals: vitals.clone(),
            line: Mutex::default(),
        }))
    }
}

impl Teller {
    /// Tells that the connection is there, if that is told.
    ///
    /// # Errors
    /// Those of the engine; if anything was told then, it is told as over.
    pub(crate) async fn connect(self: &Arc<Self>) -> Result<Option<Told>, Failure> {
        match self.lifecycle.tells_connections {
            true => self.begin(None).await.map(Some),
            false => Ok(None),
        }
    }

    /// Tells that it has subscribed to a channel.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) async fn subscribe(self: &Arc<Self>, channel: &str) -> Result<Told, Failure> {
        self.begin(Some(channel.into())).await
    }

    /// Tells anew what may have been told as over.
    pub(super) fn renew(self: &Arc<Self>) {
        self.add(Step::Renew);
    }

    async fn begin(self: &Arc<Self>, channel: Option<Box<str>>) -> Result<Told, Failure> {
        let (answer, answered) = oneshot::channel();
        // From here on it is told as over, also where this is cut short.
        let told = Told { teller: self.clone(), row: self.lifecycle.next_number() };
        if self.line.lock().steps.len() >= STEPS_MAX {
            return Err(ErrorCode::TOO_MANY_REQUESTS.into());
        }
        self.add(Step::Begin { row: told.row, channel, answer });
        match timeout(BEGIN_WITHIN, answered).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) => return Err(Error::new(ErrorKind::Closed, "this node closes").into()),
            Err(_) => return Err(Error::new(ErrorKind::TimedOut, "not told in time").into()),
        }
        Ok(told)
    }

    fn add(self: &Arc<Self>, step: Step) {
        let mut line = self.line.lock();
        line.steps.push_back(step);
        if !std::mem::replace(&mut line.is_running, true) {
            self.lifecycle.tellers.lock().insert(self.key, self.clone());
            self.lifecycle.tasks.spawn(self.clone().run());
        }
    }

    async fn run(self: Arc<Self>) {
        while let Some(step) = self.next() {
            // Boxed, so that those who wait are small.
            if Box::pin(self.take(step)).await == Done::No {
                // The rows are there, and others tell the rest.
                return;
            }
        }
    }

    fn next(&self) -> Option<Step> {
        let mut line = self.line.lock();
        let step = line.steps.pop_front();
        if step.is_none() {
            line.is_running = false;
            line.steps = VecDeque::new();
            if line.rows.is_empty() {
                self.lifecycle.tellers.lock().remove(&self.key);
            }
        }
        step
    }

    async fn take(&self, step: Step) -> Done {
        match step {
            // Nobody waits for it any more: it is as if it had never been asked for.
            Step::Begin { answer, .. } if answer.is_closed() => Done::Yes,
            Step::Begin { row, channel, answer } => {
                let outcome = self.tell_begin(row, channel).await;
                // Who has gone meanwhile drops what it has, and that is told.
                drop(answer.send(outcome));
                Done::Yes
            }
            Step::End { row } => self.tell_end(row).await,
            Step::Renew => self.tell_anew().await,
        }
    }

    async fn tell_begin(&self, row: u64, channel: Option<Box<str>>) -> tidewire::Result<()> {
        let _place = self.lifecycle.writes.acquire().await;
        let fact = self.fact(row, channel.map(String::from));
        if let Err(error) = self.keep(row, &fact).await {
            // It may be there all the same, and is to be no more; the roster goes on with that by itself.
            let _left = self.lifecycle.told.leave(&self.name_of(row, &fact)).await.is_ok();
            return Err(error);
        }
        self.tell_kept(row, fact).await
    }

    /// Tells the beginning of what has a row.
    async fn tell_kept(&self, row: u64, fact: Fact) -> tidewire::Result<()> {
        self.note(row, fact.clone(), false);
        self.lifecycle.tell(fact.begun()).await?;
        self.note(row, fact, true);
        Ok(())
    }

    /// Tells until it is told that something is over.
    async fn tell_over(&self, Row { fact, is_told }: &Row, ending: Ending) -> Done {
        let lifecycle = &self.lifecycle;
        let notice = fact.over(lifecycle.clock.now(), ending);
        let attempt = || async {
            // What may have been told in part is told in whole.
            if !is_told {
                lifecycle.tell(fact.begun()).await?;
            }
            lifecycle.tell(notice.clone()).await
        };
        lifecycle.persist("an end", attempt).await
    }

    async fn tell_end(&self, row: u64) -> Done {
        let Some(kept) = self.line.lock().rows.get(&row).cloned() else { return Done::Yes };
        if self.tell_over(&kept, self.ending()).await == Done::No {
            return Done::No;
        }
        self.line.lock().rows.remove(&row);
        // One that cannot be removed now is removed later, by the roster or by who finds this node dead: told once all the same.
        if let Err(error) = self.lifecycle.told.leave(&self.name_of(row, &kept.fact)).await {
            tracing::debug!(%error, "the row of something that is over stays for now");
        }
        Done::Yes
    }

    /// Subscriptions end before their connection does, and begin after it.
    async fn tell_anew(&self) -> Done {
        let rows: Vec<(u64, Row)> =
            self.line.lock().rows.iter().map(|(row, kept)| (*row, kept.clone())).collect();
        let lifecycle = &self.lifecycle;
        for (_, kept) in rows.iter().rev() {
            if self.tell_over(kept, Ending::of_node()).await == Done::No {
                return Done::No;
            }
        }
        for (row, Row { fact, .. }) in rows {
            let number = lifecycle.next_number();
            let attempt = || async {
                let since = lifecycle.clock.now().as_millis();
                let fact = Fact { number, since, ..fact.clone() };
                self.keep(row, &fact).await?;
                self.tell_kept(row, fact).await
            };
            if lifecycle.persist("a beginning", attempt).await == Done::No {
                return Done::No;
            }
        }
        Done::Yes
    }

    fn fact(&self, number: u64, channel: Option<String>) -> Fact {
        Fact {
            user: (*self.user).into(),
            client: (*self.client).into(),
            channel,
            transport: self.vitals.transport.as_str().into(),
            node: self.lifecycle.node.clone(),
            number,
            since: self.lifecycle.clock.now().as_millis(),
        }
    }

    fn note(&self, row: u64, fact: Fact, is_told: bool) {
        self.line.lock().rows.insert(row, Row { fact, is_told });
    }

    async fn keep(&self, row: u64, fact: &Fact) -> tidewire::Result<()> {
        self.lifecycle.told.join(&self.name_of(row, fact), "", fact.row()).await.map(|_| ())
    }

    /// The name of a row. They are found in order of their names: subscriptions before their connection.
    fn name_of(&self, row: u64, fact: &Fact) -> String {
        let kind = if fact.channel.is_some() { "a" } else { "b" };
        format!("{}:{kind}{row}", self.client)
    }

    fn ending(&self) -> Ending {
        let ending = self.vitals.ending.get();
        let (code, reason) = ending.cloned().unwrap_or((0, "its connect command failed".into()));
        Ending { code, reason }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.teller.add(Step::End { row: self.row });
    }
}
