//! Catalogs of events: from files and from a server, checked and exported.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::{Done, Server, run};

const KEY: &str = "key-of-the-tests-0123456789";

fn event(version: u32, schema: Value) -> Value {
    json!({"type": "order.placed", "version": version, "channel": "orders", "description": "An order.", "schema": schema})
}

fn catalog(events: &[Value]) -> String {
    json!({"catalog": 1, "events": events}).to_string()
}

fn first() -> Value {
    json!({"type": "object", "required": ["id"], "properties": {
        "id": {"type": "integer"}, "state": {"enum": ["open", "paid"]}, "note": {"type": "string"},
    }})
}

/// Two properties are there in another way.
fn broken() -> Value {
    json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}, "state": {"enum": ["open"]}}})
}

fn widened() -> Value {
    json!({"type": "object", "required": ["id"], "properties": {
        "id": {"type": ["integer", "string"]}, "state": {"enum": ["open", "paid", "sent"]}, "note": {"type": "string"},
    }})
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn catalog(&self, name: &str, events: &[Value]) -> String {
        std::fs::write(self.path(name), catalog(events)).unwrap();
        text(&self.path(name))
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn check(newer: &str, older: &str, more: &[&str]) -> Done {
    run(&[&["schema", "check", "--catalog", newer, "--against", older], more].concat())
}

#[test]
fn a_change_that_breaks_somebody_is_exit_code_1_with_the_way_out() {
    let files = Files::new();
    let older = files.catalog("older.json", &[event(1, first())]);
    let newer = files.catalog("newer.json", &[event(1, broken())]);
    let done = check(&newer, &older, &[]).expect_code(1).expect_error(&["2 changes break"]);
    let expected = "\
breaks order.placed version 1 at /properties/note: property \"note\" is gone
breaks order.placed version 1 at /properties/state: \"paid\" is gone
       -> leave version 1 as it was, make this version 2, and lift version 1 to it
";
    assert_eq!(done.stdout, expected);
    let done = check(&newer, &older, &["--json"]).expect_code(1);
    let line: Value = serde_json::from_str(done.stdout.lines().next().unwrap()).unwrap();
    let expected = json!({
        "type": "order.placed", "version": 1, "pointer": "/properties/note", "what": "property_removed",
        "text": "property \"note\" is gone", "breaking": true,
    });
    assert_eq!(line, expected);

    let both = files.catalog("both.json", &[event(1, broken()), event(2, broken())]);
    let done = check(&both, &older, &[]).expect_code(1);
    assert!(done.stdout.contains("version 2 is there for what is different"), "{done:?}");
    let gone = files.catalog("gone.json", &[]);
    let done = check(&gone, &older, &[]).expect_code(1);
    assert!(done.stdout.contains("keep order.placed while"), "{done:?}");
}

#[test]
fn what_breaks_nobody_is_one_line_and_exit_code_0() {
    let files = Files::new();
    let older = files.catalog("older.json", &[event(1, first())]);
    let newer = files.catalog("newer.json", &[event(1, widened()), event(2, broken())]);
    let done = check(&newer, &older, &[]).expect_code(0);
    assert_eq!(done.stdout, "compatible: 1 event type, 3 changes\n");
    let expected = "\
ok     order.placed version 1 at /properties/id: integer or string, was integer
ok     order.placed version 1 at /properties/state: \"sent\" is new
ok     order.placed version 2: the version is new
compatible: 1 event type, 3 changes
";
    assert_eq!(check(&newer, &older, &["--verbose"]).expect_code(0).stdout, expected);
    let done = check(&older, &older, &["--json"]).expect_code(0);
    assert_eq!(done.stdout, "");
}

#[test]
fn a_file_that_cannot_be_read_is_exit_code_2() {
    let files = Files::new();
    let good = files.catalog("good.json", &[]);
    std::fs::write(files.path("bad.json"), "{\"catalog\": 1, \"event\": []}").unwrap();
    let bad = text(&files.path("bad.json"));
    check(&good, &bad, &[]).expect_code(2).expect_error(&["bad.json", "unknown field `event`", "line 1"]);
    check(&good, "nowhere.json", &[]).expect_code(2).expect_error(&["nowhere.json: cannot be read"]);
    check("nowhere.json", &good, &[]).expect_code(2).expect_error(&["nowhere.json: cannot be read"]);
    run(&["schema", "check"]).expect_code(2).expect_error(&["--against"]);
    run(&["schema", "list"]).expect_code(2).expect_error(&["--api-key"]);
    run(&["schema", "export", "--asyncapi", "--typescript", "--catalog", &good]).expect_code(2);
}

#[test]
fn files_are_listed_shown_and_exported() {
    let files = Files::new();
    let file = files.catalog("events.json", &[event(1, first()), event(2, widened())]);
    let list = run(&["schema", "list", "--catalog", &file]).expect_code(0).stdout;
    let row: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["order.placed", "1,", "2", "orders", "An", "order."], "{list}");
    let shown = run(&["schema", "show", "order.placed", "--catalog", &file]).expect_code(0).stdout;
    assert!(shown.contains("version      2 of 1, 2\n") && shown.contains("\"sent\""), "{shown}");
    let shown = run(&["schema", "show", "order.placed", "--version", "1", "--json", "--catalog", &file]);
    assert_eq!(serde_json::from_str::<Value>(&shown.expect_code(0).stdout).unwrap(), event(1, first()));
    run(&["schema", "show", "order.lost", "--catalog", &file]).expect_code(1).expect_error(&["schema list"]);
    run(&["schema", "show", "order.placed", "--version", "3", "--catalog", &file])
        .expect_code(1)
        .expect_error(&["it has 1, 2"]);

    let document = run(&["schema", "export", "--asyncapi", "--title", "Shop", "--catalog", &file]);
    let document: Value = serde_json::from_str(&document.expect_code(0).stdout).unwrap();
    assert_eq!((&document["asyncapi"], &document["info"]["title"]), (&json!("3.0.0"), &json!("Shop")));
    let output = text(&files.path("events.ts"));
    let export = ["schema", "export", "--typescript", "--catalog", &file, "--output", &output];
    assert_eq!(run(&export).expect_code(0).stdout, "");
    let types = std::fs::read_to_string(&output).unwrap();
    assert!(types.contains("export interface OrderPlacedV1 {") && types.ends_with("}\n"), "{types}");
    let again = text(&files.path("again.json"));
    run(&["schema", "export", "--catalog", &file, "--output", &again]).expect_code(0);
    check(&again, &file, &["--verbose"]).expect_code(0);
    let nowhere = text(&files.path("no/such/folder.ts"));
    run(&["schema", "export", "--catalog", &file, "--output", &nowhere])
        .expect_code(1)
        .expect_error(&["cannot write"]);
}

#[test]
fn a_server_is_asked_where_no_file_is_given() {
    let files = Files::new();
    let file = files.catalog("events.json", &[event(1, first())]);
    let newer = files.catalog("newer.json", &[event(1, broken())]);
    let server = Server::with_settings(&format!(
        "[tenants.default]\napi_keys = [\"{KEY}\"]\nevents = {}\n",
        Value::from(file.as_str())
    ));
    let ask = |arguments: &[&str]| -> Done {
        server.command(arguments).env("TIDEWIRE_API_KEY", KEY).output().unwrap().into()
    };
    let list = ask(&["schema", "list", "--json"]).expect_code(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap()["versions"], json!([1]));
    ask(&["schema", "check", "--catalog", &newer]).expect_code(1).expect_error(&["2 changes break"]);
    ask(&["schema", "check", "--against", &file]).expect_code(0);
    let exported = ask(&["schema", "export"]).expect_code(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&exported).unwrap()["events"][0], event(1, first()));
}

#[test]
fn settings_that_name_no_catalog_are_told_by_config_check_and_at_start() {
    let files = Files::new();
    let settings = format!("[tenants.a]\nevents = {}\n", Value::from(text(&files.path("none.json"))));
    let file = crate::running::write(files.folder.path(), &settings);
    run(&["config", "check", &file]).expect_code(1).expect_error(&["tenants.a.events", "none.json"]);
    run(&["serve", "--engine", "memory:", "--listen", "127.0.0.1:0", "--config", &file])
        .expect_code(2)
        .expect_error(&["tenants.a.events", "cannot be read"]);
}
