//! A JSON Web Key Set at a URL: fetched when it is needed, kept for a while, and kept on while its server is down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::ACCEPT;
use hyper::{Method, StatusCode};
use jsonwebtoken::Header;
use parking_lot::Mutex;
use tidewire::tasks::Tasks;
use tidewire::{Clock, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;

use super::key::{self, Key};
use crate::remote::{Reading, Remote};

/// Time between two fetches, whatever tokens come: a token with a key that nobody has heard of costs its sender nothing.
pub(super) const FETCH_EVERY: Duration = Duration::from_secs(10);
/// For one fetch, from looking the name up to the end of the answer. A connection waits as long.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a set. Sixty-four RSA keys with a certificate each have half of that.
const SET_BYTES_MAX: usize = 256 * 1024;

/// The keys at one URL.
pub(super) struct KeySet {
    url: String,
    remote: Remote,
    ttl: Duration,
    clock: Clock,
    tasks: Tasks,
    known: Mutex<Known>,
    /// Changes when a fetch ends.
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Arc<Key>>,
    /// When they were fetched.
    fetched: Option<Timestamp>,
    /// When a fetch last began.
    tried: Option<Timestamp>,
    is_fetching: bool,
    /// Why the last fetch failed, if it did.
    problem: Option<String>,
}

/// Whether keys are being fetched.
#[derive(PartialEq, Eq)]
enum Fetching {
    /// By a task.
    Now,
    /// Not again so soon.
    TooSoon,
}

impl KeySet {
    /// # Errors
    /// The URL cannot be used, or the system has no roots for TLS.
    pub(super) fn new(
        url: &str,
        ttl: Duration,
        allows_private: bool,
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, String> {
        Ok(Self {
            url: url.to_owned(),
            remote: Remote::new(url, allows_private)?,
            ttl,
            clock: clock.clone(),
            tasks: tasks.clone(),
            known: Mutex::default(),
            ended: watch::Sender::new(()),
        })
    }

    /// The keys that may have signed a token with `header`, as far as they are known and fresh. `None`: look again.
    pub(super) fn known(self: &Arc<Self>, header: &Header) -> Option<Vec<Arc<Key>>> {
        let now = self.clock.now();
        let (found, age) = {
            let known = self.known.lock();
            (matching(&known.keys, header)?, now.since(known.fetched?))
        };
        if age >= self.ttl {
            return None;
        }
        // Fetched before it has to be, so that nobody waits for it.
        if age >= self.ttl / 2 {
            self.fetch(now);
        }
        Some(found)
    }

    /// The same, after the keys were fetched again, unless that was just done. Dropping the future does not end a fetch.
    ///
    /// # Errors
    /// The key is not known, and the set could not be asked: it may be there.
    pub(super) async fn look_again(self: &Arc<Self>, header: &Header) -> Result<Vec<Arc<Key>>, String> {
        let mut ended = self.ended.subscribe();
        let fetching = self.fetch(self.clock.now());
        if fetching == Fetching::Now {
            // The sender lives in `self`.
            let _changed = ended.changed().await.is_ok();
        }
        let known = self.known.lock();
        // Old keys go on while the server is down.
        match (matching(&known.keys, header), &known.problem) {
            (Some(found), _) => Ok(found),
            (None, Some(problem)) => Err(format!("jwks {}: {problem}", self.url)),
            (None, None) if fetching == Fetching::Now && known.fetched.is_some() => Ok(Vec::new()),
            (None, None) => Err(format!(
                "jwks {} has no key for the token, and was asked less than {FETCH_EVERY:?} ago",
                self.url
            )),
        }
    }

    /// Has the keys fetched by a task, one at a time.
    fn fetch(self: &Arc<Self>, now: Timestamp) -> Fetching {
        let mut known = self.known.lock();
        if known.is_fetching {
            return Fetching::Now;
        }
        if known.tried.is_some_and(|tried| now.since(tried) < FETCH_EVERY) {
            return Fetching::TooSoon;
        }
        known.is_fetching = true;
        known.tried = Some(now);
        let fetch = Fetch { set: self.clone(), began: now };
        let stop = self.tasks.stopping().clone();
        // Not by who needs them: a connection that goes away would take the fetch of all others with it.
        self.tasks.spawn(async move { stop.run_until_cancelled(fetch.run()).await });
        Fetching::Now
    }

    async fn get(&self) -> Result<Vec<Key>, String> {
        let request =
            self.remote.request(Method::GET).header(ACCEPT, "application/jwk-set+json, application/json");
        let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
        let answer = timeout(FETCH_WITHIN, self.remote.exchange(request, Reading::UpTo(SET_BYTES_MAX))).await;
        let answer = answer.map_err(|_| format!("the endpoint did not answer within {FETCH_WITHIN:?}"))??;
        match answer.status() {
            StatusCode::OK => key::read_set(answer.body()),
            status => Err(format!("the endpoint answered {}", status.as_u16())),
        }
    }
}

/// A fetch under way. It ends when this is dropped, whatever ends it.
struct Fetch {
    set: Arc<KeySet>,
    began: Timestamp,
}

impl Fetch {
    async fn run(self) {
        let got = self.set.get().await;
        let mut known = self.set.known.lock();
        match got {
            Ok(keys) => {
                known.keys = keys.into_iter().map(Arc::new).collect();
                known.fetched = Some(self.began);
                known.problem = None;
            }
            Err(problem) => {
                tracing::warn!(
                    jwks = self.set.url,
                    problem,
                    "keys of tokens were not fetched; old ones stay"
                );
                known.problem = Some(problem);
            }
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.set.known.lock().is_fetching = false;
        self.set.ended.send_replace(());
    }
}

/// The keys that a token with `header` may be signed with. `None` if there is none, so that a newer set may have it; a token
/// that names no key has none if there are several to choose from.
fn matching(keys: &[Arc<Key>], header: &Header) -> Option<Vec<Arc<Key>>> {
    let fitting = keys.iter().filter(|key| key.fits(header.alg));
    let found: Vec<_> = match &header.kid {
        Some(id) => fitting.filter(|key| key.id() == Some(id)).cloned().collect(),
        None => fitting.cloned().collect(),
    };
    match (&header.kid, found.len()) {
        (_, 0) => None,
        (None, 2..) => Some(Vec::new()),
        _ => Some(found),
    }
}

#[cfg(test)]
mod tests;
