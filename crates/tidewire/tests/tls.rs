//! Encrypted links on real servers: one, a cluster, and a primary that a sentinel names.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use tidewire::{Error, ErrorKind, Event, Item, Tidewire};
use tidewire_fleet::{Place, Server, Tls, server_program};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

fn program() -> PathBuf {
    server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it")
}

fn start() -> Tls {
    Tls::start(&program()).expect("a server with TLS")
}

/// A server of any kind beside `tls`, with the same certificates, and what its URL says behind the `?`.
fn start_beside(tls: &Tls, arguments: &[&str], lines: impl Fn(&Place) -> Vec<String>) -> (Server, String) {
    let folder = tls.server.place().folder.display().to_string();
    let server = Server::start(&program(), arguments, None, |place| {
        let mut all = lines(place);
        all.push(format!("tls-port {}\ntls-cert-file {folder}/server.pem", place.other_port));
        all.push(format!("tls-key-file {folder}/server.key\ntls-ca-cert-file {folder}/ca.pem"));
        Ok(all)
    });
    let url = tls.url();
    let (_, options) = url.split_once('?').expect("options");
    (server.expect("a server with TLS"), options.to_owned())
}

/// Appends more than one buffer holds, and hears all of it.
async fn round_trip(url: &str) {
    let tidewire = Tidewire::open(url).await.expect("the engine opens");
    let channel =
        tidewire.tenant("tls").and_then(|tenant| tenant.channel("round-trip")).expect("a valid name");
    let mut subscription = channel.subscribe().open().await.expect("listening");
    let text = |number: usize| format!("{number}:{}", "x".repeat(200_000));
    let append = async |number| channel.append(Event::new("numbered", text(number))).await.expect("appended");
    futures_util::future::join_all((0..20).map(append)).await;
    let mut heard = Vec::new();
    while heard.len() < 20 {
        match timeout(PATIENCE, subscription.next()).await.expect("in time").expect("it goes on") {
            Item::Event(received) => heard.push(received.event.data().len()),
            Item::Gap(gap) => panic!("{gap:?}"),
        }
    }
    assert!(heard.iter().all(|length| *length > 200_000), "{heard:?}");
    let health = tidewire.health().await;
    assert!(health.is_healthy(), "{health:?}");
    tidewire.close(PATIENCE).await.expect("it closes");
}

async fn refused(url: &str) -> Error {
    Tidewire::open(url).await.map(drop).expect_err("the server is not to be trusted, or we are not")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_encrypted_and_both_sides_show_who_they_are() {
    let tls = start();
    round_trip(&tls.url()).await;
    let by_name = tls.url().replace("127.0.0.1", "localhost");
    round_trip(&by_name).await;
    round_trip(&format!("{by_name}&server_name=127.0.0.1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_an_encrypted_link_is_said_with_what_to_change() {
    let tls = start();
    let url = tls.url();
    let (server, _) = url.split_once('?').expect("options");
    let plain = |port: u16| format!("127.0.0.1:{port}");
    let without_tls = url.replace(&plain(tls.server.place().other_port), &plain(tls.server.port()));
    for (url, part, kind) in [
        (tls.url_without_certificate(), "cert=FILE&key=FILE", ErrorKind::Engine),
        (server.to_owned(), "ca=FILE", ErrorKind::Engine),
        (format!("{url}&server_name=redis.internal"), "server_name=NAME", ErrorKind::Engine),
        (without_tls, "write redis in place of rediss", ErrorKind::Unavailable),
        (server.replace("rediss", "redis"), "write rediss in place of redis", ErrorKind::Unavailable),
    ] {
        let error = refused(&url).await;
        assert!(error.to_string().contains(part), "{url}: {error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_link_to_a_cluster_is_encrypted() {
    let tls = start();
    let (node, options) = start_beside(&tls, &[], |_| {
        // Below the ports that the system gives to outgoing connections.
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let bus =
            std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).find(is_free).expect("a free port");
        vec![format!("cluster-enabled yes\ntls-cluster yes\ncluster-port {bus}\nsave \"\"")]
    });
    node.admin.tell(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).expect("it takes the slots");
    let is_whole = |reply: &tidewire_fleet::Reply| reply.text().contains("cluster_state:ok");
    node.admin.until("it serves", &["CLUSTER", "INFO"], is_whole).expect("it serves");
    round_trip(&format!("rediss-cluster://127.0.0.1:{}?{options}", node.place().other_port)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_links_to_sentinels_and_to_their_primary_are_encrypted() {
    let tls = start();
    let primary = tls.server.place().other_port;
    let (sentinel, options) = start_beside(&tls, &["--sentinel"], |_| {
        vec![format!("sentinel monitor tidewire 127.0.0.1 {primary} 1"), "tls-replication yes".to_owned()]
    });
    round_trip(&format!("rediss-sentinel://127.0.0.1:{}/tidewire?{options}", sentinel.place().other_port))
        .await;
}
