//! Rules about words: Redis stays in its engine, key names in one file, rejected names nowhere.

use super::source::{Line, Source};
use super::{File, Finding, Tree};

/// Where Rust code may say Redis, tests and comments apart: a path or the start of one, and why.
const REDIS_PLACES: &[(&str, &str)] = &[
    ("crates/tidewire/src/engine/redis", "the engine itself"),
    ("crates/tidewire/src/engine.rs", "declares the engines"),
    ("crates/tidewire/src/engine/embedded", "tells which engine can do what it cannot"),
    ("crates/tidewire/src/tidewire.rs", "chooses the engine by URL"),
    ("crates/tidewire-cli/src/doctor", "tells the operator what to change in Redis"),
    ("fleet/src/", "starts Redis for the tests"),
    ("fuzz/fuzz_targets/resp.rs", "fuzzes the decoder of what Redis sends"),
    ("xtask/src/", "hands Redis to the tests"),
];

/// Words that DESIGN gives another name, and that name. A type that its module keeps to itself may have them.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("Adapter", "Engine"),
    ("Backend", "Engine"),
    ("Broker", "Engine"),
    ("Driver", "Engine"),
    ("Message", "Event or Envelope"),
    ("Queue", "Stream"),
    ("Topic", "Channel"),
];

/// Words that say nothing about a type, private or not.
const EMPTY_WORDS: &[&str] = &[
    "Base", "Common", "Core", "Data", "Handler", "Helper", "Impl", "Info", "Manager", "Misc", "Util", "Utils",
];

const UNFINISHED: &[&str] = &["TODO", "FIXME"];

pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let path = source.path;
    let may_say_redis = REDIS_PLACES.iter().any(|(place, _)| path.starts_with(place));
    let mut findings = Vec::new();
    for line in &source.lines {
        if !may_say_redis && !line.is_test && says_redis(line) {
            findings.push(Finding::new(
                path,
                line.number,
                "redis is known only to its engine",
                "ask the engine seam; or add the place with its reason to REDIS_PLACES in xtask/src/tidy/words.rs",
            ));
        }
        if let Some((name, instead)) = rejected_type_name(&line.code) {
            findings.push(Finding::new(
                path,
                line.number,
                "one word per idea",
                format!("`{name}` is not a name of ours, name it by {instead}"),
            ));
        }
        if let Some(word) = bare_unfinished(&line.comment) {
            findings.push(Finding::new(path, line.number, "nothing unfinished", unfinished_instead(word)));
        }
    }
    findings
}

/// Key names in the Redis engine outside of its `keys.rs`, which is also where they are learned from.
pub(super) fn check_key_names(tree: &Tree) -> Vec<Finding> {
    const ENGINE: &str = "crates/tidewire/src/engine/redis";
    const KEYS: &str = "crates/tidewire/src/engine/redis/keys.rs";
    let Some(keys) = tree.files.iter().find(|file| file.path == KEYS) else {
        return Vec::new();
    };
    let segments = key_segments(&keys.text);
    let others = tree.files.iter().filter(|file| file.path.starts_with(ENGINE) && file.path != KEYS);
    others.flat_map(|file| key_names_in(file, &segments)).collect()
}

/// The parts of key names that strings in `keys.rs` spell out between colons, with the colons: `:stream:`.
fn key_segments(keys: &str) -> Vec<String> {
    let mut segments = Vec::new();
    for line in Source::parse("keys.rs", keys).lines.iter().filter(|line| !line.is_test) {
        let parts: Vec<&str> = line.text.split(':').collect();
        for (index, part) in parts.iter().enumerate() {
            let is_name =
                part.len() > 1 && part.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '_');
            if !is_name {
                continue;
            }
            match (index > 0, index + 1 < parts.len()) {
                (true, true) => segments.push(format!(":{part}:")),
                (true, false) => segments.push(format!(":{part}")),
                (false, _) => {}
            }
        }
    }
    segments
}

fn key_names_in(file: &File, segments: &[String]) -> Vec<Finding> {
    let is_rust = file.path.ends_with(".rs");
    if !is_rust && !file.path.ends_with(".lua") {
        return Vec::new();
    }
    let lines: Vec<(usize, String)> = if is_rust {
        let source = Source::parse(&file.path, &file.text);
        source.lines.into_iter().filter(|line| !line.is_test).map(|line| (line.number, line.text)).collect()
    } else {
        let code = file.text.lines().map(|line| line.split("--").next().unwrap_or_default());
        code.enumerate().map(|(index, code)| (index + 1, code.to_owned())).collect()
    };
    let mut findings = Vec::new();
    for (number, text) in lines {
        if let Some(segment) = segments.iter().find(|segment| text.contains(segment.as_str())) {
            findings.push(Finding::new(
                &file.path,
                number,
                "key names are built only in keys.rs",
                format!(
                    "`{segment}` belongs to a key name; take the key from keys.rs (in Lua: from KEYS or ARGV)"
                ),
            ));
        }
    }
    findings
}

