//! Subscribe, publish, recover, unsubscribe, come and go, over two nodes, in every order that a seed gives: none missing, none
//! twice, and after that nobody in the channel who is not there.
//!
//! Commands are futures that are polled one step at a time between the steps of others, so what happens between two steps of a
//! subscribe command happens in some schedule. On `memory:` both nodes share an engine and a thread: a seed gives the same
//! schedule again. `TIDEWIRE_SEED` runs one.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::poll;
use tidewire::{Clock, Event, Presence, Retention, Tidewire};
use tidewire_protocol::{
    ChannelRequest, Command, ConnectRequest, Encoding, Method, PushBody, Reply, ReplyBody, SubscribeRequest,
    SubscribeResult,
};
use tokio::task::yield_now;

use super::connection::{Connection, Origin, Vitals};
use crate::config::{ChannelRule, Config, RecoveryMode};
use crate::hub::outbox::{Disconnect, Next, Outbox};
use crate::node::Node;
use crate::publication::Form;

const FOLLOWERS: usize = 3;
const STEPS: usize = 60;
const OUTBOX_BYTES: usize = 4_000;

/// A command that runs, and its connection when it has.
type Running = Pin<Box<dyn Future<Output = (Box<Connection>, Result<(), Disconnect>)> + Send>>;

/// A subscriber that comes and goes.
#[derive(Default)]
struct Follower {
    encoding: Encoding,
    open: Option<Open>,
    seat: Seat,
    /// How often it was told that it missed something.
    lost: usize,
}

/// Where a subscriber is.
#[derive(Default)]
struct Seat {
    /// Epoch and offset, once it has been subscribed.
    position: Option<(String, u64)>,
    /// In a channel of which who comes is given the newest event.
    is_of_cache: bool,
}

struct Open {
    connection: Option<Box<Connection>>,
    running: Option<Running>,
    outbox: Arc<Outbox>,
    client: String,
    is_subscribed: bool,
    has_asked: bool,
    last_id: u32,
    /// What was confirmed when it asked.
    appended: u64,
}

/// One channel, and those who follow it.
struct Race {
    nodes: [Arc<Node>; 2],
    channel: String,
    random: fastrand::Rng,
    appended: u64,
    followers: Vec<Follower>,
    seed: u64,
}

async fn node(tidewire: Tidewire) -> Arc<Node> {
    let mut config = Config::dev();
    let rules = &mut config.tenants.get_mut("default").unwrap().channels;
    let cache = ChannelRule { pattern: "cache-*".into(), recovery: RecoveryMode::Cache, ..rules[0].clone() };
    rules.insert(0, cache);
    config.limits.outbox_bytes_max = OUTBOX_BYTES;
    Node::new(config, tidewire, Clock::system(), ([127, 0, 0, 1], 0).into()).unwrap()
}

impl Race {
    fn new(nodes: [Arc<Node>; 2], seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let encodings = [Encoding::Json, Encoding::Protobuf];
        let is_of_cache = seed % 4 == 3;
        let followers = (0..FOLLOWERS).map(|_| {
            let encoding = *random.choice(&encodings).unwrap_or(&Encoding::Json);
            Follower { encoding, seat: Seat { is_of_cache, ..Seat::default() }, ..Follower::default() }
        });
        let followers = followers.collect();
        let kind = if is_of_cache { "cache" } else { "race" };
        let channel = format!("{kind}-{}-{seed}", std::process::id());
        Self { nodes, channel, random, appended: 0, followers, seed }
    }

    async fn run(mut self) {
        for _ in 0..self.random.u64(0..4) {
            self.append().await;
        }
        for _ in 0..STEPS {
            match self.random.usize(0..4 + 2 * FOLLOWERS) {
                0 | 1 => self.append().await,
                2 => yield_now().await,
                3 => {
                    for _ in 0..self.random.usize(0..20) {
                        yield_now().await;
                    }
                }
                which => self.step(which % FOLLOWERS).await,
            }
        }
        self.settle().await;
    }

    async fn append(&mut self) {
        let node = &self.nodes[self.random.usize(0..2)];
        let tenant = node.tenants.named("default").unwrap();
        let keep = Retention { events_max: Some(10_000), ..Retention::default() };
        let event = Event::new("race", self.appended.to_string());
        let receipt =
            tenant.handle.channel(&self.channel).unwrap().append(event).retention(keep).await.unwrap();
        self.appended += 1;
        assert_eq!(receipt.position.unwrap().offset, self.appended, "seed {}", self.seed);
    }

