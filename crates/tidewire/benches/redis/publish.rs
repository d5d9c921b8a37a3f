//! Live publish: the seam, and the library with all that it adds - id, time, attributes, limits, statistics, retry.

use std::sync::Arc;

use bytes::Bytes;
use tidewire::name::ChannelPath;
use tidewire::{Event, Tidewire};

use crate::load::{DATA_BYTES, DEPTHS, Meter, compare, print_head};
use crate::server::Server;
use crate::{Deaf, open_engine};

pub(crate) async fn measure(url: &str, server: &Server) {
    let engine = open_engine(url, Arc::new(Deaf)).await;
    let path = ChannelPath::new("dev", "bench", "live").expect("a valid name");
    let node = Tidewire::open(url).await.expect("the node opens");
    let channel = node.tenant("bench").and_then(|tenant| tenant.channel("live")).expect("valid names");
    let data = "x".repeat(DATA_BYTES);
    let limit = ["PUBLISH", "bench:limit", &data];
    print_head();
    for depth in DEPTHS {
        let publish = |meter: Meter| {
            let (engine, path) = (engine.clone(), path.clone());
            async move {
                while meter.goes_on() {
                    let envelope = Bytes::from_static(&[b'x'; DATA_BYTES]);
                    engine.pubsub.publish(&path, envelope).await.expect("published");
                    meter.count();
                }
            }
        };
        compare("publish, engine", depth, server, &limit, publish).await;
        let publish = |meter: Meter| {
            let channel = channel.clone();
            async move {
                while meter.goes_on() {
                    channel.publish(Event::new("bench", vec![b'x'; DATA_BYTES])).await.expect("sent");
                    meter.count();
                }
            }
        };
        compare("publish, library", depth, server, &limit, publish).await;
    }
}
