//! Webhooks and the event log of a server with settings of its own.

use serde_json::Value;

use crate::running::{Done, Server};

const KEY: &str = "key-of-the-tests-0123456789";

/// A server whose webhook `billing` goes to a port that nobody listens on.
fn server() -> Server {
    Server::with_settings(&format!(
        r#"
        [log]
        events = true
        format = "json"

        [tenants.default]
        api_keys = ["{KEY}"]

        [[tenants.default.channels]]
        pattern = "orders"
        keep = {{ events = 100, age = "1h" }}

        [[webhooks]]
        channel = "orders"
        name = "billing"
        start = "earliest"
        url = "http://127.0.0.1:1/hook"
        secrets = ["whsec_cmVwbGFjZS1tZS1yZXBsYWNlLW1lLXJlcGxhY2UtbWU="]
        allow_private = true
        "#
    ))
}

fn run(server: &Server, arguments: &[&str]) -> Done {
    server.command(arguments).env("TIDEWIRE_API_KEY", KEY).output().unwrap().into()
}

#[test]
fn webhooks_are_listed_shown_tried_disabled_and_enabled() {
    let server = server();
    let list = run(&server, &["webhooks", "list"]).expect_code(0).stdout;
    let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["billing", "orders", "enabled", "0", "http://127.0.0.1:1/hook"], "{list}");
    run(&server, &["webhooks", "test", "billing"]).expect_code(1).expect_error(&["cannot be connected to"]);

    let disable = ["webhooks", "disable", "billing", "--reason", "moving it", "--by", "ann"];
    let disabled = run(&server, &disable).expect_code(0).stdout;
    for line in ["state        disabled", "because      disabled by ann, API key 1 of default: moving it"] {
        assert!(disabled.lines().any(|found| found == line), "{line:?} is not in {disabled}");
    }
    let shown = run(&server, &["webhooks", "show", "billing", "--json"]).expect_code(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["is_enabled"], false);
    let enabled = run(&server, &["webhooks", "enable", "billing"]).expect_code(0).stdout;
    assert!(enabled.contains("state        enabled") && !enabled.contains("because"), "{enabled}");
    run(&server, &["webhooks", "show", "none"]).expect_code(1).expect_error(&["no webhook", "301"]);
}

#[test]
fn the_event_log_is_lines_of_json_without_data() {
    let server = server();
    run(&server, &["append", "orders", "\"a secret\""]).expect_code(0);
    let line = server.wait_for_note("\"stage\":\"settled\"");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["target"], &line["channel"]), (&"tidewire::events".into(), &"orders".into()));
    assert_eq!((&line["group"], &line["outcome"]), (&"billing".into(), &"retry".into()), "{line}");
    assert!(line["latency_us"].is_u64() && !line.to_string().contains("secret"), "{line}");
}