    /// One follower goes on a little: with its command, or with something new.
    async fn step(&mut self, which: usize) {
        let Self { nodes, channel, random, followers, seed, appended } = self;
        let follower = &mut followers[which];
        let Some(open) = &mut follower.open else {
            follower.open = Some(Open::connect(&nodes[random.usize(0..2)], follower.encoding));
            return;
        };
        // Now and then it is gone, in the middle of whatever it does.
        if random.usize(0..25) == 0 {
            follower.open = None;
            return;
        }
        if open.progress().await.is_err() {
            follower.open = None;
            return;
        }
        follower.drain(*seed).await;
        let Some(open) = &mut follower.open else { return };
        if open.running.is_some() {
            return;
        }
        let request = ChannelRequest { channel: channel.as_str().into() };
        match (open.is_subscribed, random.usize(0..8)) {
            (false, _) if !open.has_asked => open.subscribe(channel, &follower.seat, *appended),
            (true, 0) => {
                open.is_subscribed = false;
                open.has_asked = false;
                open.ask(Method::Unsubscribe(request));
            }
            (true, 1) => open.ask(Method::Presence(request)),
            _ => {}
        }
    }

    /// Everybody comes back and has everything; then nobody is there who is not.
    async fn settle(mut self) {
        self.append().await;
        let last = self.appended;
        for round in 0.. {
            assert!(round < 1_000_000, "seed {}: does not settle", self.seed);
            let mut are_done = true;
            for which in 0..FOLLOWERS {
                let follower = &self.followers[which];
                let is_there =
                    follower.open.as_ref().is_some_and(|open| open.is_subscribed && open.running.is_none());
                let is_done =
                    is_there && follower.seat.position.as_ref().is_some_and(|(_, offset)| *offset == last);
                if !is_done {
                    are_done = false;
                    self.go_on(which).await;
                }
            }
            if are_done {
                break;
            }
            yield_now().await;
        }
        let lost: usize = self.followers.iter().map(|follower| follower.lost).sum();
        assert_eq!(lost, 0, "seed {}: nothing was removed, and a follower was told of a loss", self.seed);
        let presence =
            self.nodes[0].tenants.named("default").unwrap().handle.presence(&self.channel).unwrap();
        let mut clients: Vec<_> = self
            .followers
            .iter()
            .filter_map(|follower| Some(follower.open.as_ref()?.client.clone()))
            .collect();
        clients.sort_unstable();
        self.expect_present(&presence, &clients).await;
        for follower in &mut self.followers {
            follower.open = None;
        }
        self.expect_present(&presence, &[]).await;
    }

    /// As [`Race::step`], without leaving any more.
    async fn go_on(&mut self, which: usize) {
        let Self { nodes, channel, random, followers, seed, appended } = self;
        let follower = &mut followers[which];
        let Some(open) = &mut follower.open else {
            follower.open = Some(Open::connect(&nodes[random.usize(0..2)], follower.encoding));
            return;
        };
        if open.progress().await.is_err() {
            follower.open = None;
            return;
        }
        follower.drain(*seed).await;
        if let Some(open) = &mut follower.open
            && open.running.is_none()
            && !open.is_subscribed
            && !open.has_asked
        {
            open.subscribe(channel, &follower.seat, *appended);
        }
    }

    async fn expect_present(&self, presence: &Presence, expected: &[String]) {
        let mut there = Vec::new();
        for _ in 0..100_000 {
            let page = presence.list(None, 100).await.unwrap();
            there = page.members.iter().map(|member| member.id.to_string()).collect();
            there.sort_unstable();
            if there == expected {
                return;
            }
            yield_now().await;
        }
        panic!("seed {}: {there:?} are in the channel, and {expected:?} should be", self.seed);
    }
}

impl Open {
    fn connect(node: &Arc<Node>, encoding: Encoding) -> Self {
        let outbox = Arc::new(Outbox::new(OUTBOX_BYTES));
        let form = Form { encoding, ..Form::default() };
        let place = node.take_place().unwrap();
        let (vitals, origin) =
            (Arc::new(Vitals::over(crate::metrics::Transport::WebSocket)), Origin::default());
        let connection = Connection::new(node.clone(), outbox.clone(), vitals, place, origin, form);
        let mut open = Self {
            connection: Some(connection),
            running: None,
            outbox,
            client: String::new(),
            is_subscribed: false,
            has_asked: false,
            last_id: 0,
            appended: 0,
        };
        open.ask(Method::Connect(ConnectRequest::default()));
        open
    }

