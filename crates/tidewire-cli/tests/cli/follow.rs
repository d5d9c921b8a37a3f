//! Publish, append and tail against a running server, over `kill -9` too.

use serde_json::{Value, json};

use crate::running::{Running, Server, run_with_input};

/// The secret and key are 16 bytes, the least that settings may have.
const STRICT: &str = r#"
[tenants.default]
api_keys = ["dev-api-key-long"]
token_secrets = ["dev-token-secret"]

[[tenants.default.channels]]
pattern = "news"
subscribe = "authenticated"

[[tenants.default.channels]]
pattern = "short"
subscribe = "authenticated"
keep = { events = 10, age = "1h" }
"#;

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Lines of standard input, one number each.
fn numbers(range: std::ops::RangeInclusive<u64>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

/// The tail prints these next: each once, in order.
#[track_caller]
fn expect_numbers(tail: &Running, range: std::ops::RangeInclusive<u64>) {
    for number in range {
        let line: Value = serde_json::from_str(&tail.line()).unwrap();
        let number = json!(number);
        assert_eq!((line.get("data"), line.get("offset")), (Some(&number), Some(&number)), "{line}");
    }
}

#[test]
fn what_is_appended_is_kept_and_what_is_published_is_not() {
    let server = Server::dev("memory:");
    let appended = server.run(&["append", "orders", r#"{"n": 1}"#, "--json"]).expect_code(0).stdout;
    let [receipt] = &json_lines(&appended)[..] else { panic!("{appended}") };
    assert_eq!((&receipt["channel"], &receipt["offset"]), (&json!("orders"), &json!(1)));
    assert_eq!(server.run(&["publish", "orders", "2"]).expect_code(0).stdout, "published to orders\n");
    run_with_input(server.command(&["append", "orders", "-"]), "[\n3\n]\n").expect_code(0);

    let tail = server.run(&["tail", "orders", "--from-start", "--count", "2"]).expect_code(0);
    assert_eq!(tail.stdout, "       1  {\"n\": 1}\n       2  [ 3 ]\n");
    let position = format!("{}:1", receipt["epoch"].as_str().unwrap());
    let since =
        server.run(&["tail", "orders", "--since", &position, "--count", "1", "--json"]).expect_code(0);
    let [line] = &json_lines(&since.stdout)[..] else { panic!("{since:?}") };
    assert_eq!(line, &json!({"channel": "orders", "offset": 2, "epoch": receipt["epoch"], "data": [3]}));
    assert_eq!(since.stderr, "");
}

#[test]
fn a_tail_sees_live_events_as_they_come() {
    let server = Server::dev("memory:");
    server.run(&["append", "orders", "1"]).expect_code(0);
    let tail = server.tail(&["orders", "--from-start", "--count", "3"]);
    assert_eq!(tail.line(), "       1  1");
    // It printed what is kept, so from here on it listens.
    server.run(&["publish", "orders", r#""now""#]).expect_code(0);
    server.run(&["append", "orders", "2"]).expect_code(0);
    assert_eq!([tail.line(), tail.line()], ["    live  \"now\"", "       2  2"]);
}

#[test]
fn a_repeated_import_keeps_each_event_once() {
    let server = Server::dev("memory:");
    let import = || server.command(&["append", "orders", "-", "--lines", "--idempotency-key", "import"]);
    let first = run_with_input(import(), "1\n\n2\noops\n3\n");
    first
        .expect_code(1)
        .expect_error(&["line 4 of standard input, after 2 events appended", "oops is not JSON"]);
    let second = run_with_input(import(), "1\n\n2\n3\n4\n").expect_code(0);
    assert_eq!(second.stdout, "appended 4 events to orders, the last at offset 4\n");
    let tail = server.run(&["tail", "orders", "--from-start", "--count", "4"]).expect_code(0);
    assert_eq!(tail.stdout, "       1  1\n       2  2\n       3  3\n       4  4\n");
}

#[test]
fn a_tail_goes_on_over_kill_9_and_prints_each_event_once_in_order() {
    let mut server = Server::dev("file:");
    let import = ["append", "orders", "-", "--lines", "--idempotency-key", "import"];
    let tail = server.tail(&["orders", "--from-start", "--json"]);

    for kill in 0..3 {
        // The server dies while the import runs, somewhere between two events or in the middle of one.
        let (first, end) = (kill * 200 + 1, (kill + 1) * 200);
        let importing = {
            let command = server.command(&import);
            std::thread::spawn(move || run_with_input(command, &numbers(1..=end)))
        };
        expect_numbers(&tail, first..=first + 99);
        server.kill();
        let interrupted = importing.join().unwrap();
        assert!(matches!(interrupted.code, Some(0 | 1)), "{interrupted:?}");
        tail.wait_for_note("connection lost");
        server.restart();
        run_with_input(server.command(&import), &numbers(1..=end)).expect_code(0);
        expect_numbers(&tail, first + 100..=end);
        assert_eq!(tail.wait_for_note("").split(',').next(), Some("connected again"));
    }
}

#[test]
fn a_tail_tells_that_an_engine_forgot_and_goes_on() {
    let mut server = Server::dev("memory:");
    server.run(&["append", "orders", "1"]).expect_code(0);
    let tail = server.tail(&["orders", "--from-start", "--json"]);
    expect_numbers(&tail, 1..=1);
    server.kill();
    server.restart();
    tail.wait_for_note("gap: the stream lost its history");
    server.run(&["append", "orders", "1"]).expect_code(0);
    expect_numbers(&tail, 1..=1);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_tail_with_success() {
    let server = Server::dev("memory:");
    server.run(&["append", "orders", "1"]).expect_code(0);
    let mut tail = server.tail(&["orders", "--from-start"]);
    tail.line();
    tail.interrupt();
    assert_eq!(tail.code(), Some(0));
}

#[test]
fn a_tail_whose_reader_left_ends_with_success() {
    let server = Server::dev("memory:");
    let mut tail = server.command(&["tail", "orders", "--from-start"]).spawn().unwrap();
    drop(tail.stdout.take());
    server.run(&["append", "orders", "1"]).expect_code(0);
    let done = tail.wait_with_output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap()), (Some(0), String::new()));
}

#[test]
fn refusals_say_what_to_do() {
    let server = Server::with_settings(STRICT);
    let token = server.run(&["token", "--user", "ann", "--dev"]).expect_code(0).stdout;
    let token = token.trim();
    let key = ["--api-key", "dev-api-key-long"];
    let keyed = |arguments: &[&str]| server.run(&[arguments, &key].concat());

    server.run(&["append", "short", "1"]).expect_code(1).expect_error(&["does not accept this API key"]);
    keyed(&["append", "nowhere", "1"]).expect_code(1).expect_error(&["(error 102)"]);
    keyed(&["append", "news", "1"]).expect_code(1).expect_error(&["keeps nothing", "`keep`"]);
    server.run(&["tail", "short"]).expect_code(1).expect_error(&["(code 3500)", "--token"]);
    server.run(&["tail", "short", "--token", "forged"]).expect_code(1).expect_error(&["token_secrets"]);
    server.run(&["tail", "nowhere", "--token", token]).expect_code(1).expect_error(&["no channel rule"]);
}

#[test]
fn a_gap_is_told_where_events_are_not_kept_any_more() {
    let server = Server::with_settings(STRICT);
    let token = server.run(&["token", "--user", "ann", "--dev"]).expect_code(0).stdout;
    let append = ["append", "short", "-", "--lines", "--api-key", "dev-api-key-long"];
    run_with_input(server.command(&append), &numbers(1..=30)).expect_code(0);
    let tail = |arguments: &[&str]| {
        let common = ["tail", "short", "--count", "10", "--json", "--token", token.trim()];
        server.run(&[&common, arguments].concat()).expect_code(0)
    };
    let offsets =
        |text: &str| json_lines(text).iter().map(|line| line["offset"].as_u64()).collect::<Vec<_>>();

    let since = tail(&["--since", "5"]);
    assert_eq!(since.stderr, "gap: offsets 6 to 20 are not kept any more\n");
    assert_eq!(offsets(&since.stdout), (21..=30).map(Some).collect::<Vec<_>>());
    let oldest = tail(&["--from-start"]);
    assert_eq!((oldest.stderr.as_str(), offsets(&oldest.stdout)), ("", offsets(&since.stdout)));
}

#[test]
fn how_a_follower_ended_is_told() {
    let server = Server::dev("memory:");
    server.run(&["append", "orders", "1"]).expect_code(0);
    server.run(&["tail", "orders", "--from-start", "--count", "1"]).expect_code(0);
    let shown = loop {
        let done = server.run(&["closed", "--code", "1000", "--json"]).expect_code(0);
        if !done.stdout.is_empty() {
            break done.stdout;
        }
    };
    let closed: serde_json::Value = serde_json::from_str(shown.trim()).unwrap();
    assert_eq!((&closed["code"], &closed["transport"]), (&1000.into(), &"websocket".into()));
    let table = server.run(&["closed"]).expect_code(0);
    assert!(table.stdout.contains("OPEN FOR") && table.stdout.contains("1000"), "{}", table.stdout);
    server.run(&["closed", "--user", "nobody"]).expect_code(0).expect_error(&["no connection has ended"]);
    server.run(&["closed", "--limit", "0"]).expect_code(2);
}

#[test]
fn a_tail_of_a_user_tells_what_goes_on_and_goes_on_after_a_restart() {
    let mut server = Server::dev("memory:");
    let token = server.run(&["token", "--user", "ann", "--dev"]).expect_code(0).stdout;
    let follow = |server: &Server| {
        let arguments = ["tail", "orders", "--from-start", "--count", "1", "--token", token.trim()];
        server.run(&["append", "orders", r#"{"n": 1}"#]).expect_code(0);
        server.run(&arguments).expect_code(0);
    };
    let json = server.tail(&["--user", "ann", "--json", "--data", "--count", "5"]);
    let text = server.tail(&["--user", "ann"]);
    let watching: Value = serde_json::from_str(&json.line()).unwrap();
    assert_eq!((&watching["what"], &watching["count"]), (&json!("watching"), &json!(0)));
    assert!(text.line().ends_with("watches, 0 open now"));
    follow(&server);
    let lines: Vec<Value> = (0..5).map(|_| serde_json::from_str(&json.line()).unwrap()).collect();
    let said: Vec<_> =
        lines.iter().map(|line| format!("{} {}", line["what"], line["kind"]).replace('"', "")).collect();
    assert_eq!(said, ["opened null", "reply connect", "command subscribe", "reply subscribe", "closed null"]);
    assert_eq!(lines[4]["code"], 1000);
    let mut json = json;
    assert_eq!(json.code(), Some(0), "it has told enough");
    assert!(text.line().ends_with("  opened"));
    assert!(text.line().contains("  < connect #1"));
    assert!(text.line().ends_with("  > subscribe #2 orders"));
    assert!(text.line().ends_with("  < subscribe #2 count 1"));
    assert!(text.line().ends_with("  closed 1000"));

    server.kill();
    text.wait_for_note("connection lost");
    server.restart();
    text.wait_for_note("connected again");
    while !text.line().contains("watches") {}
    follow(&server);
    while !text.line().contains("closed 1000") {}
    text.interrupt();
    let mut text = text;
    assert_eq!(text.code(), Some(0));
}

#[test]
fn a_tail_of_a_user_needs_a_key_and_nothing_of_a_channel() {
    let server = Server::dev("memory:");
    server.run(&["tail"]).expect_code(2).expect_error(&["CHANNEL"]);
    server.run(&["tail", "orders", "--user", "ann"]).expect_code(2).expect_error(&["--user"]);
    server.run(&["tail", "orders", "--data"]).expect_code(2).expect_error(&["--data"]);
    server.run(&["tail", "--user", "ann", "--from-start"]).expect_code(2).expect_error(&["--from-start"]);
    let wrong = ["tail", "--user", "ann", "--api-key", "wrong"];
    server.run(&wrong).expect_code(1).expect_error(&["does not accept this API key"]);
    let mut without = server.command(&["tail", "--user", "ann"]);
    without.env_remove("TIDEWIRE_API_KEY");
    run_with_input(without, "").expect_code(2).expect_error(&["no API key"]);
    let nowhere = ["tail", "--user", "ann", "--url", "http://127.0.0.1:9"];
    server.run(&nowhere).expect_code(1).expect_error(&["no server at"]);
}
