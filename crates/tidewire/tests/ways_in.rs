//! The ways to one server beside an IPv4 address: a Unix socket, IPv6, a database; and what it learns of us.

use std::time::Duration;

use tidewire::{Error, ErrorKind, Event, Tidewire};
use tidewire_fleet::{Acl, Server, server_program};

fn start(lines: &[&str]) -> Server {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    let started = Server::start(&program, &[], None, |place| {
        let folder = place.folder.display().to_string();
        Ok(lines.iter().map(|line| line.replace("FOLDER", &folder)).collect())
    });
    started.expect("a server")
}

/// Appends under `id` by each way in turn: the same server is behind all of them, or another one each.
async fn append(url: &str, id: &str) -> bool {
    let node = Tidewire::open(url).await.expect("the engine opens");
    let channel = node.tenant("ways").and_then(|tenant| tenant.channel("in")).expect("valid names");
    let receipt = channel.append(Event::new("test", "1")).dedup(id).await.expect("appended");
    let health = node.health().await;
    assert!(health.is_healthy(), "{health:?}");
    node.close(Duration::from_secs(5)).await.expect("it closes");
    receipt.is_duplicate()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_ipv6_and_ipv4_lead_to_one_server() {
    let server = start(&["bind 127.0.0.1 ::1", "unixsocket FOLDER/redis.sock"]);
    let (port, folder) = (server.port(), server.place().folder.display());
    assert!(!append(&format!("redis://127.0.0.1:{port}"), "once").await);
    assert!(append(&format!("redis://[::1]:{port}"), "once").await);
    assert!(append(&format!("unix://{folder}/redis.sock"), "once").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_apart() {
    let server = start(&["unixsocket FOLDER/redis.sock"]);
    let (port, folder) = (server.port(), server.place().folder.display());
    assert!(!append(&format!("redis://127.0.0.1:{port}"), "once").await);
    assert!(!append(&format!("redis://127.0.0.1:{port}/7"), "once").await);
    assert!(append(&format!("unix://{folder}/redis.sock?db=7"), "once").await);
    let error = Tidewire::open(&format!("redis://127.0.0.1:{port}/99")).await.expect_err("there are 16");
    assert!(error.to_string().contains("DB index"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_whose_links_are_whose_and_how_many() {
    let server = start(&[]);
    let node = Tidewire::open(&format!("redis://127.0.0.1:{}", server.port())).await.expect("it opens");
    let channel = node.tenant("ways").and_then(|tenant| tenant.channel("in")).expect("valid names");
    let _subscription = channel.subscribe().open().await.expect("listening");
    channel.append(Event::new("test", "1")).await.expect("appended");
    let clients = server.admin.ask(&["CLIENT", "LIST"]).expect("it answers");
    let names = clients.text().lines().filter_map(|line| {
        let name = line.split(' ').find_map(|word| word.strip_prefix("name=tidewire-"))?;
        name.rsplit_once('-').map(|(_, role)| role)
    });
    let mut roles: Vec<_> = names.collect();
    roles.sort_unstable();
    assert_eq!(roles, ["data", "pubsub"]);
}

fn shown(error: &Error) -> String {
    format!("{error} {error:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_in_no_error_and_in_no_health() {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    let acl = Acl::start(&program).expect("a server");
    let wrong = acl.url().replace("s3cret", "hunter2");
    let error = Tidewire::open(&wrong).await.expect_err("another password");
    assert_eq!(error.kind(), ErrorKind::Engine);
    assert!(!shown(&error).contains("hunter2"), "{error:?}");
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
    let node = Tidewire::open(&acl.url()).await.expect("the engine opens");
    assert!(!format!("{:?} {node:?}", node.health().await).contains("s3cret"));
    let unreachable = acl.url().replace(&acl.server.port().to_string(), "1");
    let error = Tidewire::open(&unreachable).await.expect_err("nobody listens there");
    assert!(!shown(&error).contains("s3cret"), "{error:?}");
}
