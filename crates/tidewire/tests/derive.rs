//! What the compiler says of events that are declared wrongly: `derive/NAME.rs` with `derive/NAME.stderr`.
//!
//! The compiler is called as it is, with the library that was built for the tests: a harness that lets cargo build would
//! build every dependency a second time. `TIDEWIRE_BLESS=1` writes the files anew.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo keeps what it has built for the tests.
fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// The library that was built last.
fn library(built: &Path) -> PathBuf {
    let files = fs::read_dir(built).unwrap().map(|file| file.unwrap().path());
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libtidewire-") && name.ends_with(".rlib")
    };
    let built_at = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    files.filter(is_library).max_by_key(built_at).expect("the library was built")
}

/// What the compiler says of a file.
fn said_of(case: &Path) -> String {
    let built = built();
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never", "-Aunused"])
        .args(["--out-dir".as_ref(), std::env::temp_dir().as_os_str()])
        .arg("-L")
        .arg(format!("dependency={}", built.display()))
        .arg("--extern")
        .arg(format!("tidewire={}", library(&built).display()))
        .arg(case.file_name().unwrap())
        .current_dir(case.parent().unwrap())
        .output()
        .expect("the compiler runs");
    assert!(!output.status.success(), "{} compiles", case.display());
    let said = String::from_utf8(output.stderr).unwrap();
    // Other types and places than those of the case change with the library.
    let is_ours = |block: &&str| !block.starts_with("error: aborting") && !block.starts_with("For more");
    let blocks = said.split("\n\n").filter(is_ours).map(|block| {
        let lines =
            block.lines().take_while(|line| !line.contains("the following other types implement trait"));
        let lines = lines.filter(|line| !line.contains("--> /") && !line.contains("> crates/"));
        lines.collect::<Vec<_>>().join("\n")
    });
    blocks.filter(|block| !block.trim().is_empty()).collect::<Vec<_>>().join("\n\n") + "\n"
}

#[test]
fn the_compiler_says_what_to_write() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/derive");
    let mut cases: Vec<_> = fs::read_dir(cases).unwrap().map(|case| case.unwrap().path()).collect();
    cases.retain(|case| case.extension().is_some_and(|extension| extension == "rs"));
    cases.sort();
    assert!(cases.len() >= 14, "cases are missing: {cases:?}");
    let is_blessed = std::env::var_os("TIDEWIRE_BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases {
        let (said, expected) = (said_of(&case), case.with_extension("stderr"));
        if is_blessed {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "the compiler says something else of\n{}", wrong.join("\n"));
}
