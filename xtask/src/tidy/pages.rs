//! Rules about what is not Rust: the map names what exists, every script says what it does, nothing is unfinished.

use super::words::{bare_unfinished, unfinished_instead};
use super::{File, Finding, Tree};

/// What a header says besides what the script does atomically, and the code that makes it due. A part that is shared
/// by scripts takes and returns nothing of its own.
const HEADER_PARTS: &[(&str, &str)] = &[("KEYS", "KEYS"), ("ARGV", "ARGV"), ("Returns", "\nreturn")];

const PATH_ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".lua", ".html", ".mjs"];

pub(super) fn check(file: &File, tree: &Tree) -> Vec<Finding> {
    if file.path == "ARCHITECTURE.md" {
        return missing_paths(file, tree);
    }
    let mut findings = Vec::new();
    if file.path.ends_with(".lua") {
        findings.extend(header(file));
    }
    let is_checked_elsewhere = file.path.ends_with(".rs");
    let is_prose = file.path.ends_with(".md");
    if !is_checked_elsewhere && !is_prose {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(word) = bare_unfinished(line) {
                findings.push(Finding::new(
                    &file.path,
                    index + 1,
                    "nothing unfinished",
                    unfinished_instead(word),
                ));
            }
        }
    }
    findings
}

fn header(file: &File) -> Option<Finding> {
    let is_comment = |line: &&str| line.starts_with("--");
    let comments: Vec<&str> =
        file.text.lines().take_while(is_comment).map(|line| line.trim_start_matches('-').trim()).collect();
    let code: String =
        file.text.lines().filter(|line| !is_comment(line)).flat_map(|line| ["\n", line]).collect();

    let opens_with_purpose = comments.first().is_some_and(|first| {
        !first.is_empty() && !HEADER_PARTS.iter().any(|(part, _)| first.starts_with(part))
    });
    let mut missing = Vec::new();
    if !opens_with_purpose {
        missing.push("what it does atomically");
    }
    for (part, use_of_it) in HEADER_PARTS {
        if code.contains(use_of_it) && !comments.iter().any(|line| line.starts_with(part)) {
            missing.push(part);
        }
    }
    if missing.is_empty() {
        return None;
    }
    let instead = format!("the comment at the top lacks: {}", missing.join(", "));
    Some(Finding::new(&file.path, 1, "a script says what it does", instead))
}

fn missing_paths(file: &File, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        // Between the first and second backtick, the third and fourth, and so on.
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            let path = name.trim_end_matches('/');
            if !tree.paths.iter().any(|known| known == path) {
                let instead = format!("`{name}` does not exist; name paths from the root as they are");
                findings.push(Finding::new(&file.path, index + 1, "the map names what exists", instead));
            }
        }
    }
    findings
}

/// `crates/x/src/` or `Cargo.toml`, but neither `/api/publish` nor `redis://host` nor `tidewire::Error`.
fn is_path(name: &str) -> bool {
    let has_path_letters = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let is_route = name.starts_with('/');
    let has_ending = PATH_ENDINGS.iter().any(|ending| name.len() > ending.len() && name.ends_with(ending));
    has_path_letters && !is_route && (name.contains('/') || has_ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let tree = Tree {
            files: Vec::new(),
            paths: vec!["crates".into(), "crates/x/src".into(), "README.md".into()],
        };
        let file = File { path: path.into(), text: text.into() };
        check(&file, &tree).iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        assert_eq!(rules("ARCHITECTURE.md", "see `crates/gone/` and `GONE.md`").len(), 2);
        let fine = "`crates/`, `crates/x/src`, `README.md`, `/api/publish`, `redis://h/1`, `a::b`, `cargo xtask test`";
        assert!(rules("ARCHITECTURE.md", fine).is_empty());
    }

    #[test]
    fn a_script_without_its_header_is_found() {
        let rule = ["a script says what it does"];
        let full = "-- Appends and announces in one step.\n-- KEYS[1] stream\n-- ARGV[1] event\n-- Returns: offset\n\
                    \nlocal x = f(KEYS[1], ARGV[1])\nreturn x\n";
        assert!(rules("a.lua", full).is_empty());
        for (part, _) in HEADER_PARTS {
            let without = full.replace(&format!("-- {part}"), "-- ");
            assert_eq!(rules("a.lua", &without), rule, "{part}");
        }
        assert_eq!(rules("a.lua", full.split_once('\n').unwrap().1), rule);
        assert_eq!(rules("a.lua", &format!("local x = 1\n{full}")), rule);

        let shared = "-- What every stream script shares.\nlocal function text(n)\n  return n\nend\n";
        assert!(rules("a.lua", shared).is_empty());
    }

    #[test]
    fn unfinished_work_is_found_in_every_language() {
        for path in ["a.lua.html", "a.mjs", "a.toml", "a.css"] {
            assert_eq!(rules(path, &format!("x {}", "FIX".to_owned() + "ME")), ["nothing unfinished"]);
        }
    }
}
