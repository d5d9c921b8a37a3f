//! Entries: get and put, beside `GET` and `SET`.

use std::sync::Arc;

use bytes::Bytes;
use tidewire::engine::Condition;
use tidewire::name::EntryPath;

use crate::load::{DATA_BYTES, DEPTHS, Meter, compare, print_head};
use crate::server::Server;
use crate::{Deaf, open_engine};

pub(crate) async fn measure(url: &str, server: &Server) {
    let engine = open_engine(url, Arc::new(Deaf)).await;
    let key = EntryPath::new("dev", "bench", "entry").expect("a valid name");
    let data = "x".repeat(DATA_BYTES);
    print_head();
    for depth in DEPTHS {
        let put = |meter: Meter| {
            let (engine, key) = (engine.clone(), key.clone());
            async move {
                while meter.goes_on() {
                    let value = Bytes::from_static(&[b'x'; DATA_BYTES]);
                    let is_set = engine.store.put(&key, value, None, Condition::Always).await;
                    assert!(is_set.expect("answered"));
                    meter.count();
                }
            }
        };
        compare("put, engine", depth, server, &["SET", "bench:limit:entry", &data], put).await;
        let get = |meter: Meter| {
            let (engine, key) = (engine.clone(), key.clone());
            async move {
                while meter.goes_on() {
                    let value = engine.store.get(&key).await.expect("answered");
                    assert_eq!(value.map(|value| value.len()), Some(DATA_BYTES));
                    meter.count();
                }
            }
        };
        compare("get, engine", depth, server, &["GET", "bench:limit:entry"], get).await;
    }
}