    fn subscribe(&mut self, channel: &str, follower: &Seat, appended: u64) {
        let request = SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() };
        let request = match &follower.position {
            Some((epoch, offset)) => {
                SubscribeRequest { recover: true, epoch: epoch.as_str().into(), offset: *offset, ..request }
            }
            None => SubscribeRequest { recover: follower.is_of_cache, ..request },
        };
        (self.has_asked, self.appended) = (true, appended);
        self.ask(Method::Subscribe(request));
    }

    /// Begins a command.
    fn ask(&mut self, method: Method<'_>) {
        let Some(mut connection) = self.connection.take() else { return };
        self.last_id += 1;
        let frame: Bytes = Command { id: self.last_id, method }.encode(connection.form.encoding);
        self.running = Some(Box::pin(async move {
            let outcome = connection.handle(&frame).await;
            (connection, outcome)
        }));
    }

    /// Goes on with the command, by one step.
    async fn progress(&mut self) -> Result<(), Disconnect> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if let std::task::Poll::Ready((connection, outcome)) = poll!(running.as_mut()) {
            self.running = None;
            self.connection = Some(connection);
            outcome?;
        }
        Ok(())
    }
}

impl Follower {
    /// Takes what waits, as a client does.
    async fn drain(&mut self, seed: u64) {
        let Some(open) = &self.open else { return };
        let outbox = open.outbox.clone();
        if outbox.is_empty() && !outbox.has_ended() {
            return;
        }
        let Next::Write(frames) = outbox.next().await else {
            // Slow, or shut down: it comes back.
            self.open = None;
            return;
        };
        for frame in &frames {
            for reply in self.encoding.decode_replies(frame.as_bytes()).unwrap() {
                self.take(reply, seed);
            }
        }
        outbox.written(frames.iter().map(|frame| frame.len()).sum());
    }

    fn take(&mut self, reply: Reply<'_>, seed: u64) {
        let Some(open) = &mut self.open else { return };
        match reply.body {
            ReplyBody::Connect(result) => open.client = result.client.into_owned(),
            ReplyBody::Subscribe(result) => {
                open.is_subscribed = true;
                if self.seat.position.is_some() && !result.recovered {
                    self.lost += 1;
                }
                if self.seat.is_of_cache {
                    let appended = open.appended;
                    return self.take_newest(&result, appended, seed);
                }
                self.seat.position = Some((result.epoch.into_owned(), result.offset));
                for publication in result.publications {
                    self.advance(publication.offset, seed);
                }
            }
            // It missed more than could be held for it, and asks again.
            ReplyBody::Error(_) => open.has_asked = false,
            ReplyBody::Push(push) => match push.body {
                PushBody::Publication(publication) => self.advance(publication.offset, seed),
                PushBody::Unsubscribe(_) => {
                    open.is_subscribed = false;
                    open.has_asked = false;
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Of a channel of which it wants the newest event: all that was confirmed before it asked is behind that.
    fn take_newest(&mut self, result: &SubscribeResult<'_>, appended: u64, seed: u64) {
        let before = self.seat.position.as_ref().map_or(0, |(_, offset)| *offset);
        let offsets: Vec<_> = result.publications.iter().map(|publication| publication.offset).collect();
        let has_all = before == result.offset;
        let expected = if has_all { vec![] } else { vec![result.offset] };
        assert_eq!(offsets, expected, "seed {seed}: not the newest event");
        assert!(result.offset >= appended.max(before), "seed {seed}: an older event");
        assert_eq!(result.recovered, result.offset > 0, "seed {seed}");
        self.seat.position = Some((result.epoch.to_string(), result.offset));
    }

    fn advance(&mut self, offset: u64, seed: u64) {
        // What was on its way when it unsubscribed counts too: it was before its next position.
        let Some((_, last)) = &mut self.seat.position else {
            panic!("seed {seed}: an event before any subscription")
        };
        assert_eq!(offset, *last + 1, "seed {seed}: a hole or a repetition");
        *last = offset;
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test, as the fault runner has it")]
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.map_or(0..count, |seed| seed..seed + 1)
}

#[tokio::test]
async fn ten_thousand_schedules_over_two_nodes_have_no_hole_no_repetition_and_no_ghost() {
    let tidewire = Tidewire::open("memory:").await.unwrap();
    let nodes = [node(tidewire.clone()).await, node(tidewire).await];
    for seed in seeds(10_000) {
        Race::new(nodes.clone(), seed).run().await;
    }
}

#[tokio::test]
async fn schedules_over_two_nodes_on_redis_have_no_hole_no_repetition_and_no_ghost() {
    #[expect(clippy::disallowed_methods, reason = "where the tests' server is")]
    let url = std::env::var("TIDEWIRE_TEST_REDIS_URL").expect("run `cargo xtask test`, which starts Redis");
    let [one, other] = [Tidewire::open(&url).await.unwrap(), Tidewire::open(&url).await.unwrap()];
    let nodes = [node(one).await, node(other).await];
    for seed in seeds(200) {
        Race::new(nodes.clone(), seed).run().await;
    }
}
