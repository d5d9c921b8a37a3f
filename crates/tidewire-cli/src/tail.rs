//! `tidewire tail`: follows a channel over the wire, over lost connections too; or what goes on at a user's connections.

mod progress;
mod user;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use tidewire_protocol::codes::{ErrorCode, UnsubscribeCode};
use tidewire_protocol::{
    ClientInfo, HistoryRequest, HistoryResult, Method, Opaque, Publication, PushBody, ReplyBody,
    StreamPosition, SubscribeRequest, SubscribeResult,
};

use self::progress::{Admission, Notice, Progress, Start};
use self::user::UserTail;
use crate::client::ApiArguments;
use crate::failed::Failed;
use crate::print::{self, one_line};
use crate::server_url::ServerPlace;
use crate::wire::{Ended, Wire};

/// Events asked for at once where they do not come by themselves.
const PAGE_EVENTS: i32 = 256;
/// The wait before the second attempt to connect; it doubles up to the longest, each with a random part taken off so
/// that many clients do not come back at once.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tidewire tail orders --from-start --count 10
  tidewire tail --user ann             # commands, replies, pushes, opened, closed, on all nodes
  tidewire tail --user ann --data --json")]
pub(crate) struct Tail {
    /// The channel
    #[arg(required_unless_present = "user")]
    channel: Option<String>,
    /// Follow what goes on at the connections of this user instead; it needs an API key
    #[arg(long, value_name = "ID", conflicts_with_all = ["channel", "since", "from_start"])]
    user: Option<String>,
    /// Show the data of what the user sends and gets too, not only its size
    #[arg(long, requires = "user", conflicts_with = "channel")]
    data: bool,
    /// Begin with what is kept after this offset, or after this EPOCH:OFFSET, which also tells if history was lost
    #[arg(long, value_name = "POSITION", conflicts_with = "from_start")]
    since: Option<Since>,
    /// Begin with the oldest event that is kept
    #[arg(long)]
    from_start: bool,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
    /// Connection token; without it the connection is anonymous
    #[arg(long, env = "TIDEWIRE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    api: ApiArguments,
}

/// `OFFSET` or `EPOCH:OFFSET`.
#[derive(Clone, Debug, PartialEq)]
struct Since(StreamPosition<'static>);

/// An event for programs.
#[derive(Serialize)]
struct Line<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
    data: &'a Opaque<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a ClientInfo<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: &'a BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Tail {
    pub(crate) fn run(mut self) -> Result<(), Failed> {
        match (self.user.take(), self.channel.take()) {
            (Some(user), _) => Ok(until_interrupted(UserTail::new(self, &user)?.follow())?),
            // One of both is there: the parser sees to it.
            (None, channel) => {
                let channel = channel.unwrap_or_default();
                let server = self.api.server.clone().place()?;
                Ok(until_interrupted(Follower::new(&self, &server, &channel).follow())?)
            }
        }
    }

    fn start(&self) -> Start {
        match &self.since {
            Some(Since(position)) => Start::After(position.clone()),
            None if self.from_start => Start::Oldest,
            None => Start::Now,
        }
    }
}

/// Runs it until it is done, or somebody presses Ctrl-C.
fn until_interrupted(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        tokio::select! {
            outcome = work => outcome,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
        }
    })
}

/// A tail at work.
struct Follower<'t> {
    tail: &'t Tail,
    server: &'t ServerPlace,
    channel: &'t str,
    progress: Progress,
    /// Events still to print; `None` for no end.
    left: Option<u64>,
    /// It worked once, so it is worth trying again.
    was_subscribed: bool,
    attempt_count: u32,
}

impl<'t> Follower<'t> {
    fn new(tail: &'t Tail, server: &'t ServerPlace, channel: &'t str) -> Self {
        let progress = Progress::new(tail.start());
        Self { tail, server, channel, progress, left: tail.count, was_subscribed: false, attempt_count: 0 }
    }

    /// Prints events until there are enough of them.
    async fn follow(mut self) -> Result<()> {
        while !self.is_done() {
            match self.connection().await {
                Ok(()) => {}
                Err(Ended::Final(error)) => return Err(error),
                Err(Ended::Lost(reason)) if !self.was_subscribed => return Err(anyhow!(reason)),
                Err(Ended::Lost(reason)) => {
                    if self.attempt_count == 0 {
                        print::note(format_args!("connection lost: {reason}; connecting again"));
                    }
                    tokio::time::sleep(wait_before(self.attempt_count)).await;
                    self.attempt_count += 1;
                }
            }
        }
        Ok(())
    }

