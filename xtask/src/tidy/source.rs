//! Rust text taken apart, line by line: code, the text of strings, comments; and which lines are tests.
//!
//! Not a parser: it knows just enough of the language that a rule about code is not fooled by a comment.

/// A Rust file, line by line.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) lines: Vec<Line>,
}

/// One line, taken apart.
#[derive(Default, Debug, PartialEq)]
pub(super) struct Line {
    /// Counted from one.
    pub(super) number: usize,
    /// Without comments and without what strings contain.
    pub(super) code: String,
    /// What strings contain.
    pub(super) text: String,
    /// What comments contain, documentation included.
    pub(super) comment: String,
    /// In a test file, or in a `#[cfg(test)]` module.
    pub(super) is_test: bool,
}

enum State {
    Code,
    LineComment,
    BlockComment { depth: usize },
    String,
    RawString { hashes: usize },
}

impl<'a> Source<'a> {
    pub(super) fn parse(path: &'a str, text: &str) -> Source<'a> {
        let mut source = Source { path, lines: split(text) };
        mark_tests(&mut source);
        source
    }
}

fn split(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = Line { number: 1, ..Line::default() };
    let mut state = State::Code;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if next == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            let number = line.number + 1;
            lines.push(std::mem::replace(&mut line, Line { number, ..Line::default() }));
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let taken = take(&mut state, &mut line, rest);
        rest = rest.get(taken..).unwrap_or_default();
    }
    lines.push(line);
    lines
}

/// Moves one token from `rest` to the part of `line` where it belongs; returns its bytes.
fn take(state: &mut State, line: &mut Line, rest: &str) -> usize {
    let next = rest.chars().next().unwrap_or_default();
    match state {
        State::Code if rest.starts_with("//") => {
            *state = State::LineComment;
            2
        }
        State::Code if rest.starts_with("/*") => {
            *state = State::BlockComment { depth: 1 };
            2
        }
        State::Code if next == '"' => {
            *state = raw_hashes(&line.code).map_or(State::String, |hashes| State::RawString { hashes });
            line.code.push('"');
            1
        }
        State::Code if next == '\'' => {
            let length = character_literal(rest).unwrap_or(1);
            line.code.push('\'');
            length
        }
        State::Code => {
            line.code.push(next);
            next.len_utf8()
        }
        State::LineComment => {
            line.comment.push(next);
            next.len_utf8()
        }
        State::BlockComment { depth } => {
            if rest.starts_with("/*") {
                *depth += 1;
                return 2;
            }
            if rest.starts_with("*/") {
                *depth -= 1;
                if *depth == 0 {
                    *state = State::Code;
                }
                return 2;
            }
            line.comment.push(next);
            next.len_utf8()
        }
        State::String if next == '\\' => {
            // The escaped character goes along, so that an escaped quote ends nothing; an escaped line end stays.
            let escaped = rest.chars().nth(1).filter(|&escaped| escaped != '\n');
            line.text.extend(escaped);
            1 + escaped.map_or(0, char::len_utf8)
        }
        State::RawString { hashes } if next == '"' => {
            let end = format!("\"{}", "#".repeat(*hashes));
            if rest.starts_with(&end) {
                *state = State::Code;
                line.code.push('"');
                return end.len();
            }
            line.text.push('"');
            1
        }
        State::String if next == '"' => {
            *state = State::Code;
            line.code.push('"');
            1
        }
        State::String | State::RawString { .. } => {
            line.text.push(next);
            next.len_utf8()
        }
    }
}

/// How many hashes the raw string has that opens after `code`, if it is one: `r`, `br` or `cr`, then the hashes.
fn raw_hashes(code: &str) -> Option<usize> {
    let prefix = code.trim_end_matches('#');
    let hashes = code.len() - prefix.len();
    let word_start = prefix.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    matches!(prefix.get(word_start..), Some("r" | "br" | "cr")).then_some(hashes)
}

/// The length of the character literal that `rest` starts with; a lifetime has none.
fn character_literal(rest: &str) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        characters.next();
        return characters.find(|&(_, c)| c == '\'').map(|(at, _)| at + 1);
    }
    let (at, second) = characters.next()?;
    (second == '\'').then_some(at + 1)
}

fn mark_tests(source: &mut Source<'_>) {
    let is_test_file = is_test_path(source.path);
    let mut depth = 0_usize;
    let mut announced = false;
    // The depth outside of the test module that we are in.
    let mut outside = None;
    for line in &mut source.lines {
        let code = line.code.trim();
        if code.starts_with("#[cfg(test)]") {
            announced = true;
        }
        let opens_module = code.contains("mod ") && code.ends_with('{');
        if announced && outside.is_none() && opens_module {
            outside = Some(depth);
        }
        if announced && !code.is_empty() && !code.starts_with("#[") {
            announced = false;
        }
        line.is_test = is_test_file || outside.is_some();
        depth += code.matches('{').count();
        depth = depth.saturating_sub(code.matches('}').count());
        if outside == Some(depth) {
            outside = None;
        }
    }
}

/// Tests and benchmarks, by where they are.
fn is_test_path(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests" || part == "benches")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let line = split(text).remove(0);
        (line.code, line.text, line.comment)
    }

    #[test]
    fn code_strings_and_comments_are_told_apart() {
        assert_eq!(parts(r#"a("b // c") // d"#), (r#"a("") "#.into(), "b // c".into(), " d".into()));
        assert_eq!(parts(r#"a /* b /* c */ d */ e"#), ("a  e".into(), String::new(), " b  c  d ".into()));
        assert_eq!(parts(r#""a\"b" c"#), (r#""" c"#.into(), "a\"b".into(), String::new()));
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        assert_eq!(parts(r###"r#"a"b"# c"###), (r###"r#"" c"###.into(), "a\"b".into(), String::new()));
        assert_eq!(parts(r#"r"a\" b"#), (r#"r"" b"#.into(), "a\\".into(), String::new()));
        assert_eq!(parts(r#"br"a" b"#).1, "a");
    }

    #[test]
    fn characters_open_no_string_and_lifetimes_no_character() {
        assert_eq!(parts(r#"'"' a"#), ("' a".into(), String::new(), String::new()));
        assert_eq!(parts(r#"'\'' a"#).0, "' a");
        assert_eq!(parts(r#"fn f<'a>(x: &'a str) {"#).0, "fn f<'a>(x: &'a str) {");
    }

    #[test]
    fn strings_and_comments_go_on_over_lines() {
        let lines = split("a \"b\nc\" d /* e\nf */ g");
        assert_eq!((lines[1].text.as_str(), lines[1].code.as_str()), ("c", "\" d "));
        assert_eq!((lines[2].comment.as_str(), lines[2].code.as_str()), ("f ", " g"));
    }

    #[test]
    fn a_test_module_ends_where_its_brace_closes() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let source = Source::parse("crates/x/src/lib.rs", text);
        let tests: Vec<bool> = source.lines.iter().map(|line| line.is_test).collect();
        assert_eq!(tests, [false, false, true, true, true, false, false]);
    }

    #[test]
    fn a_cfg_test_item_that_is_no_module_marks_nothing() {
        let source = Source::parse("a.rs", "#[cfg(test)]\nuse x;\nmod y {\n}\n");
        assert!(source.lines.iter().all(|line| !line.is_test));
    }

    #[test]
    fn test_files_are_known_by_their_place() {
        assert!(is_test_path("crates/x/tests/engines.rs"));
        assert!(is_test_path("crates/x/src/hub/tests.rs"));
        assert!(is_test_path("crates/x/benches/append.rs"));
        assert!(!is_test_path("crates/x/src/latest.rs"));
    }
}
