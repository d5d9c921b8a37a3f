use std::path::Path;

use super::*;
use crate::error::ErrorKind;

fn tcp(host: &str, port: u16) -> Endpoint {
    Endpoint::Tcp { host: host.to_owned(), port }
}

fn one(url: &str) -> Address {
    match Target::parse(url) {
        Ok(Target::One(address)) => address,
        other => panic!("{url}: {other:?}"),
    }
}

fn fault(url: &str) -> String {
    let error = Target::parse(url).expect_err(url);
    assert_eq!(error.kind(), ErrorKind::InvalidName, "{url}: {error}");
    error.to_string()
}

#[test]
fn reads_the_url_of_one_server() {
    let plain = one("redis://127.0.0.1");
    assert_eq!((plain.endpoint, plain.access.database), (tcp("127.0.0.1", 6379), 0));
    assert!(plain.access.credentials.is_none() && plain.access.tls.is_none());

    let full = one("redis://app:p%40ss@cache.internal:7000/3?connect_timeout_ms=250");
    assert_eq!((full.endpoint, full.access.database), (tcp("cache.internal", 7000), 3));
    assert_eq!(full.access.connect_time_max, Duration::from_millis(250));
    let credentials = full.access.credentials.as_ref().unwrap();
    assert_eq!((&*credentials.user, &*credentials.password), ("app", "p@ss"));

    let bare_password = one("redis://:secret@[::1]:7001");
    assert_eq!(bare_password.endpoint, tcp("::1", 7001));
    assert_eq!(bare_password.endpoint.to_string(), "[::1]:7001");
    assert_eq!(bare_password.access.credentials.as_ref().unwrap().user, "default");

    let unix = one("unix:///run/redis%20a.sock?db=2&password=x");
    assert_eq!((unix.endpoint, unix.access.database), (Endpoint::Unix("/run/redis a.sock".into()), 2));
}

#[test]
fn reads_the_seeds_of_a_cluster() {
    let url = "redis-cluster://app:p%40ss@one.internal:7000,10.0.0.2,[::1]:7002?connect_timeout_ms=250";
    let Ok(Target::Cluster(seeds)) = Target::parse(url) else { panic!("{url}") };
    let endpoints: Vec<_> = seeds.iter().map(|seed| seed.endpoint.clone()).collect();
    assert_eq!(endpoints, [tcp("one.internal", 7000), tcp("10.0.0.2", 6379), tcp("::1", 7002)]);
    for seed in seeds {
        assert_eq!(seed.access.connect_time_max, Duration::from_millis(250));
        assert_eq!(seed.access.credentials.as_ref().unwrap().password, "p@ss");
    }
}

#[test]
fn reads_the_sentinels_and_the_name_of_their_primary() {
    let url =
        "redis-sentinel://app:p%40ss@one.internal:7000,10.0.0.2/my%20primary?db=2&sentinel_password=watch";
    let Ok(Target::Sentinel(group)) = Target::parse(url) else { panic!("{url}") };
    assert_eq!((&*group.name, group.access.database), ("my primary", 2));
    assert_eq!(group.access.credentials.as_ref().unwrap().password, "p@ss");
    let endpoints: Vec<_> = group.sentinels.iter().map(|sentinel| sentinel.endpoint.clone()).collect();
    assert_eq!(endpoints, [tcp("one.internal", 7000), tcp("10.0.0.2", 26_379)]);
    for sentinel in group.sentinels {
        assert_eq!(sentinel.access.database, 0, "a sentinel has none");
        let credentials = sentinel.access.credentials.as_ref().unwrap();
        assert_eq!((&*credentials.user, &*credentials.password), ("default", "watch"));
    }
    let Ok(Target::Sentinel(group)) = Target::parse("redis-sentinel://app:secret@h/p") else { panic!() };
    assert!(group.sentinels[0].access.credentials.is_none(), "a sentinel is not told the server's password");
}

