//! Nodes with runtimes of their own, so that one can be killed in the middle of anything, or stand still; clients that come and
//! go; and the stream that says what was told.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tidewire::{Clock, Received, Standing, Tidewire, Timestamp, testing};
use tidewire_protocol::{
    ChannelRequest, Command, ConnectRequest, Encoding, Method, ReplyBody, SubscribeRequest,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use crate::config::Config;
use crate::gateway::{Connection, Origin, Vitals};
use crate::hub::outbox::{Disconnect, Next, Outbox};
use crate::lifecycle;
use crate::node::Node;
use crate::publication::Form;

/// The channel that is told, and the rules of those that it is told of.
pub(super) const SETTINGS: &str = r#"
    [tenants.default.lifecycle]
    channel = "told"
    connections = true
    [[tenants.default.channels]]
    pattern = "told"
    keep = { events = 1_000_000, age = "24h", at_bound = "drop-oldest" }
    [[tenants.default.channels]]
    pattern = "room:*"
    subscribe = "anyone"
    tell = ["subscriptions", "occupancy"]
"#;

pub(super) fn settings() -> Config {
    Config::from_toml("test.toml", SETTINGS).unwrap().into_dev()
}

/// One on which a step is one poll of one task, so that a node can be killed between any two.
pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().event_interval(1).build().unwrap()
}

/// Where the nodes of a world keep what they share.
pub(super) enum Ground {
    /// An engine of this process, whose time is moved.
    Memory { first: Tidewire, clock: Clock, _runtime: Runtime },
    /// A server, under a name of the world's own.
    Server { url: String, environment: String },
}

impl Ground {
    pub(super) fn memory() -> Self {
        let clock = Clock::virtual_at(Timestamp::from_millis(1_700_000_000_000));
        let runtime = runtime();
        let opening = Tidewire::builder("memory:").clock(clock.clone()).open();
        let first = runtime.block_on(opening).unwrap();
        Self::Memory { first, clock, _runtime: runtime }
    }

    /// A new node, opened on its own runtime.
    pub(super) fn site(&self) -> Site {
        self.site_with(settings())
    }

    pub(super) fn site_with(&self, config: Config) -> Site {
        let runtime = runtime();
        let entered = runtime.enter();
        let (tidewire, clock) = match self {
            Self::Memory { first, clock, .. } => (testing::beside(first, clock.clone()), clock.clone()),
            Self::Server { url, environment } => {
                let opening = Tidewire::builder(url).environment(environment).open();
                (runtime.block_on(opening).unwrap(), Clock::system())
            }
        };
        let node = Node::new(config, tidewire, clock, ([127, 0, 0, 1], 0).into()).unwrap();
        drop(entered);
        Site { runtime, node, clients: Vec::new(), is_reaping: Arc::default(), was_renewed: Arc::default() }
    }

    /// Lets a time pass that is long enough for what nodes do by the clock.
    pub(super) fn pass(&self, time: Duration, sites: &[Site]) {
        match self {
            Self::Memory { clock, .. } => clock.advance(time),
            Self::Server { .. } => {}
        }
        for site in sites {
            self.run(site, 40);
        }
    }

    /// Rounds of half a second without anything told after which nothing more is to come.
    pub(super) fn quiet_rounds(&self) -> usize {
        match self {
            Self::Memory { .. } => 16,
            Self::Server { .. } => 24,
        }
    }

    /// Runs a node's tasks for some steps.
    pub(super) fn run(&self, site: &Site, steps: usize) {
        let pause = match self {
            Self::Memory { .. } => None,
            Self::Server { .. } => Some(Duration::from_micros(100)),
        };
        site.runtime.block_on(async {
            for _ in 0..steps {
                match pause {
                    None => yield_now().await,
                    // A server has to answer: there is nothing to wait on for that, while a node is stepped.
                    Some(pause) => drop(tokio::time::timeout(pause, std::future::pending::<()>()).await),
                }
            }
        });
    }
}

/// A node.
pub(super) struct Site {
    pub(super) runtime: Runtime,
    pub(super) node: Arc<Node>,
    pub(super) clients: Vec<Client>,
    is_reaping: Arc<AtomicBool>,
    /// It was taken for dead, and told anew what is there.
    pub(super) was_renewed: Arc<AtomicBool>,
}

type Running = Pin<Box<dyn Future<Output = (Box<Connection>, Result<(), Disconnect>)> + Send>>;

/// A client; dropping it disconnects it, on the runtime that is entered.
pub(super) struct Client {
    connection: Option<Box<Connection>>,
    running: Option<Running>,
    outbox: Arc<Outbox>,
    last_id: u32,
    /// Its id, once it is connected.
    pub(super) id: String,
    /// What it is subscribed to, and how often it was.
    pub(super) rooms: BTreeMap<String, bool>,
    /// What the command that runs is about.
    asked: Option<(String, bool)>,
    pub(super) is_over: bool,
    /// Why a command of it was refused.
    pub(super) refused: Option<u32>,
}

