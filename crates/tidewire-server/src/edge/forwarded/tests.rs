use axum::http::HeaderValue;

use super::*;

/// Reads headers of a proxy that trusts 10.0.0.0/8.
fn read_lines(header: ProxyHeader, lines: &[(&'static str, &str)]) -> Result<Forwarded, Malformed> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    read(&headers, header, |address| address.to_string().starts_with("10."))
}

fn x_forwarded(lines: &[(&'static str, &str)]) -> Result<Forwarded, Malformed> {
    read_lines(ProxyHeader::XForwarded, lines)
}

fn forwarded(line: &str) -> Result<Forwarded, Malformed> {
    read_lines(ProxyHeader::Forwarded, &[("forwarded", line)])
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn the_client_is_the_last_address_that_is_not_trusted() {
    for (value, client) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("192.0.2.1,10.0.0.2 , 10.0.0.3", "192.0.2.1"),
        // What the client wrote itself is not believed, and need not be an address.
        ("198.51.100.1, 192.0.2.1", "192.0.2.1"),
        ("\"<script>, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        // Where all are trusted, it is the farthest.
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1"),
        ("192.0.2.1, ,", "192.0.2.1"),
    ] {
        let read = x_forwarded(&[("x-forwarded-for", value)]).unwrap();
        assert_eq!(read.address, address(client), "{value}");
    }
}

#[test]
fn lines_of_a_list_are_one_list() {
    let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "192.0.2.1, 10.0.0.2")];
    assert_eq!(x_forwarded(&lines).unwrap().address, address("192.0.2.1"));
}

#[test]
fn who_is_not_named_is_the_nearest_that_is() {
    for value in ["unknown, 10.0.0.2", "_hidden, 10.0.0.2"] {
        assert_eq!(x_forwarded(&[("x-forwarded-for", value)]).unwrap().address, address("10.0.0.2"));
    }
    for lines in [&[("x-forwarded-for", "unknown")][..], &[("x-forwarded-for", "")], &[]] {
        assert_eq!(x_forwarded(lines).unwrap(), Forwarded::default());
    }
}

#[test]
fn scheme_and_host_are_those_of_the_nearest_proxy() {
    let lines = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "http, HTTPS"),
        ("x-forwarded-host", "forged.example"),
        ("x-forwarded-host", "app.example:8443"),
    ];
    let read = x_forwarded(&lines).unwrap();
    let host = Some("app.example:8443".into());
    assert_eq!(read, Forwarded { address: address("192.0.2.1"), scheme: Some(Scheme::Https), host });
}

#[test]
fn what_a_proxy_cannot_mean_is_malformed() {
    for (name, value) in [
        ("x-forwarded-for", "nonsense"),
        ("x-forwarded-for", "192.0.2.1, nonsense"),
        ("x-forwarded-for", "192.0.2.256"),
        ("x-forwarded-for", "192.0.2.1:port"),
        ("x-forwarded-for", "nonsense, 10.0.0.2"),
        ("x-forwarded-for", "ü"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "two words"),
        ("x-forwarded-host", "me@app.example"),
    ] {
        assert_eq!(x_forwarded(&[(name, value)]), Err(Malformed(HeaderName::from_static(name))), "{value}");
    }
}

#[test]
fn forwarded_is_read_as_its_rfc_has_it() {
    for (line, client) in [
        ("for=192.0.2.1", "192.0.2.1"),
        ("For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
        ("for=192.0.2.1;proto=http;by=203.0.113.43", "192.0.2.1"),
        ("for=198.51.100.1, for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
        ("for=192.0.2.1;;proto=https , for=\"10.0.0.2:80\";", "192.0.2.1"),
        ("for=\"192.0.2\\.1\"", "192.0.2.1"),
        ("for=unknown, for=10.0.0.2", "10.0.0.2"),
        ("proto=https, for=10.0.0.2", "10.0.0.2"),
    ] {
        assert_eq!(forwarded(line).unwrap().address, address(client), "{line}");
    }
}

#[test]
fn forwarded_has_scheme_and_host_where_it_has_the_client() {
    let read = forwarded(
        "for=198.51.100.1;host=forged.example;proto=http, for=192.0.2.1;host=\"app.example:1\";proto=https, for=10.0.0.2",
    )
    .unwrap();
    let host = Some("app.example:1".into());
    assert_eq!(read, Forwarded { address: address("192.0.2.1"), scheme: Some(Scheme::Https), host });
}

#[test]
fn a_quote_that_a_client_opens_hides_nothing() {
    for line in [
        "for=198.51.100.1;x=\", for=192.0.2.1",
        "for=198.51.100.1;x=\", for=\"[2001:db8::1]\"",
        "for=198.51.100.1;x=\"\\, for=\"192.0.2.1\"",
        "for",
        "for=",
        "for=192.0.2.1;for=198.51.100.1",
        "for=\"192.0.2.1\"x",
        "for=[2001:db8::1]",
        "f or=192.0.2.1",
        "for=nonsense",
        "for=192.0.2.1;proto=gopher",
        "for=192.0.2.1;host=\"two words\"",
    ] {
        assert_eq!(forwarded(line), Err(Malformed(header::FORWARDED)), "{line}");
    }
}

#[test]
fn the_other_header_is_not_looked_at() {
    let both = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=198.51.100.1")];
    assert_eq!(x_forwarded(&both).unwrap().address, address("192.0.2.1"));
    assert_eq!(read_lines(ProxyHeader::Forwarded, &both).unwrap().address, address("198.51.100.1"));
}
