//! The engine against a real server, which `cargo xtask test` starts, and what tests of its parts share.

mod faults;
mod groups;
pub(super) mod pipe;
mod scripts;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::Target;
use super::command::Encode;
use super::connection::{Connection, Repeat};
use super::link::{Dial as _, DialAddress};
use super::resp::Value;
use crate::clock::Clock;
use crate::engine::{Announce, Append, Dedup, Durability, Engine, Heard, Retention, Setup, Sink};
use crate::limits::Limits;
use crate::name::ChannelPath;
use crate::tasks::Tasks;

/// The server under test.
#[expect(clippy::disallowed_methods, reason = "the test command hands servers over by environment")]
fn server_url() -> String {
    std::env::var("TIDEWIRE_TEST_REDIS_URL")
        .expect("TIDEWIRE_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts the servers")
}

/// Remembers what it hears.
#[derive(Default)]
struct Ears(Mutex<Vec<Heard>>);

impl Sink for Ears {
    fn hear(&self, heard: Heard) {
        self.0.lock().push(heard);
    }
}

async fn open(url: &str) -> (Engine, Arc<Ears>) {
    let ears = Arc::new(Ears::default());
    let setup =
        Setup { sink: ears.clone(), clock: Clock::system(), limits: Limits::default(), tasks: Tasks::new() };
    (super::open_redis(url, &setup).await.expect("the engine opens"), ears)
}

/// A connection to look behind the engine's back.
async fn spy() -> Connection {
    let Ok(Target::One(address)) = Target::parse(&server_url()) else { panic!("the URL of one server") };
    let dial = Arc::new(DialAddress::new(address, "tidewire-test".to_owned(), Vec::new()));
    let link = dial.dial().await.expect("the server answers");
    Connection::open(link, dial, &Tasks::new())
}

async fn ask<C: Encode + ?Sized>(connection: &Connection, command: &C) -> Value {
    let deadline = Instant::now() + Duration::from_secs(5);
    connection.request(command, Repeat::Never, deadline).await.expect("a reply")
}

/// A channel of the tenant of one test in one run.
fn path(test: &str, channel: &str) -> ChannelPath {
    ChannelPath::new("dev", &format!("{test}-{}", std::process::id()), channel).expect("a valid name")
}

fn append(channel: &ChannelPath, envelope: impl Into<Bytes>) -> Append {
    Append {
        channel: channel.clone(),
        envelope: envelope.into(),
        announce: Announce::Here,
        dedup: None,
        retention: Retention::default(),
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    }
}

fn dedup(id: &str) -> Option<Dedup> {
    Some(Dedup { id: id.into(), window: Duration::from_secs(60) })
}
