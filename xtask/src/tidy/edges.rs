//! Which crate of the workspace may depend on which.

use toml::{Table, Value};

use super::{File, Finding};

/// Each crate with the crates of ours that it may use. A crate that is not here may not exist.
const EDGES: &[(&str, &[&str])] = &[
    ("tidewire", &["tidewire-macros"]),
    ("tidewire-macros", &[]),
    ("tidewire-protocol", &[]),
    ("tidewire-server", &["tidewire", "tidewire-protocol"]),
    // `tidewire` only for the types of tokens and URLs: commands reach a server by HTTP and the wire.
    ("tidewire-cli", &["tidewire", "tidewire-protocol", "tidewire-server"]),
    (FLEET, &[]),
    // A contract is checked with half of the library, which no `#[path]` brings in.
    ("tidewire-fuzz", &["tidewire", "tidewire-protocol"]),
    ("xtask", &[FLEET]),
];

/// Starts servers for tests and benchmarks of any crate; no part of one.
const FLEET: &str = "tidewire-fleet";

const RULE: &str = "crates use each other one way";

pub(super) fn check(file: &File) -> Vec<Finding> {
    if !file.path.ends_with("Cargo.toml") {
        return Vec::new();
    }
    let finding = |needle: &str, instead: String| {
        let line = file.text.lines().position(|line| line.contains(needle)).map_or(1, |index| index + 1);
        vec![Finding::new(&file.path, line, RULE, instead)]
    };
    let manifest: Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return finding("", format!("cannot be read: {error}")),
    };
    // The root has no package, and its workspace dependencies are no edges.
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str)
    else {
        return Vec::new();
    };
    let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
        return finding(
            name,
            format!("`{name}` has no row in EDGES (xtask/src/tidy/edges.rs): say what it may use"),
        );
    };
    let mut findings = Vec::new();
    for (kind, used) in dependencies(&manifest) {
        let is_ours = EDGES.iter().any(|(crate_name, _)| *crate_name == used);
        let is_for_tests = kind == "dev-dependencies" && used == FLEET;
        if is_ours && !is_for_tests && !allowed.contains(&used) {
            findings.extend(finding(used, format!("`{name}` may not use `{used}`; it may use {allowed:?}")));
        }
    }
    findings
}

/// Each kind of dependency with the name of what is used.
fn dependencies(manifest: &Table) -> Vec<(&'static str, &str)> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = targets.filter_map(Value::as_table).chain([manifest]);
    let dependencies =
        tables.flat_map(|table| kinds.iter().filter_map(|&kind| Some((kind, table.get(kind)?.as_table()?))));
    dependencies.flat_map(|(kind, table)| table.keys().map(move |name| (kind, name.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> Vec<Finding> {
        check(&File { path: "crates/x/Cargo.toml".into(), text: text.into() })
    }

    #[test]
    fn an_edge_against_the_direction_is_found() {
        let found =
            check_text("[package]\nname = \"tidewire\"\n[dependencies]\ntidewire-server.workspace = true\n");
        assert_eq!((found[0].line, found[0].rule), (4, RULE));
        let of_tests =
            "[package]\nname = \"tidewire-protocol\"\n[dev-dependencies]\ntidewire.workspace = true\n";
        assert_eq!(check_text(of_tests).len(), 1);
        let of_target = "[package]\nname = \"xtask\"\n[target.'cfg(unix)'.dependencies]\ntidewire = \"1\"\n";
        assert_eq!(check_text(of_target).len(), 1);
    }

    #[test]
    fn only_tests_use_the_fleet() {
        let of_tests =
            "[package]\nname = \"tidewire\"\n[dev-dependencies]\ntidewire-fleet.workspace = true\n";
        assert!(check_text(of_tests).is_empty());
        assert_eq!(check_text(&of_tests.replace("dev-", "")).len(), 1);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(check_text("[package]\nname = \"tidewire-extras\"\n").len(), 1);
    }

    #[test]
    fn allowed_edges_and_crates_of_others_pass() {
        let text = "[package]\nname = \"tidewire-server\"\n[dependencies]\ntidewire.workspace = true\nbytes = \"1\"\n";
        assert!(check_text(text).is_empty());
        assert!(
            check_text("[workspace]\n[workspace.dependencies]\ntidewire = { path = \"x\" }\n").is_empty()
        );
    }
}