#[test]
fn says_what_is_wrong_with_a_url() {
    for (url, part) in [
        ("redis://", "host"),
        ("redis://h/x", "database"),
        ("redis://h,g", "redis-cluster://"),
        ("redis://h?nope=1", "nope"),
        ("redis://h?db=1", "db"),
        ("redis://h?connect_timeout_ms=0", "connect_timeout_ms"),
        ("redis://user@h", "without a password"),
        ("redis://h?ca=/ca.pem", "rediss"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("unix:///", "no path"),
        ("http://h", "scheme"),
        ("redis-cluster://", "host"),
        ("redis-cluster://h,,g", "host"),
        ("redis-cluster://h/1", "one database"),
        ("redis-cluster://h?nope=1", "nope"),
        ("redis-sentinel://h", "name that the sentinels watch"),
        ("redis-sentinel://h/a/b", "name that the sentinels watch"),
        ("redis-sentinel://h/p?sentinel_user=u", "without a password"),
        ("rediss://h?server_name=a%20b", "server_name"),
    ] {
        let fault = fault(url);
        assert!(fault.contains(part), "{url}: {fault}");
    }
}

#[test]
fn a_password_is_never_shown() {
    for url in ["redis://app:hunter2@h", "unix:///s?password=hunter2"] {
        assert!(!format!("{:?}", one(url)).contains("hunter2"));
    }
    let sentinel = Target::parse("redis-sentinel://:hunter2@h/p?sentinel_password=hunter2").unwrap();
    assert!(!format!("{sentinel:?}").contains("hunter2"));
    assert!(!fault("redis://app:hunter2@h:99999").contains("hunter2"));
}

/// A CA, and what it signed: `ca.pem`, `cert.pem`, `key.pem`, and a `other.pem` that is the key to nothing.
fn write_certificates(folder: &Path) {
    let key = || rcgen::KeyPair::generate().unwrap();
    let (own, other) = (key(), key());
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own).unwrap();
    for (name, text) in [
        ("ca.pem", certificate.pem()),
        ("cert.pem", certificate.pem()),
        ("key.pem", own.serialize_pem()),
        ("other.pem", other.serialize_pem()),
        ("empty.pem", String::new()),
        ("broken.pem", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n".to_owned()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn reads_the_files_of_an_encrypted_link_and_says_which_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let url = |options: &str| format!("rediss://h?{}", options.replace('@', folder.path().to_str().unwrap()));
    for scheme in ["rediss", "rediss-cluster", "rediss-sentinel"] {
        let url = url("ca=@/ca.pem&cert=@/cert.pem&key=@/key.pem&server_name=redis.internal");
        let path = if scheme == "rediss-sentinel" { "h/p?" } else { "h?" };
        Target::parse(&url.replace("rediss", scheme).replace("h?", path)).unwrap();
    }
    assert!(one(&url("ca=@/ca.pem")).access.tls.is_some());
    for (options, parts) in [
        ("ca=@/none.pem", ["ca file", "none.pem", "cannot be read"]),
        ("ca=@/empty.pem", ["ca file", "empty.pem", "does not hold a certificate"]),
        ("ca=@/key.pem", ["ca file", "key.pem", "does not hold a certificate"]),
        ("ca=@/broken.pem", ["ca file", "broken.pem", "not PEM"]),
        ("ca=@/ca.pem&cert=@/cert.pem", ["client certificate", "key", "key=FILE"]),
        ("ca=@/ca.pem&key=@/key.pem", ["key", "certificate", "cert=FILE"]),
        (
            "ca=@/ca.pem&cert=@/cert.pem&key=@/cert.pem",
            ["key file", "cert.pem", "does not hold a private key"],
        ),
        ("ca=@/ca.pem&cert=@/cert.pem&key=@/other.pem", ["other.pem", "does not belong", "cert.pem"]),
    ] {
        let fault = fault(&url(options));
        assert!(parts.iter().all(|part| fault.contains(part)), "{options}: {fault}");
    }
}
