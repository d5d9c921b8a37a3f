//! Rules about the shape of Rust files: length, module files, no sleeping tests.

use super::Finding;
use super::source::Source;

/// Tests apart. The 95th percentile of the codebases that we learn from.
const LINES_MAX: usize = 600;

/// Excepts one line from a rule when a reason follows.
const EXCEPTION: &str = "tidy:";

pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let path = source.path;
    let mut findings = Vec::new();
    let length = source.lines.iter().filter(|line| !line.is_test).count();
    if length > LINES_MAX {
        let instead = format!("{length} lines, at most {LINES_MAX} beside tests: split it by purpose");
        findings.push(Finding::new(path, LINES_MAX, "files are short", instead));
    }
    if path.ends_with("/mod.rs") {
        let folder = path.trim_end_matches("/mod.rs");
        findings.push(Finding::new(path, 1, "no mod.rs", format!("move it to {folder}.rs")));
    }
    for line in source.lines.iter().filter(|line| line.is_test && calls_sleep(&line.code)) {
        let reason = line.comment.trim().strip_prefix(EXCEPTION).map(str::trim);
        if reason.is_none_or(str::is_empty) {
            findings.push(Finding::new(
                path,
                line.number,
                "no sleep in tests",
                "wait on a signal or the virtual clock; where neither is possible, end the line with `// tidy: why`",
            ));
        }
    }
    findings
}

fn calls_sleep(code: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    ["sleep(", "sleep_until("].iter().any(|call| {
        code.match_indices(call).any(|(at, _)| {
            let before = code.get(..at).and_then(|code| code.chars().next_back());
            !before.is_some_and(is_letter)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&Source::parse(path, text)).iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn long_files_are_found_tests_apart() {
        let long = "fn f() {}\n".repeat(LINES_MAX);
        assert_eq!(rules("crates/x/src/a.rs", &long), ["files are short"]);
        assert!(rules("crates/x/tests/a.rs", &long).is_empty());
        let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(rules("crates/x/src/a.rs", &tested).is_empty());
    }

    #[test]
    fn mod_rs_is_found_with_its_new_name() {
        let found = check(&Source::parse("crates/x/src/hub/mod.rs", ""));
        assert_eq!(found[0].instead, "move it to crates/x/src/hub.rs");
    }

    #[test]
    fn sleep_in_tests_needs_a_reason() {
        let rule = ["no sleep in tests"];
        assert_eq!(rules("crates/x/tests/a.rs", "tokio::time::sleep(x).await;"), rule);
        assert_eq!(rules("crates/x/tests/a.rs", "sleep(x); // tidy:"), rule);
        assert_eq!(rules("a.rs", "#[cfg(test)]\nmod tests {\n    thread::sleep(x);\n}"), rule);
        assert!(rules("crates/x/tests/a.rs", "sleep(x); // tidy: the disk has no signal").is_empty());
        assert!(rules("crates/x/tests/a.rs", "clock.no_sleep(x); // sleep(y)").is_empty());
        assert!(rules("crates/x/src/retry.rs", "sleep(x).await;").is_empty());
    }
}
