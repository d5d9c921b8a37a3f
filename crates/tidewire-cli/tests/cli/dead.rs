//! Groups, dead letters and traces from the command line, against a running server.

use serde_json::{Value, json};

use crate::running::{Server, run};

const GROUP: &str = "/v1/channels/orders/groups/billing";

/// A call of the REST API, as a worker of another language makes it.
fn post(server: &Server, path: &str, body: &Value) -> Value {
    let agent = ureq::Agent::new_with_defaults();
    let request = agent.post(format!("{}{path}", server.url)).header("X-API-Key", "dev-api-key");
    let mut response = request.send(body.to_string()).unwrap();
    serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
}

/// A server whose group `billing` has rejected `count` events of `orders`.
fn with_dead_letters(count: u64) -> Server {
    let server = Server::dev("memory:");
    server.run(&["groups", "declare", "orders", "billing", "--start", "earliest"]).expect_code(0);
    for number in 1..=count {
        server.run(&["append", "orders", &number.to_string()]).expect_code(0);
        let fetched = post(&server, &format!("{GROUP}/fetch"), &json!({"wait_ms": 10_000}));
        let id = &fetched["deliveries"][0]["id"];
        let outcome = json!({"id": id, "outcome": "reject", "reason": format!("card {number} declined")});
        let settled = post(
            &server,
            &format!("{GROUP}/settle"),
            &json!({"lease": fetched["lease"], "outcomes": [outcome]}),
        );
        assert_eq!(settled["settled"], 1, "{settled}");
    }
    while status(&server)["dead_letters"] != count {}
    server
}

fn status(server: &Server) -> Value {
    let shown = server.run(&["groups", "show", "orders", "billing", "--json"]).expect_code(0);
    serde_json::from_str(&shown.stdout).unwrap()
}

#[test]
fn groups_are_made_listed_shown_moved_and_deleted() {
    let server = Server::dev("memory:");
    let declare = ["groups", "declare", "orders", "billing", "--start", "earliest"];
    let made = server.run(&declare).expect_code(0).stdout;
    assert!(made.starts_with("made group billing of orders: next is "), "{made}");
    assert!(server.run(&declare).expect_code(0).stdout.starts_with("found group billing"));
    server.run(&["append", "orders", "1"]).expect_code(0);
    let list = server.run(&["groups", "list", "orders"]).expect_code(0).stdout;
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[0][0], lines[1][0], lines[1][1]), ("GROUP", "billing", "1"), "{list}");
    let shown = server.run(&["groups", "show", "orders", "billing"]).expect_code(0);
    assert!(shown.stdout.contains("lag          1 events"), "{shown:?}");
    assert!(shown.stderr.contains("no session works on it"), "{shown:?}");

    let seek = ["groups", "seek", "orders", "billing", "latest", "--by", "ann"];
    let preview = server.run(&[&seek[..], &["--preview"]].concat()).expect_code(0).stdout;
    assert!(
        preview.starts_with("would move from ") && preview.ends_with("1 events are passed over\n"),
        "{preview}"
    );
    assert!(server.run(&seek).expect_code(0).stdout.starts_with("moved from "));
    let audit = server.run(&["groups", "audit", "orders", "billing"]).expect_code(0).stdout;
    assert!(audit.contains("seek") && audit.contains("ann, API key 1 of default"), "{audit}");

    server.run(&["groups", "delete", "orders", "billing"]).expect_code(0);
    server.run(&["groups", "show", "orders", "billing"]).expect_code(1).expect_error(&["no group", "301"]);
    let none = server.run(&["groups", "list", "orders"]).expect_code(0);
    assert_eq!((&*none.stdout, &*none.stderr), ("", "channel orders has no groups\n"));
}

#[test]
fn dead_letters_are_worked_through() {
    let server = with_dead_letters(3);
    let reasons = server.run(&["dead", "reasons", "orders", "billing"]).expect_code(0).stdout;
    let row: Vec<&str> = reasons.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], &row[5..]), ("3", "rejected", &["card", "#", "declined"][..]), "{reasons}");
    let list =
        server.run(&["dead", "list", "orders", "billing", "--limit", "2", "--json"]).expect_code(0).stdout;
    let letters: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((letters.len(), &letters[0]["reason"]), (2, &json!("card 1 declined")));
    let table =
        server.run(&["dead", "list", "orders", "billing", "--since", "1h", "--limit", "2"]).expect_code(0);
    assert!(table.stdout.starts_with("ID ") && table.stderr.contains("there are more"), "{table:?}");

    let id = letters[0]["id"].as_str().unwrap();
    let shown = server.run(&["dead", "show", "orders", "billing", id]).expect_code(0).stdout;
    assert!(
        shown.contains("why          rejected: card 1 declined") && shown.contains("data         1"),
        "{shown}"
    );
    let event = letters[0]["event"]["id"].as_str().unwrap();
    let trace = server.run(&["trace", "orders", event]).expect_code(0).stdout;
    assert!(trace.contains("billing") && trace.contains("card 1 declined"), "{trace}");

    let replay = ["dead", "replay", "orders", "billing", "--id", id];
    let dry = server.run(&[&replay[..], &["--dry-run"]].concat()).expect_code(0).stdout;
    assert_eq!(dry, "would have replayed 1 dead letters\n");
    let elsewhere = server.run(&[&replay[..], &["--to", "repair", "--rate", "10"]].concat()).expect_code(0);
    assert_eq!(elsewhere.stdout, "replayed 1 dead letters\n");
    let repair = server.run(&["tail", "repair", "--from-start", "--count", "1"]).expect_code(0).stdout;
    assert_eq!(repair, "       1  1\n");
    assert_eq!(status(&server)["dead_letters"], 2);

    server
        .run(&["groups", "delete", "orders", "billing"])
        .expect_code(1)
        .expect_error(&["2 dead letters", "--force"]);
    let purge = ["dead", "purge", "orders", "billing"];
    server.run(&purge).expect_code(2).expect_error(&["--all"]);
    let kept = server.run(&[&purge[..], &["--before", "1h", "--json"]].concat()).expect_code(0).stdout;
    assert_eq!(kept, "{\"count\":0}\n");
    let purged = server.run(&[&purge[..], &["--reason", "card # declined"]].concat()).expect_code(0).stdout;
    assert_eq!(purged, "purged 2 dead letters\n");
    let none = server.run(&["dead", "list", "orders", "billing"]).expect_code(0);
    assert_eq!((&*none.stdout, &*none.stderr), ("", "no dead letters\n"));
}

#[test]
fn what_cannot_be_is_told_with_the_way_to_write_it() {
    let server = Server::dev("memory:");
    run(&["dead", "list", "orders", "billing"]).expect_code(2).expect_error(&["--api-key"]);
    server
        .run(&["dead", "list", "orders", "billing", "--since", "yesterday"])
        .expect_code(2)
        .expect_error(&["15m, 2h, 7d"]);
    server.run(&["dead", "list", "orders", "none"]).expect_code(1).expect_error(&["no group", "none"]);
    server
        .run(&["groups", "declare", "orders", "billing", "--start", "soon"])
        .expect_code(1)
        .expect_error(&["earliest, latest, EPOCH:OFFSET"]);
    let unknown = "0199d3c4-e5f6-7890-abcd-ef0123456789";
    server.run(&["trace", "orders", unknown]).expect_code(1).expect_error(&["is not among offsets"]);
    server.run(&["trace", "orders", "first"]).expect_code(1).expect_error(&["not a UUID"]);
}
