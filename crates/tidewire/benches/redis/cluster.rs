//! A cluster of three primaries beside one server: the same load on channels of all slots, in turns.

use std::sync::Arc;

use bytes::Bytes;
use tidewire::engine::{Condition, Engine};
use tidewire::name::{ChannelPath, EntryPath};

use crate::append::plain;
use crate::load::{DATA_BYTES, Meter, ROUNDS, Taken, median_of, round};
use crate::server::Server;
use crate::{Deaf, open_engine};

const TASKS: [usize; 2] = [64, 1_024];

/// An engine and the servers that it uses.
struct Side {
    engine: Arc<Engine>,
    servers: Vec<Server>,
}

pub(crate) async fn measure(url: &str, server: Server) {
    let one = Side { engine: open_engine(url, Arc::new(Deaf)).await, servers: vec![server] };
    let (url, servers) = cluster();
    let cluster = Side { engine: open_engine(&url, Arc::new(Deaf)).await, servers };
    println!(
        "{DATA_BYTES} bytes of data, a channel for each task, median of {ROUNDS} rounds, thousands per second"
    );
    println!(
        "{:<12}{:>7}{:>12}{:>10}{:>7}{:>22}{:>22}",
        "", "tasks", "one server", "cluster", "ratio", "ours + one, us/op", "ours + cluster, us/op"
    );
    for tasks in TASKS {
        compare("publish", tasks, &one, &cluster, publish).await;
        compare("append", tasks, &one, &cluster, append).await;
        compare("put", tasks, &one, &cluster, put).await;
    }
}

/// The cluster that the environment names, replicas included.
pub(crate) fn cluster() -> (String, Vec<Server>) {
    let named = |name: &str| {
        let name = format!("TIDEWIRE_TEST_REDIS_CLUSTER_{name}");
        std::env::var(&name)
            .unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask bench redis`, which starts one"))
    };
    (named("URL"), named("ADMIN").split(',').map(Server::at).collect())
}

async fn compare<F, Fut>(what: &str, tasks: usize, one: &Side, cluster: &Side, operate: F)
where
    F: Fn(Arc<Engine>, String, Meter) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (side, taken) in [(one, &mut alone), (cluster, &mut together)] {
            let names = std::cell::Cell::new(0);
            let begin = |meter| {
                let name = names.replace(names.get() + 1);
                operate(side.engine.clone(), format!("spread:{name}"), meter)
            };
            taken.push(round(tasks, &side.servers, &begin).await);
        }
    }
    let split = |taken: &[Taken]| {
        format!("{:.2} + {:.2}", median_of(taken, Taken::our_micros), median_of(taken, Taken::server_micros))
    };
    let (rate, rate_together) = (median_of(&alone, Taken::rate), median_of(&together, Taken::rate));
    println!(
        "{what:<12}{tasks:>7}{:>12.1}{:>10.1}{:>7.2}{:>22}{:>22}",
        rate / 1e3,
        rate_together / 1e3,
        rate_together / rate,
        split(&alone),
        split(&together),
    );
}

async fn publish(engine: Arc<Engine>, name: String, meter: Meter) {
    let path = ChannelPath::new("dev", "bench", &name).expect("a valid name");
    while meter.goes_on() {
        let envelope = Bytes::from_static(&[b'x'; DATA_BYTES]);
        engine.pubsub.publish(&path, envelope).await.expect("published");
        meter.count();
    }
}

async fn append(engine: Arc<Engine>, name: String, meter: Meter) {
    let path = ChannelPath::new("dev", "bench", &name).expect("a valid name");
    while meter.goes_on() {
        let outcomes = engine.log.append(vec![plain(path.clone())]).await.expect("answered");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        meter.count();
    }
}

async fn put(engine: Arc<Engine>, name: String, meter: Meter) {
    let key = EntryPath::new("dev", "bench", &name).expect("a valid name");
    while meter.goes_on() {
        let value = Bytes::from_static(&[b'x'; DATA_BYTES]);
        assert!(engine.store.put(&key, value, None, Condition::Always).await.expect("answered"));
        meter.count();
    }
}
