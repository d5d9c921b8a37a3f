use axum::http::HeaderValue;

use super::*;

fn edge(change: impl FnOnce(&mut EdgeConfig)) -> Edge {
    let mut config = EdgeConfig::default();
    change(&mut config);
    Edge::new(&config, Arc::default())
}

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The visitor of a request over a connection of `peer`.
fn visit(edge: &Edge, peer: &str, lines: &[(&'static str, &str)]) -> Result<Visitor, Refused> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    edge.visitor(&edge.meet(ip(peer), Transport::Plain)?, &headers)
}

fn refused(outcome: Result<Visitor, Refused>) -> Option<Refused> {
    outcome.err()
}

#[test]
fn deny_wins_over_allow() {
    let edge = edge(|edge| {
        edge.allow = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        edge.deny = networks(&["10.6.6.6"]);
    });
    for (address, is_let_in) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("2001:db8::1", true),
        ("10.6.6.6", false),
        ("::ffff:10.6.6.6", false),
        ("192.0.2.1", false),
        ("::1", false),
    ] {
        let outcome = edge.meet(ip(address), Transport::Plain).map(drop);
        assert_eq!(outcome, if is_let_in { Ok(()) } else { Err(Refused::Address) }, "{address}");
    }
}

#[test]
fn lists_are_of_the_client_and_not_of_its_proxy() {
    let edge = edge(|edge| {
        edge.trusted_proxies = networks(&["10.0.0.1"]);
        edge.allow = networks(&["192.0.2.0/24"]);
        edge.deny = networks(&["192.0.2.66"]);
    });
    let through = |client: &str| refused(visit(&edge, "10.0.0.1", &[("x-forwarded-for", client)]));
    assert_eq!(through("192.0.2.1"), None);
    assert_eq!(through("192.0.2.66"), Some(Refused::Address));
    assert_eq!(through("198.51.100.1"), Some(Refused::Address));
    // A proxy that names nobody asks for itself, and is not on the list.
    assert_eq!(refused(visit(&edge, "10.0.0.1", &[])), Some(Refused::Address));
}

#[test]
fn only_a_trusted_proxy_is_believed() {
    let edge = edge(|edge| edge.trusted_proxies = networks(&["10.0.0.0/8"]));
    let lines = [
        ("x-forwarded-for", "192.0.2.1, 10.0.0.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.example"),
    ];
    let known = visit(&edge, "10.0.0.1", &lines).unwrap();
    assert_eq!(
        (known.address, known.host.as_deref(), known.is_secure),
        (ip("192.0.2.1"), Some("app.example"), true)
    );
    let stranger = visit(&edge, "203.0.113.9", &lines).unwrap();
    assert_eq!((stranger.address, stranger.host, stranger.is_secure), (ip("203.0.113.9"), None, false));
    // What a stranger says malformed is ignored as well.
    assert!(visit(&edge, "203.0.113.9", &[("x-forwarded-for", "nonsense")]).is_ok());
    let malformed = refused(visit(&edge, "10.0.0.1", &[("x-forwarded-for", "nonsense")]));
    assert_eq!(malformed.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[test]
fn connections_through_a_proxy_are_counted_for_the_client() {
    let edge = edge(|edge| {
        edge.trusted_proxies = networks(&["10.0.0.1"]);
        edge.unauthenticated_max = 1;
    });
    let ask = |client: &str| edge.admit(visit(&edge, "10.0.0.1", &[("x-forwarded-for", client)])?);
    let first = ask("192.0.2.1").unwrap();
    assert_eq!(refused(ask("192.0.2.1")), Some(Refused::Unauthenticated));
    let other = ask("192.0.2.2").unwrap();
    first.proved();
    let second = ask("192.0.2.1").unwrap();
    drop((first, other));
    assert_eq!(refused(ask("192.0.2.1")), Some(Refused::Unauthenticated));
    drop(second);
    assert!(ask("192.0.2.1").is_ok());
}

#[test]
fn a_connection_is_counted_once() {
    let edge = edge(|edge| edge.unauthenticated_max = 1);
    let peer = edge.meet(ip("192.0.2.1"), Transport::Plain).unwrap();
    let visitor = edge.visitor(&peer, &HeaderMap::new()).unwrap();
    // Its request for a connection is of the TCP connection that is counted.
    let visitor = edge.admit(visitor).unwrap();
    assert_eq!(edge.meet(ip("192.0.2.1"), Transport::Plain).err(), Some(Refused::Unauthenticated));
    // A WebSocket outlives what accepted it.
    drop(peer);
    assert!(edge.meet(ip("192.0.2.1"), Transport::Plain).is_err());
    drop(visitor);
    assert!(edge.meet(ip("192.0.2.1"), Transport::Plain).is_ok());
}

#[test]
fn who_is_refused_is_told_when_to_come_again() {
    for (refused, seconds) in [
        (Refused::Address, None),
        (Refused::Arrivals(Duration::from_millis(20)), Some(1)),
        (Refused::Failures(Duration::from_secs(60)), Some(60)),
        (Refused::Failures(Duration::from_millis(59_001)), Some(60)),
    ] {
        assert_eq!(refused.retry_after(), seconds);
        let response = refused.into_response();
        let header =
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header, seconds.map(|seconds: u64| seconds.to_string()));
    }
}
