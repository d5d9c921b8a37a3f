//! What a server is trusted with is in no log, answer or dump of settings.

use crate::running::{Server, run, write};

/// Secrets of the settings below. Each is one that nothing else says.
const SECRETS: [&str; 5] = [
    "api-key-0f3c5a7e9b1d",
    "token-secret-8a6c4e2f0b9d",
    "engine-password-5d7f9b1c3e",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "wrong-key-4b8e2d6f0a1c",
];

fn settings() -> String {
    let [api_key, token_secret, password, webhook, _] = SECRETS;
    format!(
        r#"
engine = "redis://user:{password}@127.0.0.1:1/0"
[tenants.default]
api_keys = ["{api_key}"]
token_secrets = ["{token_secret}"]
[[tenants.default.channels]]
pattern = "*"
subscribe = "anyone"
keep = {{ events = 10, age = "1h" }}
[[webhooks]]
channel = "orders"
name = "billing"
start = "latest"
url = "http://127.0.0.1:1/hook"
secrets = ["whsec_{webhook}"]
allow_private = true
"#
    )
}

#[track_caller]
fn expect_none_in(what: &str, text: &str, more: &[&str]) {
    for secret in SECRETS.iter().chain(more) {
        assert!(!text.contains(secret), "{secret} is in the {what}: {text}");
    }
}

fn forged(user: &str) -> String {
    run(&["token", "--user", user, "--secret", "another-secret-of-somebody"])
        .expect_code(0)
        .stdout
        .trim()
        .to_owned()
}

#[test]
fn no_secret_is_in_the_log_of_what_fails() {
    let server = Server::with_log(&settings(), "debug");
    let [api_key, token_secret, .., wrong_key] = SECRETS;
    let good = run(&["token", "--user", "ann", "--secret", token_secret]).expect_code(0).stdout;
    let (good, forged) = (good.trim(), forged("eve"));

    let mut said = String::new();
    for (arguments, key) in [
        (&["append", "orders", "1"][..], wrong_key),
        (&["append", "orders", "1"], api_key),
        (&["append", "bad name", "1"], api_key),
        (&["tail", "orders", "--from-start", "--count", "1", "--token", good], api_key),
        (&["webhooks", "show", "billing"], api_key),
        (&["webhooks", "test", "billing"], api_key),
        (&["doctor"], api_key),
        // The last, because the log is read up to it.
        (&["tail", "orders", "--token", &forged], api_key),
    ] {
        let done = server.command(arguments).env("TIDEWIRE_API_KEY", key).output().unwrap();
        said.push_str(&String::from_utf8(done.stdout).unwrap());
        said.push_str(&String::from_utf8(done.stderr).unwrap());
    }
    let signatures = [good, &forged].map(|token| token.rsplit('.').next().unwrap().to_owned());
    let signatures = signatures.each_ref().map(String::as_str);
    expect_none_in("answers", &said, &signatures);
    assert!(said.contains("does not accept this API key"), "{said}");

    let log = server.log_until("no key of the tenant signed the token");
    expect_none_in("log", &log, &signatures);
    assert!(log.contains("DEBUG"), "{log}");
}

#[test]
fn no_secret_is_in_a_dump_of_the_settings_or_an_error_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), &settings());
    let shown = run(&["config", "show", &file]).expect_code(0);
    assert!(shown.stdout.contains("[hidden]"), "{shown:?}");
    expect_none_in("settings shown", &format!("{shown:?}"), &[]);

    // The engine cannot be reached.
    let failed = run(&["serve", "--config", &file, "--listen", "127.0.0.1:0"]).expect_code(1);
    expect_none_in("error", &format!("{failed:?}"), &[]);

    for (good, bad) in [("api_keys = [", "api_keys = [7, "), ("pattern", "patern"), ("latest", "soon")] {
        let file = write(folder.path(), &settings().replacen(good, bad, 1));
        let failed = run(&["config", "check", &file]);
        assert_ne!(failed.code, Some(0), "{failed:?}");
        expect_none_in("error", &format!("{failed:?}"), &[]);
    }
}