impl Site {
    /// Looks for dead nodes, in a task of its own.
    pub(super) fn reap(&self) {
        if self.is_reaping.swap(true, Ordering::AcqRel) {
            return;
        }
        let (node, is_reaping, renewed) =
            (self.node.clone(), self.is_reaping.clone(), self.was_renewed.clone());
        self.runtime.spawn(async move {
            let reaped =
                node.tidewire.reap_members(|departing| lifecycle::see_off(node.clone(), departing)).await;
            if let Ok(reaped) = reaped {
                renewed.fetch_or(reaped.standing == Standing::TakenForDead, Ordering::AcqRel);
                lifecycle::come_back(&node, reaped.standing);
            }
            is_reaping.store(false, Ordering::Release);
        });
    }

    pub(super) fn connect(&mut self) {
        let _entered = self.runtime.enter();
        let outbox = Arc::new(Outbox::new(100_000));
        let place = self.node.take_place().unwrap();
        let (vitals, form) = (Arc::new(Vitals::over(crate::metrics::Transport::WebSocket)), Form::default());
        let connection =
            Connection::new(self.node.clone(), outbox.clone(), vitals, place, Origin::default(), form);
        let mut client = Client {
            connection: Some(connection),
            running: None,
            outbox,
            last_id: 0,
            id: String::new(),
            rooms: BTreeMap::new(),
            asked: None,
            is_over: false,
            refused: None,
        };
        client.ask(Method::Connect(ConnectRequest::default()));
        self.clients.push(client);
    }

    /// Every client goes on a little.
    pub(super) fn progress(&mut self, acked: &mut BTreeMap<(String, String), usize>) {
        let _entered = self.runtime.enter();
        for client in &mut self.clients {
            client.progress(acked);
        }
        self.clients.retain(|client| !client.is_over);
    }

    pub(super) fn disconnect(&mut self, which: usize) {
        let _entered = self.runtime.enter();
        drop(self.clients.swap_remove(which));
    }

    pub(super) fn disconnect_all(&mut self) {
        let _entered = self.runtime.enter();
        self.clients.clear();
    }

    /// As `kill -9`: nothing of it runs any more, not even what would be told of its end.
    pub(super) fn kill(mut self) {
        std::mem::take(&mut self.clients).into_iter().for_each(std::mem::forget);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.disconnect_all();
    }
}

impl Client {
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && !self.id.is_empty()
    }

    /// The client, and each room that it is in.
    pub(super) fn there(&self) -> impl Iterator<Item = (String, String)> {
        let rooms = self.rooms.iter().filter(|(_, is_in)| **is_in).map(|(room, _)| room.clone());
        rooms.chain([String::new()]).map(|room| (self.id.clone(), room))
    }

    pub(super) fn subscribe(&mut self, channel: &str) {
        self.asked = Some((channel.into(), true));
        self.ask(Method::Subscribe(SubscribeRequest { channel: channel.into(), ..Default::default() }));
    }

    pub(super) fn unsubscribe(&mut self, channel: &str) {
        self.asked = Some((channel.into(), false));
        self.ask(Method::Unsubscribe(ChannelRequest { channel: channel.into() }));
    }

    fn ask(&mut self, method: Method<'_>) {
        let Some(mut connection) = self.connection.take() else { return };
        self.last_id += 1;
        let frame = Command { id: self.last_id, method }.encode(Encoding::Json);
        self.running = Some(Box::pin(async move {
            let outcome = connection.handle(&frame).await;
            (connection, outcome)
        }));
    }

    fn progress(&mut self, acked: &mut BTreeMap<(String, String), usize>) {
        if let Some(running) = &mut self.running
            && let Poll::Ready((connection, outcome)) =
                running.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            self.running = None;
            self.connection = Some(connection);
            self.is_over |= outcome.is_err();
        }
        if self.outbox.is_empty() {
            return;
        }
        let Some(Next::Write(frames)) = self.outbox.next().now_or_never() else { return };
        for frame in &frames {
            for reply in Encoding::Json.decode_replies(frame.as_bytes()).unwrap() {
                match reply.body {
                    ReplyBody::Connect(result) => self.id = result.client.into_owned(),
                    ReplyBody::Subscribe(_) | ReplyBody::Unsubscribe(_) => {
                        let Some((channel, is_in)) = self.asked.take() else { continue };
                        if is_in {
                            *acked.entry((self.id.clone(), channel.clone())).or_default() += 1;
                        }
                        self.rooms.insert(channel, is_in);
                    }
                    ReplyBody::Error(error) => self.refused = Some(error.code),
                    _ => {}
                }
            }
        }
        self.outbox.written(frames.iter().map(|frame| frame.len()).sum());
    }
}

/// All that was told, read on a node.
pub(super) fn told(site: &Site) -> Vec<Received> {
    let tenant = site.node.tenants.named("default").unwrap();
    let channel = tenant.handle.channel("told").unwrap();
    let told = Mutex::new(Vec::new());
    site.runtime.block_on(async {
        let mut after = None;
        loop {
            let reading = channel.read();
            let page = match after {
                Some(position) => reading.after(position).await.unwrap(),
                None => reading.await.unwrap(),
            };
            let Some(last) = page.events.last() else { return };
            after = last.position;
            told.lock().extend(page.events);
        }
    });
    told.into_inner()
}