fn says_redis(line: &Line) -> bool {
    [&line.code, &line.text].iter().any(|part| part.to_ascii_lowercase().contains("redis"))
}

/// The name of the type that `code` declares, with what to name it by, if it is one that we do not use.
fn rejected_type_name(code: &str) -> Option<(&str, &'static str)> {
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let declaration = code.trim_start();
    let is_shared = declaration.starts_with("pub ") || declaration.starts_with("pub(crate)");
    words.find(|word| matches!(*word, "struct" | "enum" | "trait" | "type" | "union"))?;
    let name = words.next()?;
    if EMPTY_WORDS.contains(&name) {
        return Some((name, "what it does or holds"));
    }
    let (_, instead) = OTHER_WORDS.iter().find(|(word, _)| *word == name)?;
    is_shared.then_some((name, *instead))
}

/// A word for unfinished work that names no issue, as `(#12)` behind it would.
pub(super) fn bare_unfinished(text: &str) -> Option<&'static str> {
    UNFINISHED.iter().copied().find(|word| {
        text.match_indices(word).any(|(at, _)| {
            let is_letter = |c: char| c.is_alphanumeric() || c == '_';
            let before = text.get(..at).and_then(|text| text.chars().next_back());
            let after = text.get(at + word.len()..).unwrap_or_default();
            !before.is_some_and(is_letter) && !after.starts_with(is_letter) && !after.starts_with("(#")
        })
    })
}

pub(super) fn unfinished_instead(word: &str) -> String {
    format!("do it, or open an issue and write {word}(#number)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&Source::parse(path, text)).iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn redis_outside_its_engine_is_found_in_code_and_strings_but_not_in_comments() {
        let rule = ["redis is known only to its engine"];
        assert_eq!(rules("crates/tidewire/src/bus/channel.rs", "use crate::engine::redis::X;"), rule);
        assert_eq!(rules("crates/tidewire-server/src/lib.rs", r#"let url = "Redis://";"#), rule);
        assert!(rules("crates/tidewire/src/bus.rs", "/// On Redis: one script.").is_empty());
        assert!(rules("crates/tidewire/src/engine/redis/log.rs", "struct RedisLog;").is_empty());
        assert!(rules("crates/tidewire/tests/engines.rs", r#"open("redis://h")"#).is_empty());
        assert!(rules("a.rs", "#[cfg(test)]\nmod tests {\n    const U: &str = \"redis:\";\n}").is_empty());
    }

    #[test]
    fn rejected_type_names_are_found_as_whole_words() {
        for (name, _) in OTHER_WORDS {
            assert_eq!(rules("a.rs", &format!("pub(crate) struct {name}<T> {{")), ["one word per idea"]);
            assert!(rules("a.rs", &format!("struct {name};")).is_empty());
            assert!(rules("a.rs", &format!("pub(super) struct {name};")).is_empty());
        }
        for name in EMPTY_WORDS {
            assert_eq!(rules("a.rs", &format!("enum {name} {{")), ["one word per idea"]);
        }
        assert!(rules("a.rs", "pub struct ClientInfo { data: Message }").is_empty());
        assert!(rules("a.rs", "type Item = Event;").is_empty());
        assert!(rules("a.rs", r#"let text = "struct Message";"#).is_empty());
    }

    #[test]
    fn unfinished_work_needs_an_issue() {
        for word in UNFINISHED {
            assert_eq!(rules("a.rs", &format!("// {word}: later")), ["nothing unfinished"]);
            assert!(rules("a.rs", &format!("// {word}(#12): later")).is_empty());
            assert!(rules("a.rs", &format!("let x = \"{word}\";")).is_empty());
            assert!(rules("a.rs", &format!("// {word}S")).is_empty());
        }
    }

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |&(path, text): &(&str, &str)| File { path: path.into(), text: text.into() };
        Tree { files: files.iter().map(file).collect(), paths: Vec::new() }
    }

    #[test]
    fn key_names_outside_keys_rs_are_found_in_rust_and_lua() {
        let keys =
            ("crates/tidewire/src/engine/redis/keys.rs", r#"format!("{env}:tenant:{t}:{tag}:stream:{n}")"#);
        let other = "crates/tidewire/src/engine/redis/log.rs";
        let script = "crates/tidewire/src/engine/redis/scripts/append.lua";

        let found = check_key_names(&tree(&[keys, (other, r#"let key = format!("x:stream:{n}");"#)]));
        assert_eq!((found[0].path.as_str(), found[0].rule), (other, "key names are built only in keys.rs"));
        assert_eq!(check_key_names(&tree(&[keys, (script, "local key = a .. ':stream:' .. b")])).len(), 1);

        let allowed =
            [keys, (other, r#"fail("redis://host:port"); // x:stream:y"#), (script, "-- x:stream:y")];
        assert!(check_key_names(&tree(&allowed)).is_empty());
    }
}
