//! The link to one sentinel: hears of a switch, asks now and then and when it is told to, notices when it is dead.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, MissedTickBehavior};

use super::Shared;
use super::views::Says;
use crate::engine::redis::address::Endpoint;
use crate::engine::redis::backoff::Backoff;
use crate::engine::redis::command::{Command, Encode as _};
use crate::engine::redis::link::{DEAD_TICKS, Dial as _, DialAddress, Link, Outgoing, TICK, describe};
use crate::engine::redis::refusal::Explained;
use crate::engine::redis::resp::{Decoder, Value};

/// The channels on which a sentinel says that it names another primary. Who leads the failover does so when the replica is
/// promoted, and tells of a switch only when the other replicas follow it: until then the old primary confirms what is lost.
const SWITCHES: [&str; 2] = ["+switch-master", "+promoted-slave"];
/// How often a sentinel is asked when nothing happens, so that a switch that was not heard of costs seconds: 3 s.
const ASK_TICKS: u32 = 30;

/// Watches on one link after the other, for ever.
pub(super) async fn keep_watching(shared: Arc<Shared>, number: usize, dial: DialAddress) {
    let mut backoff = Backoff::new();
    let sentinel = dial.endpoint().to_string();
    loop {
        let (why, is_permanent) = match dial.dial().await {
            Ok(link) => {
                let opened = Instant::now();
                let why = Session::new(&shared, number).run(link).await.to_string();
                tracing::warn!(sentinel, %why, "link to a sentinel lost");
                if opened.elapsed() > Duration::from_secs(5) {
                    backoff.reset();
                }
                (why, false)
            }
            Err(error) => (describe(&error), error.is_permanent()),
        };
        shared.hear(number, Says::Silent { why: why.into(), is_permanent }, 0);
        tokio::time::sleep(backoff.wait()).await;
    }
}

/// One link's life.
struct Session<'a> {
    shared: &'a Shared,
    /// Which sentinel it is.
    number: usize,
    out: Outgoing,
    /// What replies are due, oldest first.
    due: VecDeque<Due>,
    /// Ticks since the last question.
    asked_ticks: u32,
    /// Ticks since anything came, or was due after nothing was.
    quiet_ticks: u32,
}

/// A reply that is due.
enum Due {
    /// Subscribing has no reply of its own: what comes before this one belongs to it.
    Subscribed,
    /// Where the primary is.
    Address { question: u64 },
    /// What else is known of it.
    Facts { endpoint: Option<Endpoint>, question: u64 },
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, number: usize) -> Self {
        Self {
            shared,
            number,
            out: Outgoing::default(),
            due: VecDeque::new(),
            asked_ticks: 0,
            quiet_ticks: 0,
        }
    }

    async fn run(&mut self, mut link: Link) -> io::Error {
        let (mut decoder, mut values) = (link.decoder, Vec::new());
        let mut questions = self.shared.question.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let subscribe =
            SWITCHES.iter().fold(Command::new("SUBSCRIBE"), |command, channel| command.arg(channel));
        subscribe.encode(&mut self.out.bytes);
        Command::new("PING").encode(&mut self.out.bytes);
        self.due.push_back(Due::Subscribed);
        // After it subscribed: no switch falls in between.
        self.ask(*questions.borrow_and_update());
        loop {
            tokio::select! {
                read = link.reader.read_buf(decoder.buffer()) => match read {
                    Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "the sentinel closed the link"),
                    Ok(_) => self.quiet_ticks = 0,
                    Err(error) => return error,
                },
                written = self.out.write(&mut link.writer), if !self.out.is_empty() => {
                    if let Err(error) = written {
                        return error;
                    }
                }
                Ok(()) = questions.changed() => self.ask(*questions.borrow_and_update()),
                _ = ticks.tick() => if let Err(error) = self.tick() { return error },
            }
            if let Err(error) = self.decode(&mut decoder, &mut values) {
                return error;
            }
        }
    }

    fn ask(&mut self, question: u64) {
        let name = &self.shared.group.name;
        Command::new("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).encode(&mut self.out.bytes);
        Command::new("SENTINEL").arg("MASTER").arg(name).encode(&mut self.out.bytes);
        if self.due.is_empty() {
            self.quiet_ticks = 0;
        }
        self.due.extend([Due::Address { question }, Due::Facts { endpoint: None, question }]);
        self.asked_ticks = 0;
    }

    fn tick(&mut self) -> Result<(), io::Error> {
        self.quiet_ticks += 1;
        self.asked_ticks += 1;
        if self.quiet_ticks >= DEAD_TICKS && !self.due.is_empty() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the sentinel was silent for 2.8 s"));
        }
        if self.asked_ticks >= ASK_TICKS && self.due.is_empty() {
            self.ask(*self.shared.question.borrow());
        }
        Ok(())
    }

    fn decode(&mut self, decoder: &mut Decoder, values: &mut Vec<Value>) -> Result<(), io::Error> {
        let decoded = decoder.decode(values);
        for value in values.drain(..) {
            match value {
                Value::Push(items) => self.hear(&items),
                reply => self.take(reply)?,
            }
        }
        decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Whatever it says on the channel, it is asked: one way to learn where the primary is.
    fn hear(&mut self, push: &[Value]) {
        if push.first().and_then(Value::as_bytes) == Some(b"message") {
            self.ask(*self.shared.question.borrow());
        }
    }

    fn take(&mut self, reply: Value) -> Result<(), io::Error> {
        let unexpected =
            || io::Error::new(io::ErrorKind::InvalidData, "the sentinel sent a reply that nobody asked for");
        match (self.due.front_mut().ok_or_else(unexpected)?, reply) {
            (Due::Subscribed, Value::Error(text)) => {
                // It is asked all the same, every few seconds.
                let (name, text) = (&self.shared.group.name, Explained(&text));
                tracing::warn!(name, %text, "a sentinel does not let us hear of a switch");
                return Ok(());
            }
            (Due::Address { .. }, Value::Error(text)) => {
                return Err(io::Error::other(format!("it refused: {}", Explained(&text))));
            }
            (Due::Address { question }, reply) => {
                let (question, endpoint) = (*question, read_address(reply));
                self.due.pop_front();
                match self.due.front_mut() {
                    Some(Due::Facts { endpoint: known, .. }) if endpoint.is_some() => *known = endpoint,
                    _ => self.shared.hear(self.number, Says::Unknown, question),
                }
                return Ok(());
            }
            (Due::Facts { endpoint, question }, reply) => {
                // A sentinel that may not say, by its ACL, or does not know the name, answers with an error.
                if let Some(endpoint) = endpoint.take() {
                    let says = Says::Primary { endpoint, epoch: read_epoch(&reply).unwrap_or(0) };
                    self.shared.hear(self.number, says, *question);
                }
            }
            (Due::Subscribed, _) => {}
        }
        self.due.pop_front();
        Ok(())
    }
}

fn read_address(reply: Value) -> Option<Endpoint> {
    let [host, port] = <[Value; 2]>::try_from(reply.into_array()?).ok()?;
    let host = String::from_utf8(host.as_bytes()?.to_vec()).ok()?;
    let port = u16::try_from(port.as_int()?).ok().filter(|port| *port > 0)?;
    Some(Endpoint::Tcp { host, port })
}

fn read_epoch(reply: &Value) -> Option<u64> {
    let Value::Map(facts) = reply else { return None };
    let (_, epoch) = facts.iter().find(|(name, _)| name.as_bytes() == Some(b"config-epoch"))?;
    u64::try_from(epoch.as_int()?).ok()
}
