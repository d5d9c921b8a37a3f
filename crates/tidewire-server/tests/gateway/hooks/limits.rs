//! A backend that is slow or away holds up nobody but who asks it, and not for long.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidewire::clock::Stopwatch;
use tidewire_server::config::{HookEndpoint, RpcRule};
use tidewire_server::{Config, Server};
use tokio::sync::Semaphore;

use crate::backend::{App, Say, asking, tenant};
use crate::client::{Client, dev, get, start};

/// `--dev`, where every call goes to this endpoint.
fn settings(endpoint: HookEndpoint) -> Config {
    let mut config = asking(dev(), endpoint);
    tenant(&mut config).hooks.rpc = vec![RpcRule { method: "*".into(), endpoint: "app".into() }];
    config
}

const CALL: &str = r#"{"id":7,"rpc":{"method":"x"}}"#;

#[tokio::test]
async fn a_backend_that_says_nothing_is_given_up_on_in_time() {
    let backend = App::start().await;
    backend.say("rpc", Say::Nothing);
    let server =
        start(settings(HookEndpoint { timeout: Duration::from_millis(50), ..backend.endpoint() })).await;
    let mut client = Client::anonymous(&server).await;
    let error = client.call("rpc", json!({"method": "x"})).await.unwrap_err();
    assert_eq!((&error["code"], &error["temporary"]), (&json!(100), &json!(true)));
    let page = get(&server, "/metrics").await.body;
    let line =
        r#"tidewire_hook_asks_total{tenant="default",endpoint="app",hook="rpc",outcome="timed_out"} 1"#;
    assert!(page.contains(line), "{page}");
    assert!(
        page.contains(r#"tidewire_hook_seconds_count{tenant="default",endpoint="app",hook="rpc"} 1"#),
        "{page}"
    );
    assert!(page.contains(r#"tidewire_hook_breaker{tenant="default",endpoint="app"} 0"#), "{page}");
}

#[tokio::test]
async fn the_time_to_connect_holds_while_a_backend_is_asked() {
    let backend = App::start().await;
    backend.say("connect", Say::Nothing);
    let mut config = settings(backend.endpoint());
    tenant(&mut config).hooks.connect = Some("app".into());
    config.timing.connect_within = Duration::from_millis(100);
    let server = start(config).await;
    let mut client = Client::open(&server).await;
    client.send(r#"{"id":1,"connect":{}}"#).await;
    assert_eq!(client.closed().await, (3502, "stale".into()));
}

#[tokio::test]
async fn asks_at_a_time_are_bounded_and_so_are_those_that_wait() {
    let mut backend = App::start().await;
    let gate = Arc::new(Semaphore::new(0));
    backend.say("rpc", Say::Held(gate.clone(), json!({"result": {"data": 1}})));
    let endpoint = HookEndpoint { asks_max: 1, waiting_max: 1, ..backend.endpoint() };
    let server = start(settings(endpoint)).await;
    let mut first = Client::anonymous(&server).await;
    first.send(CALL).await;
    backend.next().await;
    // One of the two waits, and the other is told so at once.
    let (mut second, mut third) = (Client::anonymous(&server).await, Client::anonymous(&server).await);
    second.send(CALL).await;
    third.send(CALL).await;
    let refused = tokio::select! {
        reply = second.reply(7, "rpc") => reply,
        reply = third.reply(7, "rpc") => reply,
    };
    assert_eq!(refused.unwrap_err()["code"], 100);
    assert!(backend.is_idle());
    // What asks nobody goes on.
    Client::anonymous(&server).await.call("ping", json!({})).await.unwrap();
    gate.add_permits(2);
    assert_eq!(first.reply(7, "rpc").await.unwrap(), json!({"data": 1}));
    backend.next().await;
    assert_eq!(backend.at_once_max(), 1);
}

#[tokio::test]
async fn an_ask_whose_client_is_gone_is_given_up_and_gives_its_place_back() {
    let mut backend = App::start().await;
    backend.say("rpc", Say::Nothing);
    let endpoint = HookEndpoint { asks_max: 1, waiting_max: 0, ..backend.endpoint() };
    let server = start(settings(endpoint)).await;
    let watch = Stopwatch::start();
    for frames in [vec![CALL], vec![CALL, r#"{"id":8,"ping":{}}"#, r#"{"id":9,"ping":{}}"#]] {
        let mut client = Client::anonymous(&server).await;
        for frame in frames {
            client.send(frame).await;
        }
        backend.next().await;
        backend.result("rpc", json!({}));
        drop(client);
        let mut other = Client::anonymous(&server).await;
        while let Err(error) = other.call("rpc", json!({"method": "free?"})).await {
            assert_eq!(error["code"], 100);
            assert!(watch.elapsed() < Duration::from_secs(10), "the place is not given back");
        }
        backend.next().await;
        backend.say("rpc", Say::Nothing);
    }
    let page = get(&server, "/metrics").await.body;
    assert!(page.contains(r#"outcome="given_up"} 2"#), "{page}");
}

#[tokio::test]
async fn a_connection_that_the_server_ends_waits_for_no_backend() {
    let mut backend = App::start().await;
    backend.say("rpc", Say::Nothing);
    let server = start(settings(backend.endpoint())).await;
    let mut client = Client::with_token(&server, &crate::client::dev_token("ann")).await;
    client.send(CALL).await;
    backend.next().await;
    crate::client::api(&server, "disconnect", json!({"user": "ann"})).await;
    assert_eq!(client.closed().await.0, 3503);
}

#[tokio::test]
async fn what_is_published_goes_its_way_when_the_client_is_gone() {
    let mut backend = App::start().await;
    let gate = Arc::new(Semaphore::new(0));
    backend.say("publish", Say::Held(gate.clone(), json!({"result": {}})));
    let mut config = settings(backend.endpoint());
    tenant(&mut config).channels[0].ask.publish = Some("app".into());
    let server = start(config).await;
    let (mut listener, _) = Client::subscribed(&server, "last").await;
    let mut client = Client::anonymous(&server).await;
    client.send(r#"{"id":2,"publish":{"channel":"last","data":"words"}}"#).await;
    backend.next().await;
    drop(client);
    // So that the server has seen the end.
    for _ in 0..20 {
        listener.call("ping", json!({})).await.unwrap();
    }
    gate.add_permits(1);
    assert_eq!(listener.publication("last").await, (json!("words"), 1));
}

#[tokio::test]
async fn a_backend_that_is_away_is_soon_not_asked_and_asked_again_when_it_is_back() {
    let mut backend = App::start().await;
    backend.say("rpc", Say::Status(500));
    let mut endpoint = backend.endpoint();
    (endpoint.breaker.failures, endpoint.breaker.open_for) = (3, Duration::from_millis(500));
    let server = start(settings(endpoint)).await;
    let mut client = Client::anonymous(&server).await;
    for _ in 0..3 {
        assert_eq!(client.call("rpc", json!({"method": "x"})).await.unwrap_err()["code"], 100);
        backend.next().await;
    }
    assert_eq!(client.call("rpc", json!({"method": "x"})).await.unwrap_err()["code"], 100);
    assert!(backend.is_idle(), "it is not asked");
    let page = get(&server, "/metrics").await.body;
    assert!(page.contains(r#"tidewire_hook_breaker{tenant="default",endpoint="app"} 2"#), "{page}");
    backend.result("rpc", json!({"data": 1}));
    let watch = Stopwatch::start();
    while client.call("rpc", json!({"method": "x"})).await.is_err() {
        assert!(watch.elapsed() < Duration::from_secs(10), "stays open");
    }
    client.call("rpc", json!({"method": "x"})).await.unwrap();
}

#[tokio::test]
async fn connections_to_a_backend_are_used_again() {
    let backend = App::start().await;
    let server = start(settings(backend.endpoint())).await;
    let mut client = Client::anonymous(&server).await;
    for _ in 0..20 {
        client.call("rpc", json!({"method": "x"})).await.unwrap();
    }
    assert!(backend.link_count() < 20, "{} connections for 20 asks", backend.link_count());
}

#[tokio::test]
async fn a_server_that_would_ask_nobody_or_where_it_may_not_does_not_start() {
    let mut nobody = dev();
    tenant(&mut nobody).channels[0].ask.subscribe = Some("nobody".into());
    let private = settings(HookEndpoint { allow_private: false, ..HookEndpoint::at("http://127.0.0.1:1/") });
    for (config, problem) in [
        (nobody, "tenants.default.channels[0].ask.subscribe: there is no endpoint"),
        (private, "tenants.default.hooks.endpoints.app.url is http"),
    ] {
        let error = Server::start(config).await.err().unwrap().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_while_its_backend_takes_long() {
    let mut backend = App::start().await;
    let gate = Arc::new(Semaphore::new(0));
    backend.say("rpc", Say::Held(gate.clone(), json!({"result": {"data": 1}})));
    let mut config = settings(backend.endpoint());
    config.timing.ping_every = Duration::from_secs(1);
    config.timing.pong_within = Duration::from_millis(500);
    let server = start(config).await;
    let mut client = Client::anonymous(&server).await;
    client.send(CALL).await;
    backend.next().await;
    for _ in 0..3 {
        assert_eq!(client.line().await.unwrap(), json!({}), "a ping");
        client.send("{}").await;
    }
    gate.add_permits(1);
    assert_eq!(client.reply(7, "rpc").await.unwrap(), json!({"data": 1}));
}
