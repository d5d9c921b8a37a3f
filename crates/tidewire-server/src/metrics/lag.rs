//! How far the groups are that this node consumes, as the engine tells.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tidewire::name::GroupPath;
use tidewire::{GroupActivity, GroupStatus, Start, Tidewire, Timestamp};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long an answer is good for: however often it is scraped, the engine is asked no more often.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// How long the answers may take. A scrape has 10 s as a rule; lines of groups that are not heard of are left out.
const SAMPLE_WITHIN: Duration = Duration::from_secs(3);
/// Groups that are asked for at the same time.
const ASKED_AT_ONCE: usize = 16;

/// What was heard last.
#[derive(Default)]
pub(crate) struct Lags(Mutex<Sampled>);

#[derive(Default)]
struct Sampled {
    at: Option<Timestamp>,
    status: Vec<(GroupPath, GroupStatus)>,
}

impl Lags {
    /// How far these groups are. Dropping the future leaves what was heard before.
    pub(super) async fn of(
        &self,
        groups: &[GroupActivity],
        tidewire: &Tidewire,
        now: Timestamp,
    ) -> Vec<(GroupPath, GroupStatus)> {
        let mut sampled = self.0.lock().await;
        if sampled.at.is_none_or(|at| now.since(at) >= SAMPLE_EVERY) {
            let paths: Vec<_> = groups.iter().filter_map(|activity| activity.group.clone()).collect();
            let asked = paths.into_iter().map(|path| async move {
                let status = status(tidewire, &path).await;
                Some((path, status.ok()?))
            });
            let mut answers = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
            let mut status = Vec::new();
            let all = async {
                while let Some(answer) = answers.next().await {
                    status.extend(answer);
                }
            };
            if timeout(SAMPLE_WITHIN, all).await.is_err() {
                tracing::warn!(within = ?SAMPLE_WITHIN, "not all groups were heard of for a scrape");
            }
            *sampled = Sampled { at: Some(now), status };
        }
        sampled.status.clone()
    }
}

async fn status(tidewire: &Tidewire, path: &GroupPath) -> tidewire::Result<GroupStatus> {
    let channel = tidewire.tenant(path.channel().tenant())?.channel(path.channel().channel())?;
    // Where it would begin does not matter: it is there.
    channel.group(path.group(), Start::Latest)?.status().await
}
