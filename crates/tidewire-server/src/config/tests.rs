use super::*;

/// The manual with its examples switched on: lines such as `#pattern = ...` lose their `#`; prose has `# `.
fn manual_with_examples() -> String {
    let lines = DEFAULT_CONFIG.lines().map(|line| match line.strip_prefix('#') {
        Some(example) if example.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => example,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn error_of(text: &str) -> String {
    Config::from_toml("tidewire.toml", text).unwrap_err().to_string()
}

#[test]
fn the_manual_states_the_defaults() {
    assert_eq!(Config::from_toml("config.default.toml", DEFAULT_CONFIG).unwrap(), Config::default());
}

#[test]
fn every_setting_of_the_manual_is_read() {
    let config = Config::from_toml("config.default.toml", &manual_with_examples()).unwrap();
    let tenant = &config.tenants[DEFAULT_TENANT];
    assert_eq!(tenant.api_keys[0].expose(), "replace-me-replace-me");
    assert_eq!(tenant.token_secrets[0].expose(), "replace-me-replace-me");
    let keys = (&*tenant.jwks[0], tenant.jwks_ttl, tenant.jwks_allow_private);
    assert_eq!(keys, ("https://id.example.com/.well-known/jwks.json", Duration::from_secs(600), false));
    assert_eq!((tenant.token_audience.as_deref(), tenant.token_keys.len()), (Some("tidewire"), 0));
    let lifecycle = tenant.lifecycle.as_ref().unwrap();
    assert_eq!((&*lifecycle.channel, lifecycle.connections), ("lifecycle", true));
    assert_eq!(tenant.channels[1].tell, [Tell::Subscriptions, Tell::Occupancy]);
    assert_eq!(tenant.channels[1].subscribe, Who::Authenticated);
    assert_eq!(tenant.channels[1].ask.publish.as_deref(), Some("app"));
    let endpoint = &tenant.hooks.endpoints["app"];
    let defaults = HookEndpoint {
        client_headers: endpoint.client_headers.clone(),
        client_cookies: endpoint.client_cookies.clone(),
        headers: endpoint.headers.clone(),
        secrets: endpoint.secrets.clone(),
        ..HookEndpoint::at(endpoint.url.clone())
    };
    assert_eq!((endpoint, tenant.hooks.rpc.len()), (&defaults, 1));
    let webhook = &config.webhooks[0];
    assert_eq!((webhook.retries, webhook.disable_after), Default::default());
    let (events, age) = (1_000, Duration::from_secs(86_400));
    assert_eq!(
        tenant.channels[1].keep,
        Some(Keep { events, age, durability: Durability::Fast, at_bound: AtBound::Block })
    );
}

#[test]
fn a_durability_that_is_none_is_named() {
    let rule = "[[tenants.default.channels]]\npattern = \"*\"\nkeep = { events = 1, age = \"1h\", durability = \"two\" }";
    let error = error_of(rule);
    assert!(error.contains("\"two\"") && error.contains("replicated(1)"), "{error}");
}

#[test]
fn what_is_done_at_the_bound_is_read_by_its_name() {
    let rule = |at_bound: &str| {
        format!(
            "[[tenants.default.channels]]\npattern = \"*\"\nkeep = {{ events = 1, age = \"1h\", at_bound = \"{at_bound}\" }}"
        )
    };
    let config = Config::from_toml("tidewire.toml", &rule("drop-oldest")).unwrap();
    assert_eq!(config.tenants[DEFAULT_TENANT].channels[0].keep.unwrap().at_bound, AtBound::DropOldest);
    let error = error_of(&rule("drop"));
    assert!(error.contains("drop-oldest"), "{error}");
}

#[test]
fn a_cache_needs_a_kept_channel() {
    let rule =
        |rest: &str| format!("[[tenants.default.channels]]\npattern = \"*\"\nrecovery = \"cache\"\n{rest}");
    let config = Config::from_toml("tidewire.toml", &rule("keep = { events = 1, age = \"1h\" }")).unwrap();
    assert_eq!(config.tenants[DEFAULT_TENANT].channels[0].recovery, RecoveryMode::Cache);
    assert!(error_of(&rule("")).contains("recovery = \"cache\" needs a kept channel: add keep"));
}

#[test]
fn rules_of_the_file_come_before_the_open_one_of_dev() {
    let rule = "[[tenants.default.channels]]\npattern = \"orders\"\nsubscribe = \"authenticated\"";
    let config = Config::from_toml("tidewire.toml", rule).unwrap().into_dev();
    let patterns: Vec<_> =
        config.tenants[DEFAULT_TENANT].channels.iter().map(|rule| &*rule.pattern).collect();
    assert_eq!(patterns, ["orders", "*"]);
}

/// Serde lists the fields of a section when it meets an unknown one: each must stand in the manual.
#[test]
fn every_field_is_in_the_manual() {
    let manual = manual_with_examples();
    let sections = [
        "",
        "[limits]\n",
        "[timing]\n",
        "[websocket]\n",
        "[tls]\n",
        "[edge]\n",
        "[metrics]\n",
        "[log]\n",
        "[[webhooks]]\n",
        "[[webhooks]]\n[webhooks.retries]\n",
        "[[webhooks]]\n[webhooks.disable_after]\n",
        "[tenants.default]\n",
        "[tenants.default.lifecycle]\n",
        "[[tenants.default.channels]]\n",
        "[[tenants.default.channels]]\npattern = \"a\"\n[tenants.default.channels.keep]\n",
        "[[tenants.default.channels]]\npattern = \"a\"\n[tenants.default.channels.ask]\n",
        "[tenants.default.hooks]\n",
        "[[tenants.default.hooks.rpc]]\n",
        "[tenants.default.hooks.endpoints.app]\n",
        "[tenants.default.hooks.endpoints.app]\nurl = \"a\"\n[tenants.default.hooks.endpoints.app.breaker]\n",
    ];
    for section in sections {
        let error = toml::from_str::<Config>(&format!("{section}zz_unknown = 1")).unwrap_err();
        let fields: Vec<&str> = error.message().split('`').skip(3).step_by(2).collect();
        assert!(!fields.is_empty(), "{section}: {error}");
        for field in fields {
            let is_present = manual.lines().any(|line| {
                let line = line.trim_start();
                line.starts_with(&format!("{field} ="))
                    || line.contains(&format!("{{ {field} ="))
                    || line.contains(&format!(", {field} ="))
                    || line.trim_start_matches('[').starts_with(field)
                    || line.starts_with('[') && line.split(['.', ']']).any(|part| part == field)
            });
            assert!(is_present, "field {field} of section {section:?} is not in config.default.toml");
        }
    }
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_known_one() {
    assert_eq!(
        error_of("\nlsten = \"a\""),
        "tidewire.toml:2: unknown key \"lsten\"; did you mean \"listen\"?"
    );
    assert_eq!(
        error_of("[limits]\noutbox_byte_max = 1"),
        "tidewire.toml:2: unknown key \"outbox_byte_max\"; did you mean \"outbox_bytes_max\"?"
    );
    assert_eq!(
        error_of("[[tenants.a.channels]]\npatern = \"a\""),
        "tidewire.toml:2: unknown key \"patern\"; did you mean \"pattern\"?"
    );
    assert_eq!(error_of("qqq = 1"), "tidewire.toml:1: unknown key \"qqq\"; see `tidewire config default`");
}

#[test]
fn a_wrong_value_is_told_with_its_place() {
    assert!(error_of("[limits]\noutbox_bytes_max = \"big\"").starts_with("tidewire.toml:2: invalid type"));
    assert!(error_of("[timing]\nping_every = \"25\"").starts_with("tidewire.toml:2: duration \"25\" is not"));
    assert!(error_of("listen = ").starts_with("tidewire.toml:1: "));
    assert_eq!(
        error_of("[limits]\noutbox_bytes_max = 0"),
        "tidewire.toml: limits.outbox_bytes_max must be 1 or more"
    );
    assert!(error_of("[timing]\npong_within = \"30s\"").contains("timing.pong_within must be shorter"));
    assert!(error_of("[timing]\nwrite_within = \"0s\"").contains("timing.write_within must be 1ms or more"));
    assert!(error_of("environment = \"Prod!\"").contains("environment"));
}

#[test]
fn settings_of_the_edge_that_cannot_work_are_told() {
    let fine = "[edge]\nallow = [\"10.0.0.0/8\", \"::1\"]\nproxy_header = \"forwarded\"\n[tls]\ncert = \"a\"\nkey = \"b\"";
    let config = Config::from_toml("tidewire.toml", fine).unwrap();
    assert_eq!((config.edge.allow.len(), config.edge.proxy_header), (2, ProxyHeader::Forwarded));
    assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    for (lines, problem) in [
        (
            "[edge]\ndeny = [\"10.0.0.1/8\"]",
            "tidewire.toml:2: \"10.0.0.1/8\" has bits behind its first 8; write",
        ),
        (
            "[edge]\nallow = [\"localhost\"]",
            "tidewire.toml:2: \"localhost\" is neither an address nor a range",
        ),
        (
            "[edge]\ntrusted_proxies = [\"10.0.0.1\", \"0.0.0.0/0\"]",
            "edge.trusted_proxies: 0.0.0.0/0 is everybody",
        ),
        ("[edge]\nproxy_header = \"via\"", "tidewire.toml:2: unknown variant `via`"),
        ("[edge]\nconnections_burst = 0", "edge.connections_burst must be 1 or more"),
        ("[edge]\nrefuse_for = \"0s\"", "edge.refuse_for must be 1ms or more"),
        ("[edge]\ntrusted_proxy = []", "did you mean \"trusted_proxies\"?"),
        ("[tls]\ncert = \"a\"", "missing field `key`"),
        ("[timing]\nhandshake_within = \"0s\"", "timing.handshake_within must be 1ms or more"),
    ] {
        let error = error_of(lines);
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn a_weak_or_shared_key_is_refused() {
    assert_eq!(
        error_of("[tenants.a]\napi_keys = [\"short\"]"),
        "tidewire.toml: tenants.a.api_keys: a key is shorter than 16 bytes"
    );
    let shared =
        "[tenants.a]\napi_keys = [\"0123456789abcdef\"]\n[tenants.b]\napi_keys = [\"0123456789abcdef\"]";
    assert!(error_of(shared).contains("the same key is in tenants.a"));
    assert!(error_of("[tenants.a]\nanonymous = true").contains("only tenant \"default\""));
}

#[test]
fn settings_of_tokens_that_cannot_work_are_told() {
    let tenant = |lines: &str| format!("[tenants.a]\n{lines}");
    let fine =
        "token_secrets = [\"0123456789abcdef\"]\njwks = [\"https://id.example.com/jwks\"]\njwks_ttl = \"1h\"";
    let config = Config::from_toml("tidewire.toml", &tenant(fine)).unwrap();
    assert_eq!(config.tenants["a"].jwks_ttl, Duration::from_secs(3_600));
    for (lines, problem) in [
        ("token_secret = \"0123456789abcdef\"", "did you mean \"token_secrets\"?"),
        (
            "token_secrets = [\"0123456789abcdef\", \"short\"]",
            "token_secrets: a secret is shorter than 16 bytes",
        ),
        ("jwks = [\"http://id\"]", "jwks[0] is http: write https, or jwks_allow_private = true"),
        ("jwks = [\"https://user:word@id\"]", "jwks[0] holds a user or password"),
        ("jwks = [\"jwks.json\"]", "jwks[0] cannot be used"),
        ("jwks_ttl = \"0s\"", "jwks_ttl must be 1ms or more"),
        ("token_issuer = \"\"", "token_issuer is empty"),
        (
            "token_keys = [\"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\"]",
            "token_keys has 9 entries, at most 8",
        ),
    ] {
        let error = error_of(&tenant(lines));
        assert!(error.contains(problem), "{error}");
    }
    let plain = tenant("jwks = [\"http://id\"]\njwks_allow_private = true");
    assert!(Config::from_toml("tidewire.toml", &plain).is_ok());
}

#[test]
fn a_bad_rule_is_told_by_its_number() {
    let rule = "[[tenants.a.channels]]\npattern = \"ok\"\n[[tenants.a.channels]]\npattern = \"no spaces\"";
    assert!(error_of(rule).starts_with("tidewire.toml: tenants.a.channels[1].pattern: "));
}

#[test]
fn secrets_are_never_shown() {
    let config = Config { engine: EngineUrl::from("redis://user:p@ss@host:6379/1"), ..Config::dev() };
    let shown = format!("{config:?}") + &toml::to_string(&config).unwrap();
    assert!(
        !shown.contains(DEV_API_KEY) && !shown.contains(DEV_TOKEN_SECRET) && !shown.contains("p@ss"),
        "{shown}"
    );
    assert!(shown.contains("redis://[hidden]@host:6379/1"));
}

#[test]
fn the_url_of_an_engine_is_shown_without_its_passwords() {
    for (url, shown) in [
        ("file:data?sync=always", "file:data?sync=always"),
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("redis://app:p@ss?w/ord@host/1?ca=/ca.pem", "redis://[hidden]@host/1?ca=/ca.pem"),
        ("unix:///redis.sock?db=1&password=p@ss", "unix://[hidden]@ss"),
        (
            "unix:///redis.sock?user=app&password=secret&db=1",
            "unix:///redis.sock?user=app&password=[hidden]&db=1",
        ),
        (
            "redis-sentinel://:secret@a,b/main?sentinel_user=u&sentinel_password=secret",
            "redis-sentinel://[hidden]@a,b/main?sentinel_user=u&sentinel_password=[hidden]",
        ),
    ] {
        assert_eq!(EngineUrl::from(url).to_string(), shown);
    }
}

#[test]
fn durations_are_written_as_they_are_read() {
    for text in ["1ms", "25s", "5m", "24h", "7d", "90s"] {
        let keep = format!("events = 1\nage = \"{text}\"\n");
        let parsed: Keep = toml::from_str(&keep).unwrap();
        let again: Keep = toml::from_str(&toml::to_string(&parsed).unwrap()).unwrap();
        assert_eq!(parsed, again);
    }
    for text in ["", "5", "s", "-1s", "1.5s", "99999999999999999999s", "1w"] {
        assert_eq!(text::duration::parse(text), None, "{text}");
    }
}

#[test]
fn a_webhook_that_cannot_work_is_told_by_its_number() {
    let webhook = |change: (&str, &str)| {
        let mut lines = vec![
            ("channel", "\"orders\""),
            ("name", "\"billing\""),
            ("start", "\"latest\""),
            ("url", "\"https://example.com/hook\""),
            ("secrets", "[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]"),
        ];
        lines.retain(|(key, _)| *key != change.0);
        lines.push(change);
        let lines = lines.into_iter().map(|(key, value)| format!("{key} = {value}\n"));
        format!("[[webhooks]]\n{}", lines.collect::<String>())
    };
    let fine = webhook(("timeout", "\"1s\""));
    assert_eq!(Config::from_toml("tidewire.toml", &fine).unwrap().webhooks.len(), 1);
    assert!(error_of(&format!("{fine}{fine}")).contains("webhooks[1].name: tenant \"default\" has another"));
    for (key, value, problem) in [
        ("url", "\"http://example.com\"", "url is http"),
        ("url", "\"ftp://example.com\"", "url is ftp"),
        ("url", "\"https://user:word@example.com\"", "url holds a user or password"),
        ("secrets", "[]", "secrets: one is needed"),
        ("secrets", "[\"whsec_c2hvcnQ=\"]", "secrets[0] is 5 bytes"),
        ("secrets", "[\"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]", "secrets[0] does not begin with whsec_"),
        ("name", "\"no spaces\"", "name: "),
        ("partitions", "129", "partitions must be 128"),
        ("concurrency", "0", "concurrency must be more than 0"),
    ] {
        let error = error_of(&webhook((key, value)));
        assert!(error.starts_with("tidewire.toml: webhooks[0].") && error.contains(problem), "{error}");
    }
}

#[test]
fn what_is_told_has_a_channel_that_keeps_it_and_that_no_client_writes() {
    let tenant = |rules: &str| {
        error_of(&format!("[tenants.default.lifecycle]\nchannel = \"told\"\nconnections = true\n{rules}"))
    };
    let rule = |more: &str| format!("[[tenants.default.channels]]\npattern = \"told\"\n{more}");
    let error = tenant("");
    assert!(error.contains("tenants.default.lifecycle.channel") && error.contains("add one"), "{error}");
    assert!(tenant(&rule("")).contains("has no keep"));
    let open = rule("publish = \"anyone\"\nkeep = { events = 1, age = \"1h\" }");
    assert!(tenant(&open).contains("set its publish to \"nobody\""));
    let untold = error_of("[[tenants.default.channels]]\npattern = \"a\"\ntell = [\"occupancy\"]");
    assert!(untold.contains("channels[0].tell") && untold.contains("lifecycle.channel"), "{untold}");
}

#[test]
fn hooks_that_cannot_work_are_told_by_their_key() {
    const URL: &str = "url = \"https://example.com/{hook}\"\n";
    let with = |tenant: &str, hooks: &str, endpoint: &str, rule: &str| {
        format!(
            "[tenants.{tenant}.hooks]\n{hooks}\n[tenants.{tenant}.hooks.endpoints.app]\n{endpoint}\n\
             [[tenants.{tenant}.channels]]\npattern = \"*\"\n{rule}\n"
        )
    };
    let fine = with("default", "connect = \"app\"\nrefresh = \"app\"", URL, "ask = { publish = \"app\" }");
    let config = Config::from_toml("tidewire.toml", &fine).unwrap();
    assert_eq!(config.tenants[DEFAULT_TENANT].hooks.connect.as_deref(), Some("app"));
    assert!(config.into_dev().tenants[DEFAULT_TENANT].hooks.endpoints.contains_key("app"));

    let endpoint = |more: &str| with("default", "", &format!("{URL}{more}"), "");
    for (text, problem) in [
        (with("shop", "connect = \"app\"", URL, ""), "tenants.shop.hooks.connect: a connection without"),
        (with("default", "refresh = \"app\"", URL, ""), "hooks.refresh: it is asked for"),
        (with("default", "send = \"other\"", URL, ""), "hooks.send: there is no endpoint \"other\""),
        (
            with("default", "rpc = [{ method = \"*\", endpoint = \"other\" }]", URL, ""),
            "hooks.rpc[0].endpoint: there is no endpoint",
        ),
        (
            with("default", "", URL, "ask = { subscribe = \"other\" }"),
            "channels[0].ask.subscribe: there is no endpoint \"other\"",
        ),
        (with("default", "", URL, "ask = { sub_refresh = \"app\" }"), "ask.sub_refresh: it is asked for"),
        (with("default", "", URL, "ask = { subscibe = \"app\" }"), "did you mean \"subscribe\""),
        (with("default", "", "url = \"http://example.com/\"", ""), "hooks.endpoints.app.url is http"),
        (with("default", "", "url = \"https://{hook}.example.com/\"", ""), "may stand in its path only"),
        (endpoint("timeout = \"0s\""), "timeout must be more than 0"),
        (endpoint("asks_max = 0"), "asks_max must be more than 0"),
        (endpoint("breaker = { failures = 0 }"), "breaker.failures must be 1 to 1000"),
        (endpoint("secrets = [\"short\"]"), "secrets[0] does not begin with whsec_"),
        (endpoint("client_headers = [\"no name\"]"), "client_headers: \"no name\" is no name of a header"),
        (endpoint("client_headers = [\"Host\"]"), "client_headers: host is set by the server itself"),
        (
            endpoint("headers = { webhook-signature = \"v1\" }"),
            "headers: webhook-signature is set by the server",
        ),
        (
            endpoint("headers = { Authorization = \"x\" }\nclient_headers = [\"authorization\"]"),
            "authorization is named twice",
        ),
        (endpoint("headers = { x = \"a\\nb\" }"), "the value of x cannot stand in a header"),
        (
            endpoint("client_headers = [\"cookie\"]\nclient_cookies = [\"a\"]"),
            "client_cookies: headers has \"cookie\" already",
        ),
    ] {
        let error = error_of(&text);
        assert!(error.contains(problem), "{error} does not say {problem}");
    }
    let shown =
        format!("{:?}", Config::from_toml("tidewire.toml", &endpoint("headers = { x = \"top-secret\" }")));
    assert!(!shown.contains("top-secret"), "{shown}");
}
