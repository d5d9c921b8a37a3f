//! Commands that need no server, or that say how they fail without one.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::Value;

use crate::running::{command, run, run_with_input, write};

/// An address where nobody listens: port 1 is privileged and unused.
const NOBODY: &str = "http://127.0.0.1:1";

fn claims(token: &str, secret: &str) -> Value {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["sub", "exp"]);
    decode::<Value>(token.trim(), &DecodingKey::from_secret(secret.as_bytes()), &validation).unwrap().claims
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_right() {
    run(&[]).expect_code(2).expect_error(&["Usage: tidewire <COMMAND>"]);
    run(&["pubish"]).expect_code(2).expect_error(&["'publish'"]);
    run(&["append", "orders", "1"]).expect_code(2).expect_error(&["--api-key", "TIDEWIRE_API_KEY"]);
    run(&["append", "orders", "1", "--lines", "--api-key", "k"]).expect_code(2).expect_error(&["write -"]);
    run(&["tail", "orders", "--since", "yesterday"]).expect_code(2).expect_error(&["EPOCH:OFFSET"]);
    run(&["tail", "orders", "--count", "0"]).expect_code(2);
    run(&["doctor", "--url", "https://a", "--ca", "none.pem"])
        .expect_code(2)
        .expect_error(&["--ca none.pem"]);
}

#[test]
fn data_that_is_not_json_is_refused_with_the_way_to_write_it() {
    run(&["append", "orders", "hello", "--api-key", "k"])
        .expect_code(2)
        .expect_error(&["hello is not JSON", r#"'"hello"'"#]);
    run(&["publish", "orders", "{n:1}", "--api-key", "k"]).expect_code(2).expect_error(&[r#"'{"n": 1}'"#]);
    let from_stdin = command(&["publish", "orders", "-", "--api-key", "k"]);
    run_with_input(from_stdin, "oops").expect_code(1).expect_error(&["standard input: oops is not JSON"]);
}

#[test]
fn no_server_is_told_with_the_command_that_starts_one() {
    let hint = ["no server at http://127.0.0.1:1", "`tidewire serve --dev`"];
    run(&["append", "orders", "1", "--api-key", "k", "--url", NOBODY]).expect_code(1).expect_error(&hint);
    run(&["tail", "orders", "--url", NOBODY]).expect_code(1).expect_error(&hint);
    let doctor = run(&["doctor", "--url", NOBODY]).expect_code(1).expect_error(&["1 of 1 checks failed"]);
    assert!(hint.iter().all(|part| doctor.stdout.contains(part)), "{doctor:?}");
}

#[test]
fn a_token_carries_its_claims_and_verifies() {
    let token = run(&["token", "--user", "ann", "--dev"]).expect_code(0).stdout;
    let plain = claims(&token, "dev-token-secret");
    assert_eq!((&plain["sub"], &plain["tenant"]), (&Value::from("ann"), &Value::from("default")));
    assert_eq!(plain["exp"].as_u64().unwrap() - plain["iat"].as_u64().unwrap(), 3_600);

    let secret = "a-secret-of-acme-only";
    let mut full = command(&["token", "--user", "ann", "--tenant", "acme", "--expires", "7d"]);
    let token = full.env("TIDEWIRE_TOKEN_SECRET", secret).output().unwrap().stdout;
    let full = claims(std::str::from_utf8(&token).unwrap(), secret);
    assert_eq!(full["tenant"], "acme");
    assert_eq!(full["exp"].as_u64().unwrap() - full["iat"].as_u64().unwrap(), 7 * 86_400);
}

#[test]
fn a_token_may_be_for_a_channel_and_have_more_claims() {
    let arguments =
        ["token", "--user", "ann", "--dev", "--channel", "news", "--claim", r#"info={"role":"editor"}"#];
    let token = run(&arguments).expect_code(0).stdout;
    let claims = claims(&token, "dev-token-secret");
    assert_eq!((&claims["sub"], &claims["channel"]), (&Value::from("ann"), &Value::from("news")));
    assert_eq!(claims["info"]["role"], "editor");
}

#[test]
fn a_token_that_no_server_would_accept_is_not_made() {
    let token = |arguments: &[&str]| run(&[&["token"], arguments].concat()).expect_code(2);
    token(&["--user", "ann"]).expect_error(&["--secret", "--dev"]);
    token(&["--user", "", "--dev"]).expect_error(&["names its user"]);
    token(&["--user", "ann", "--tenant", "a/b", "--dev"]).expect_error(&["--tenant"]);
    token(&["--user", "ann", "--expires", "soon", "--dev"]).expect_error(&["90s"]);
    token(&["--user", "ann", "--channel", "a b", "--dev"]).expect_error(&["--channel"]);
    token(&["--user", "ann", "--claim", "exp=1", "--dev"]).expect_error(&["another option"]);
    let short = token(&["--user", "ann", "--secret", "tooshort"]).expect_error(&["16"]);
    assert!(!short.stderr.contains("tooshort"), "a secret is never printed: {short:?}");
}

#[test]
fn the_default_settings_check_and_show_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let default = run(&["config", "default"]).expect_code(0).stdout;
    let file = write(folder.path(), &default);
    assert_eq!(run(&["config", "check", &file]).expect_code(0).stdout, format!("{file}: ok\n"));
    let shown = run(&["config", "show", &file]).expect_code(0).stdout;
    assert!(
        shown.contains("listen = \"127.0.0.1:8000\"") && shown.contains("ping_every = \"25s\""),
        "{shown}"
    );
}

#[test]
fn a_typo_in_the_settings_is_told_with_file_line_and_nearest_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "[timing]\nping_evry = \"5s\"\n");
    let place = format!("{file}:2");
    run(&["config", "check", &file]).expect_code(1).expect_error(&[&place, "ping_evry", "ping_every"]);
    run(&["config", "check", "/nowhere/tidewire.toml"])
        .expect_code(1)
        .expect_error(&["/nowhere/tidewire.toml"]);
}

#[test]
fn shown_settings_hide_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = ["key-key-key-key-key", "token-token-token", "password"];
    let settings = "engine = \"redis://user:password@127.0.0.1\"\n[tenants.acme]\n\
                    api_keys = [\"key-key-key-key-key\"]\ntoken_secrets = [\"token-token-token\"]\n";
    let file = write(folder.path(), settings);
    for format in [&["config", "show", &file][..], &["config", "show", &file, "--json"]] {
        let shown = run(format).expect_code(0).stdout;
        assert!(shown.contains("[hidden]") && shown.contains("acme"), "{shown}");
        assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).expect_code(0).stdout;
        assert!(["tidewire", "append", "from-start"].iter().all(|part| script.contains(part)), "{shell}");
    }
}
