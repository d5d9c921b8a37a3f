//! Each topology starts, and does what tests do to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use tidewire_fleet::{
    Acl, Admin, Cluster, Persistence, Proxy, Sentinel, Server, Standalone, Tls, Way, server_program,
};

fn program() -> PathBuf {
    server_program().expect("redis-server or valkey-server is on the PATH; `cargo xtask test` installs one")
}

fn set(server: &Server, value: &str) {
    server.admin.tell(&["SET", "key", value]).expect("set");
}

fn get(admin: &Admin) -> String {
    admin.ask(&["GET", "key"]).expect("got").text().to_owned()
}

#[test]
fn a_server_that_is_killed_comes_back_with_what_it_keeps() {
    for (persistence, kept) in [(Persistence::Nothing, ""), (Persistence::AppendOnlyFile, "value")] {
        let mut server = Standalone::start(&program(), persistence).unwrap().server;
        set(&server, "value");
        server.kill().unwrap();
        assert!(server.admin.ask(&["PING"]).is_err());
        server.restart().unwrap();
        assert_eq!(get(&server.admin), kept);
    }
}

#[test]
fn a_paused_server_says_nothing_until_it_goes_on() {
    let mut server = Standalone::start(&program(), Persistence::Nothing).unwrap().server;
    server.pause().unwrap();
    let mut stream = TcpStream::connect(server.admin.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    assert!(stream.read(&mut [0; 16]).is_err());
    server.go_on().unwrap();
    stream.set_read_timeout(None).unwrap();
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn a_server_ends_with_its_folder() {
    let server = Standalone::start(&program(), Persistence::Nothing).unwrap().server;
    let (folder, admin) = (server.place().folder.clone(), server.admin.clone());
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
    assert!(admin.ask(&["PING"]).is_err());
}

#[test]
fn a_user_may_do_what_the_engine_needs_only() {
    let acl = Acl::start(&program()).unwrap();
    let user = Admin::parse(&acl.url().replace("%2F", "/").replace("%40", "@").replace("%3A", ":")).unwrap();
    user.tell(&["SET", "dev:tenant:t:{x}:entry:key", "value"]).unwrap();
    for refused in [["SET", "elsewhere", "value"].as_slice(), &["FLUSHALL"], &["CONFIG", "GET", "*"]] {
        assert!(user.ask(refused).unwrap_err().root_cause().to_string().starts_with("NOPERM"));
    }
    let nobody = Admin::parse(&format!("redis://{}", acl.server.admin.address())).unwrap();
    assert!(nobody.ask(&["PING"]).unwrap_err().root_cause().to_string().starts_with("NOAUTH"));
}

#[test]
fn a_tls_server_has_a_plain_port_for_its_operator() {
    let tls = Tls::start(&program()).unwrap();
    assert!(tls.server.admin.ask(&["PING"]).is_ok());
    let plain = Admin::parse(&format!("redis://127.0.0.1:{}", tls.server.place().other_port)).unwrap();
    assert!(plain.ask(&["PING"]).is_err(), "the TLS port speaks TLS only");
    for file in ["ca.pem", "client.pem", "client.key"] {
        assert!(tls.url().contains(file) && tls.server.place().folder.join(file).exists());
    }
}

#[test]
fn sentinels_fail_over_when_told_and_when_the_primary_dies() {
    let mut fleet = Sentinel::start(&program()).unwrap();
    let (first, _) = fleet.primary().unwrap();
    set(&fleet.servers[first], "value");
    // Whichever replica takes over has it.
    for server in &fleet.servers {
        server.admin.until("it has the value", &["GET", "key"], |reply| reply.text() == "value").unwrap();
    }
    let second = fleet.fail_over().unwrap();
    assert_ne!(first, second);
    fleet.until_watched().unwrap();
    assert_eq!(get(&fleet.servers[second].admin), "value");

    let port = fleet.servers[second].port();
    fleet.servers[second].kill().unwrap();
    let third = fleet.until_other_primary(port).unwrap();
    assert_eq!(get(&fleet.servers[third].admin), "value");
    fleet.servers[second].restart().unwrap();
    fleet.until_watched().unwrap();
}

#[test]
fn a_cluster_fails_over_and_moves_slots() {
    let cluster = Cluster::start(&program()).unwrap();
    // Its slot, 12539, is of the third primary.
    let (from, to) = (&cluster.servers[2], &cluster.servers[0]);
    set(from, "value");
    let mut steps = 0;
    cluster.migrate(12_539, from, to, || steps += 1).unwrap();
    assert_eq!((get(&to.admin), steps), ("value".to_owned(), 1));
    assert!(from.admin.ask(&["GET", "key"]).unwrap_err().root_cause().to_string().starts_with("MOVED"));

    let replica = cluster.fail_over(to).unwrap();
    assert_eq!(get(&replica.admin), "value");
    cluster.until_whole().unwrap();
}

#[test]
fn a_proxy_forwards_holds_swallows_and_cuts() {
    let server = Standalone::start(&program(), Persistence::Nothing).unwrap().server;
    let proxy = Proxy::open(server.admin.address(), 1).unwrap();
    let dial = || {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    };
    let ping = |mut stream: &TcpStream| {
        stream.write_all(b"PING\r\n").unwrap();
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).map(|()| assert_eq!(&reply, b"+PONG\r\n"))
    };
    let kind = |stream: &TcpStream| ping(stream).unwrap_err().kind();
    let mut stream = dial();
    ping(&stream).unwrap();
    proxy.delay(Duration::from_millis(5));
    ping(&stream).unwrap();

    proxy.hold();
    assert_eq!(kind(&stream), std::io::ErrorKind::WouldBlock);
    assert_eq!(kind(&dial()), std::io::ErrorKind::WouldBlock);
    proxy.pass();
    let mut late = [0; 14];
    stream.read_exact(&mut late[..7]).unwrap();
    proxy.freeze();
    assert_eq!(kind(&stream), std::io::ErrorKind::WouldBlock);
    ping(&dial()).unwrap();
    proxy.pass();
    stream.read_exact(&mut late[7..]).unwrap();
    assert_eq!(&late, b"+PONG\r\n+PONG\r\n");

    for way in [Way::Out, Way::In] {
        // One of its own: what earlier links still have under way counts as well.
        let proxy = Proxy::open(server.admin.address(), 1).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        proxy.hold_after(way, 2);
        ping(&stream).unwrap();
        assert!(!proxy.until_held(Duration::ZERO));
        let second = ping(&stream);
        assert_eq!(second.is_ok(), way == Way::In, "the last that passes is a request or a reply");
        assert!(proxy.until_held(Duration::from_secs(5)));
        assert_eq!(kind(&stream), std::io::ErrorKind::WouldBlock);
        proxy.pass();
    }

    for way in [Way::Out, Way::In] {
        let stream = dial();
        proxy.swallow(way);
        assert_eq!(kind(&stream), std::io::ErrorKind::WouldBlock);
        proxy.pass();
        assert_ne!((&stream).read(&mut [0; 16]).ok(), Some(7), "what was swallowed is gone");
    }

    let stream = dial();
    ping(&stream).unwrap();
    proxy.cut();
    assert_eq!((&stream).read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    proxy.cut_next(1, 3);
    let stream = dial();
    let (end, cuts) = (ping(&stream), proxy.cuts());
    assert!(end.is_err() && cuts >= 1, "{end:?} {cuts}");
}
