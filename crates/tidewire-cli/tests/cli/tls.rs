//! A server that speaks TLS, and the commands that talk to it.

use tidewire_fleet::{Certificates, Pair};

use crate::running::{Running, Server};

const SETTINGS: &str = r#"
[tenants.default]
api_keys = ["a-key-of-sixteen-bytes"]
anonymous = true
[[tenants.default.channels]]
pattern = "orders"
subscribe = "anyone"
keep = { events = 10, age = "1h" }
"#;
const KEY: &str = "a-key-of-sixteen-bytes";

#[test]
fn commands_talk_to_a_server_whose_certificate_a_file_vouches_for() {
    let folder = tempfile::tempdir().unwrap();
    let Certificates { authority, server: Pair { certificate, key }, .. } =
        Certificates::write(folder.path()).unwrap();
    let tls = format!("[tls]\ncert = {certificate:?}\nkey = {key:?}\n{SETTINGS}");
    let server = Server::with_settings(&tls);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    let ca = authority.to_str().unwrap();

    let mut append = server.command(&["append", "orders", "7", "--ca", ca]);
    let appended = append.env("TIDEWIRE_API_KEY", KEY).output().unwrap();
    assert!(appended.status.success(), "{appended:?}");
    let mut tail = server.command(&["tail", "orders", "--from-start", "--count", "1"]);
    tail.env("TIDEWIRE_CA", ca);
    let mut tail = Running::start(tail);
    assert!(tail.line().contains('7'));
    assert_eq!(tail.code(), Some(0));
    server.run(&["doctor", "--ca", ca]).expect_code(0);

    // Without it nobody is trusted, and nothing is sent.
    let untrusted = ["cannot trust https://127.0.0.1", "--ca FILE"];
    server.run(&["append", "orders", "8"]).expect_code(1).expect_error(&untrusted);
    server.run(&["tail", "orders"]).expect_code(1).expect_error(&untrusted);
    // The address is part of what a certificate is for.
    let by_name = server.url.replace("127.0.0.1", "localhost");
    server.run(&["doctor", "--ca", ca, "--url", &by_name]).expect_code(0);
}
