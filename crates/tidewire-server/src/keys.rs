//! The keys that events are signed and sealed with: from a file that is looked at again and again, or from the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidewire::tasks::Tasks;
use tidewire::{Clock, ErrorKind, Keys};

use crate::config::Config;

/// Where keys are looked for unless the settings name a file.
const VARIABLE: &str = "TIDEWIRE_KEYS";
/// How soon a rotation is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The keys of the settings or of the environment; none without either.
pub(crate) fn of(config: &Config) -> tidewire::Result<Keys> {
    match &config.keys_file {
        Some(file) => Keys::from_file(file),
        None => Keys::from_env(VARIABLE).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(Keys::default()),
            _ => Err(error),
        }),
    }
}

/// Has `keys` follow the file.
pub(crate) fn follow(keys: &Keys, file: &Path, tasks: &Tasks, clock: &Clock) {
    let (keys, file, clock, stop) = (keys.clone(), file.to_owned(), clock.clone(), tasks.stopping().clone());
    tasks.spawn(async move {
        let mut was_unreadable = false;
        while stop.run_until_cancelled(clock.sleep(LOOK_EVERY)).await.is_some() {
            was_unreadable = look(&keys, file.clone(), was_unreadable).await;
        }
    });
}

/// Looks at the file once; says whether it cannot be used, which is logged when it begins.
async fn look(keys: &Keys, file: PathBuf, was_unreadable: bool) -> bool {
    let keys = keys.clone();
    // A runtime that ends takes the look with it.
    let Ok(looked) = tokio::task::spawn_blocking(move || keys.reload(&file)).await else { return false };
    match looked {
        Ok(true) => tracing::info!("the keys that events are signed and sealed with were changed"),
        Ok(false) => {}
        Err(error) => {
            if !was_unreadable {
                tracing::error!(%error, "keys_file cannot be used; the keys stay as they were");
            }
            return true;
        }
    }
    false
}
