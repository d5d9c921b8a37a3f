//! Keeps the listening link up: restores every interest on each new one, tells of it, hands on what is heard.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, MissedTickBehavior};

use super::interests::{Change, Hears, Mode, commands};
use super::{Confirm, Shared, Told};
use crate::engine::redis::announcement;
use crate::engine::redis::backoff::Backoff;
use crate::engine::redis::command::{Command, Encode as _};
use crate::engine::redis::keys;
use crate::engine::redis::link::{DEAD_TICKS, Dial, Link, Outgoing, PING_TICKS, TICK, describe};
use crate::engine::redis::refusal::{self, Explained};
use crate::engine::redis::resp::{Decoder, Value};
use crate::engine::{Heard, Interest};
use crate::name::{self, ChannelPath, PatternPath};

/// An event smaller than this is copied out of the read buffer, which it would keep alive as long as it waits.
const COPIED_BYTES_MAX: usize = 8 << 10;

/// Listens on one link after the other, for ever.
pub(super) async fn keep_listening(shared: Arc<Shared>, mut first: Option<Link>, dial: Arc<dyn Dial>) {
    let mut backoff = Backoff::new();
    let mut kept_waiting = Vec::new();
    let mut is_first = true;
    loop {
        let link = match first.take() {
            Some(link) => link,
            None => dial_until_open(&shared, &*dial, &mut backoff).await,
        };
        let opened = Instant::now();
        shared.openings.open();
        let mut session = Session::new(&shared, kept_waiting, is_first);
        let why = session.run(link).await;
        kept_waiting = session.into_waiting();
        shared.openings.close();
        is_first = false;
        tracing::warn!(%why, "pub/sub link to redis lost");
        shared.interests.lock().set_fault(Some(why.to_string().into()));
        if opened.elapsed() > Duration::from_secs(5) {
            backoff.reset();
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

async fn dial_until_open(shared: &Shared, dial: &dyn Dial, backoff: &mut Backoff) -> Link {
    loop {
        match dial.dial().await {
            Ok(link) => {
                tracing::info!("pub/sub link to redis open");
                return link;
            }
            Err(error) => shared.interests.lock().set_fault(Some(describe(&error).into())),
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

/// One link's life.
struct Session<'a> {
    shared: &'a Shared,
    decoder: Decoder,
    out: Outgoing,
    /// Batches that were sent and not confirmed yet, oldest first.
    sent: VecDeque<Batch>,
    last_number: u64,
    quiet_ticks: u32,
}

struct Batch {
    number: u64,
    changes: Vec<Change>,
    waiting: Vec<Confirm>,
    refusal: Option<String>,
    /// Restores what an earlier link heard: its confirmation is told to the layer above.
    is_restoring: bool,
}

impl<'a> Session<'a> {
    /// Asks for everything held. Who waited on the last link waits for that.
    fn new(shared: &'a Shared, waiting: Vec<Confirm>, is_first: bool) -> Self {
        let mut session = Self {
            shared,
            decoder: Decoder::default(),
            out: Outgoing::default(),
            sent: VecDeque::new(),
            last_number: 0,
            quiet_ticks: 0,
        };
        let mut interests = shared.interests.lock();
        interests.set_fault(None);
        let all = interests.all();
        drop(interests);
        session.send(all, waiting, !is_first);
        session
    }

    fn into_waiting(self) -> Vec<Confirm> {
        self.sent.into_iter().flat_map(|batch| batch.waiting).collect()
    }

    async fn run(&mut self, mut link: Link) -> io::Error {
        self.decoder = link.decoder;
        let mut values = Vec::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                read = link.reader.read_buf(self.decoder.buffer()) => match read {
                    Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the link"),
                    Ok(_) => self.quiet_ticks = 0,
                    Err(error) => return error,
                },
                written = self.out.write(&mut link.writer), if !self.out.is_empty() => {
                    if let Err(error) = written {
                        return error;
                    }
                }
                () = self.shared.changed.notified() => self.send_waiting(),
                _ = ticks.tick() => if let Err(error) = self.watch_silence() { return error },
            }
            let decoded = self.decoder.decode(&mut values);
            if let Err(error) = self.take(&mut values) {
                return error;
            }
            if let Err(error) = decoded {
                return io::Error::new(io::ErrorKind::InvalidData, error);
            }
        }
    }

    fn send_waiting(&mut self) {
        let waiting = self.shared.interests.lock().take_waiting();
        let (changes, confirms): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        self.send(changes.concat(), confirms.into_iter().flatten().collect(), false);
    }

    fn send(&mut self, changes: Vec<Change>, waiting: Vec<Confirm>, is_restoring: bool) {
        commands(&changes).iter().for_each(|command| command.encode(&mut self.out.bytes));
        self.last_number += 1;
        let number = self.last_number;
        Command::new("PING").int(i64::try_from(number).unwrap_or(i64::MAX)).encode(&mut self.out.bytes);
        self.sent.push_back(Batch { number, changes, waiting, refusal: None, is_restoring });
    }

    fn watch_silence(&mut self) -> Result<(), io::Error> {
        self.quiet_ticks += 1;
        if self.quiet_ticks >= DEAD_TICKS {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the server was silent for 2.8 s"));
        }
        if self.quiet_ticks == PING_TICKS && self.sent.is_empty() {
            self.send(Vec::new(), Vec::new(), false);
        }
        Ok(())
    }

    fn take(&mut self, values: &mut Vec<Value>) -> Result<(), io::Error> {
        for value in values.drain(..) {
            match value {
                Value::Push(mut items) => {
                    // Nothing to hand on is as well.
                    self.hear(&mut items).unwrap_or_default();
                    self.decoder.take_back(items);
                }
                // What asks for a number now gets none later: the next link asks again.
                Value::Error(text) if refusal::is_passing(&text) => {
                    return Err(io::Error::other(Explained(&text).to_string()));
                }
                Value::Error(text) => {
                    let batch = self.sent.front_mut().ok_or_else(|| unexpected("an error"))?;
                    batch.refusal = Some(String::from_utf8_lossy(&text).into_owned());
                }
                reply => self.confirm(&reply)?,
            }
        }
        Ok(())
    }

    fn confirm(&mut self, reply: &Value) -> Result<(), io::Error> {
        let batch = self.sent.pop_front().ok_or_else(|| unexpected("a reply"))?;
        if reply.as_int().and_then(|number| u64::try_from(number).ok()) != Some(batch.number) {
            return Err(unexpected("a reply to another request"));
        }
        let Batch { changes, waiting, refusal, is_restoring, .. } = batch;
        let mut interests = self.shared.interests.lock();
        let is_classic = interests.mode() == Mode::Classic;
        let unheard = match &refusal {
            Some(_) if is_classic => Vec::new(),
            _ => interests.confirm(&changes),
        };
        let restored = is_restoring.then(|| match &self.shared.told {
            Told::Sink(_) => Heard::Relinked,
            Told::Sharded(_) => Heard::Moved(interests.interests()),
        });
        drop(interests);
        // A slot that has moved meanwhile: its subscriptions are asked for where it is now.
        let refusal = refusal.or_else(|| (!unheard.is_empty()).then(|| "the slot has moved".to_owned()));
        if let (true, Told::Sharded(sharded)) = (is_restoring, &self.shared.told) {
            sharded.lose(unheard.iter());
        }
        if let Some(restored) = restored
            && (refusal.is_none() || !is_classic)
        {
            self.shared.told.hear(restored);
        }
        let outcome = refusal.map_or(Ok(()), Err);
        // Who waited may have gone away.
        waiting.into_iter().for_each(|waiting| drop(waiting.send(outcome.clone())));
        match outcome {
            // What was heard before is not heard any more: only another link can mend that.
            Err(refusal) if is_restoring && is_classic => Err(io::Error::other(refusal)),
            _ => Ok(()),
        }
    }

    /// Hands on what a push says, if it is something that somebody still wants.
    fn hear(&self, items: &mut Vec<Value>) -> Option<()> {
        let mut items = items.drain(..);
        let kind = items.next()?.into_bytes()?;
        let name = items.next()?.into_bytes()?;
        let is_glob = match &kind[..] {
            b"message" | b"smessage" => false,
            b"pmessage" => true,
            b"ssubscribe" => {
                self.shared.interests.lock().begin_hearing(&name);
                return None;
            }
            b"sunsubscribe" => {
                let is_lost = self.shared.interests.lock().end_hearing(&name);
                if let (true, Told::Sharded(sharded)) = (is_lost, &self.shared.told) {
                    sharded.lose(std::iter::once(&name));
                }
                return None;
            }
            _ => return None,
        };
        let hears = self.shared.interests.lock().hears(&name)?.clone();
        let channel = if is_glob { keys::channel_of(&items.next()?.into_bytes()?) } else { None };
        let mut payload = items.next()?.into_bytes()?;
        match hears {
            Hears::Channel(path) => self.tell(Interest::Channel(path.clone()), path, payload),
            Hears::Work(path) => self.shared.told.hear(Heard::Work(path)),
            Hears::Pattern(pattern) => self.tell(Interest::Pattern(pattern), channel?, payload),
            Hears::Patterns(patterns) => {
                let channel = keys::channel_of(&announcement::take_line(&mut payload)?)?;
                let is_match = |path: &&PatternPath| name::matches(path.pattern(), channel.channel());
                let matching: Vec<_> = patterns.lock().iter().filter(is_match).cloned().collect();
                for pattern in matching {
                    self.tell(Interest::Pattern(pattern), channel.clone(), payload.clone());
                }
            }
        }
        Some(())
    }

    fn tell(&self, interest: Interest, channel: ChannelPath, payload: Bytes) {
        let told = &self.shared.told;
        match announcement::read(&channel, payload) {
            Some(announcement::Heard::Live(envelope)) => {
                told.hear(Heard::Event { interest, channel, kept: None, envelope: own(envelope) });
            }
            Some(announcement::Heard::Kept(events)) if events.is_empty() => {
                told.hear(Heard::Moved(vec![interest]));
            }
            Some(announcement::Heard::Kept(events)) => {
                for (kept, envelope) in events {
                    let (interest, channel) = (interest.clone(), channel.clone());
                    told.hear(Heard::Event { interest, channel, kept: Some(kept), envelope: own(envelope) });
                }
            }
            None => tracing::warn!(%channel, "dropped what somebody else published on a channel of ours"),
        }
    }
}

/// A slice of the read buffer that may wait for long, on its own if it is small.
fn own(envelope: Bytes) -> Bytes {
    if envelope.len() < COPIED_BYTES_MAX { Bytes::copy_from_slice(&envelope) } else { envelope }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what} that nobody asked for"))
}
