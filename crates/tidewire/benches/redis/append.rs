//! Append: offset, entry and announcement in one step, beside a plain `XADD`.

use std::sync::Arc;

use bytes::Bytes;
use tidewire::engine::{Announce, Append};
use tidewire::name::ChannelPath;
use tidewire::{Durability, Event, Retention, Tidewire};

use crate::load::{DATA_BYTES, DEPTHS, Meter, compare, print_head};
use crate::server::Server;
use crate::{Deaf, open_engine};

/// What the streams of both sides keep.
const KEPT: Retention = Retention { events_max: Some(10_000), bytes_max: None, ..Retention::BOUNDED };

pub(crate) async fn measure(url: &str, server: &Server) {
    let engine = open_engine(url, Arc::new(Deaf)).await;
    let path = ChannelPath::new("dev", "bench", "kept").expect("a valid name");
    let node = Tidewire::open(url).await.expect("the node opens");
    let channel = node.tenant("bench").and_then(|tenant| tenant.channel("live")).expect("valid names");
    let data = "x".repeat(DATA_BYTES);
    let limit = ["XADD", "bench:limit", "MAXLEN", "~", "10000", "*", "e", &data];
    print_head();
    for depth in DEPTHS {
        let append = |meter: Meter| {
            let (engine, path) = (engine.clone(), path.clone());
            async move {
                while meter.goes_on() {
                    let outcomes = engine.log.append(vec![plain(path.clone())]).await.expect("answered");
                    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
                    meter.count();
                }
            }
        };
        compare("append, engine", depth, server, &limit, append).await;
        let append = |meter: Meter| {
            let channel = channel.clone();
            async move {
                while meter.goes_on() {
                    let event = Event::new("bench", vec![b'x'; DATA_BYTES]);
                    let _receipt = channel.append(event).retention(KEPT).await.expect("confirmed");
                    meter.count();
                }
            }
        };
        compare("append, library", depth, server, &limit, append).await;
    }
}

pub(crate) fn plain(channel: ChannelPath) -> Append {
    Append {
        channel,
        envelope: Bytes::from_static(&[b'x'; DATA_BYTES]),
        announce: Announce::Here,
        dedup: None,
        retention: KEPT,
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    }
}
