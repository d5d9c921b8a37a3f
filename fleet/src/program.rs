//! Where the programs are.

use std::ffi::OsStr;
use std::path::PathBuf;

/// Names a program to use instead of the one on the PATH.
const REDIS_SETTING: &str = "TIDEWIRE_TEST_REDIS_SERVER";
const VALKEY_SETTING: &str = "TIDEWIRE_TEST_VALKEY_SERVER";

/// The first file called `program` in the folders of `search`. An absolute path is found wherever the search points.
pub fn find_program(program: &str, search: &OsStr) -> Option<PathBuf> {
    // An absolute program replaces the folder in `join`.
    std::env::split_paths(search).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The server that tests use: named in `TIDEWIRE_TEST_REDIS_SERVER`, else `redis-server` or `valkey-server`.
pub fn server_program() -> Option<PathBuf> {
    named_or_found(REDIS_SETTING, &["redis-server", "valkey-server"])
}

/// Valkey, where it is installed beside Redis: named in `TIDEWIRE_TEST_VALKEY_SERVER`, else `valkey-server`.
pub fn valkey_program() -> Option<PathBuf> {
    named_or_found(VALKEY_SETTING, &["valkey-server"])
}

fn named_or_found(setting: &str, programs: &[&str]) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    match std::env::var_os(setting) {
        Some(named) => Some(named.into()),
        None => programs.iter().find_map(|program| find_program(program, &search)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn finds_a_program_on_the_path_and_an_absolute_one() {
        let shell = find_program("sh", OsStr::new("/no-such-folder:/bin")).unwrap();
        assert_eq!(shell, Path::new("/bin/sh"));
        assert_eq!(find_program("/bin/sh", OsStr::new("/no-such-folder")).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find_program("sh", OsStr::new("/no-such-folder")), None);
    }
}
