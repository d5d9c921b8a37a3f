//! Rules about this tree that no compiler knows. Each finding names the place, the rule, and what to write instead.
//!
//! The rules run as an ordinary test of this crate too, so that a plain `cargo test` finds what CI would.

mod edges;
mod pages;
mod shape;
mod source;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Checks the tree at `root`; prints every finding before it fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let findings = check(&tree);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: {} files, no findings", tree.files.len());
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.path.ends_with(".rs") {
            let source = source::Source::parse(&file.path, &file.text);
            findings.extend(words::check(&source));
            findings.extend(shape::check(&source));
        }
        findings.extend(edges::check(file));
        findings.extend(pages::check(file, tree));
    }
    findings.extend(words::check_key_names(tree));
    findings
}

/// One broken rule.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    instead: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, instead: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, rule, instead: instead.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}: {}", self.path, self.line, self.rule, self.instead)
    }
}

/// The files that rules look at, and every path there is.
#[derive(Default)]
struct Tree {
    files: Vec<File>,
    /// Files and folders, relative to the root, without a slash at the end.
    paths: Vec<String>,
}

/// A text file; its path is relative to the root and has forward slashes.
struct File {
    path: String,
    text: String,
}

impl Tree {
    const TEXT_ENDINGS: &[&str] = &[".rs", ".toml", ".md", ".lua", ".mjs", ".js", ".html", ".css", ".yml"];
    /// What programs make, not people.
    const SKIPPED_FOLDERS: &[&str] = &["target", "node_modules", ".git"];

    fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    fn read_folder(&mut self, root: &Path, folder: &str) -> Result<()> {
        let entries = fs::read_dir(root.join(folder)).with_context(|| format!("cannot read `{folder}`"))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if entry.file_type()?.is_dir() {
                if !Tree::SKIPPED_FOLDERS.contains(&name.as_str()) {
                    self.read_folder(root, &path)?;
                    self.paths.push(path);
                }
                continue;
            }
            if Tree::TEXT_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                let text =
                    fs::read_to_string(entry.path()).with_context(|| format!("cannot read `{path}`"))?;
                self.files.push(File { path: path.clone(), text });
            }
            self.paths.push(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let tree = Tree::read(&crate::workspace_root()).unwrap();
        let findings: Vec<String> = check(&tree).iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    #[test]
    fn a_finding_reads_like_a_compiler_error() {
        let finding = Finding::new("crates/x/src/lib.rs", 7, "no mod.rs", "name it x.rs");
        assert_eq!(finding.to_string(), "crates/x/src/lib.rs:7: no mod.rs: name it x.rs");
    }
}