    /// Follows over one connection, until there are enough events.
    async fn connection(&mut self) -> Result<(), Ended> {
        let mut wire = Wire::open(self.server, self.tail.token.as_deref()).await?;
        self.subscribe(&mut wire).await?;
        let mut is_reading = false;
        while !self.is_done() {
            let frame = wire.next().await?;
            for reply in frame.replies()? {
                match reply.body {
                    ReplyBody::ServerPing => wire.pong().await?,
                    ReplyBody::Subscribe(result) => self.subscribed(&result)?,
                    ReplyBody::History(page) => {
                        is_reading = false;
                        self.page(&page)?;
                    }
                    ReplyBody::Push(push) => self.pushed(&push.body)?,
                    ReplyBody::Error(error) if error.code == ErrorCode::UNRECOVERABLE_POSITION.number => {
                        // Between subscribing and reading. Subscribing again tells what was lost.
                        return Err(Ended::Lost(error.message.into_owned()));
                    }
                    ReplyBody::Error(error) => return Err(Ended::by_error(self.channel, &error)),
                    _ => {}
                }
            }
            if let Some(since) = self.progress.wanted().filter(|_| !is_reading) {
                let channel = self.channel.into();
                let request =
                    HistoryRequest { channel, limit: PAGE_EVENTS, since: Some(since), reverse: false };
                wire.send(Method::History(request)).await?;
                is_reading = true;
            }
        }
        wire.close().await;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    async fn subscribe(&self, wire: &mut Wire) -> Result<(), Ended> {
        let request = SubscribeRequest {
            channel: self.channel.into(),
            positioned: true,
            recoverable: true,
            ..SubscribeRequest::default()
        };
        let request = match self.progress.position() {
            Some(StreamPosition { offset, epoch }) => {
                SubscribeRequest { recover: true, offset: *offset, epoch: epoch.clone(), ..request }
            }
            None => request,
        };
        wire.send(Method::Subscribe(request)).await?;
        Ok(())
    }

    fn subscribed(&mut self, result: &SubscribeResult<'_>) -> Result<()> {
        let notice = self.progress.subscribed(result);
        if self.was_subscribed {
            print::note(match self.progress.position() {
                Some(StreamPosition { offset, .. }) => {
                    format!("connected again, going on after offset {offset}")
                }
                None => {
                    "connected again; what was published meanwhile is gone, for the channel keeps nothing"
                        .into()
                }
            });
        }
        tell(notice);
        self.was_subscribed = true;
        self.attempt_count = 0;
        result.publications.iter().try_for_each(|publication| self.arrived(publication))
    }

    fn pushed(&mut self, push: &PushBody<'_>) -> Result<(), Ended> {
        match push {
            PushBody::Publication(publication) => Ok(self.arrived(publication)?),
            PushBody::Unsubscribe(end) if end.code >= UnsubscribeCode::INSUFFICIENT_STATE.number => {
                Err(Ended::Lost(format!("server ended the subscription: {}", end.reason)))
            }
            PushBody::Unsubscribe(end) => Err(Ended::Final(anyhow!(
                "server ended the subscription for good: {} (code {})",
                end.reason,
                end.code
            ))),
            _ => Ok(()),
        }
    }

    fn arrived(&mut self, publication: &Publication<'_>) -> Result<()> {
        match self.progress.admit(publication.offset) {
            Admission::Print => self.print(publication),
            Admission::Drop => Ok(()),
        }
    }

    fn page(&mut self, page: &HistoryResult<'_>) -> Result<()> {
        if page.publications.is_empty() {
            tell(self.progress.read_nothing());
        }
        for publication in &page.publications {
            if self.is_done() {
                break;
            }
            let (notice, admission) = self.progress.admit_read(publication.offset);
            tell(notice);
            if admission == Admission::Print {
                self.print(publication)?;
            }
        }
        Ok(())
    }

    fn print(&mut self, publication: &Publication<'_>) -> Result<()> {
        if self.is_done() {
            // The rest of a frame after the last event that was wanted.
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        let Publication { data, info, offset, tags, .. } = publication;
        let offset = Some(*offset).filter(|offset| *offset > 0);
        if self.tail.json {
            let position = self.progress.position().filter(|_| offset.is_some());
            let epoch = position.map(|position| &*position.epoch);
            let (channel, info) = (self.channel, info.as_ref());
            return print::json(&Line { channel, offset, epoch, data, info, tags });
        }
        let data = String::from_utf8_lossy(data.as_bytes());
        let data = one_line(&data);
        match offset {
            Some(offset) => print::line(format_args!("{offset:>8}  {data}")),
            None => print::line(format_args!("{:>8}  {data}", "live")),
        }
    }
}

fn tell(notice: Option<Notice>) {
    if let Some(notice) = notice {
        print::note(notice);
    }
}

/// The wait before a repeated attempt: full jitter in the upper half of an exponentially growing time.
fn wait_before(attempt: u32) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST_WAIT);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (epoch, offset) = text.rsplit_once(':').unwrap_or(("", text));
        let offset = offset.parse().map_err(|_| "neither OFFSET nor EPOCH:OFFSET, such as 41".to_owned())?;
        Ok(Self(StreamPosition { offset, epoch: epoch.to_owned().into() }))
    }
}
