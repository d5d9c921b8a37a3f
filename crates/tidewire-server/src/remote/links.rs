//! Connections to what is at a URL, kept for the next request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::link::{Link, Unanswered};
use super::{Reading, Remote};

/// How long a connection is kept without a request. Less than servers keep theirs (gunicorn 2 s, Node 5 s), so that a request
/// seldom meets one that is being closed.
const IDLE_MAX: Duration = Duration::from_millis(1_500);

/// What is at a URL, reached over connections that are used again.
pub(crate) struct Links {
    remote: Remote,
    /// Those that nothing is on, and since when, the newest last.
    idle: Mutex<Vec<(Link, Instant)>>,
    idle_count_max: usize,
}

impl Links {
    /// Of those that are idle at most so many are kept.
    pub(crate) fn new(remote: Remote, idle_count_max: usize) -> Self {
        Self { remote, idle: Mutex::default(), idle_count_max }
    }

    /// As [`Remote::request`].
    pub(crate) fn request(&self, method: Method) -> Builder {
        self.remote.request(method)
    }

    /// Sends a request and reads the answer, at most so many bytes. It is sent again only if nothing of it was sent. It takes as
    /// long as the other side likes; dropping the future ends the connection that it is on.
    ///
    /// # Errors
    /// As [`Remote::exchange`].
    pub(crate) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, String> {
        let reading = Reading::UpTo(bytes_max);
        while let Some(mut link) = self.take() {
            match link.exchange(request, reading).await {
                Ok(answer) => return Ok(self.keep(link, answer)),
                Err(Unanswered::NotSent(unsent)) => request = *unsent,
                Err(Unanswered::Failed(reason)) => return Err(reason),
            }
        }
        let mut link = self.remote.link().await?;
        match link.exchange(request, reading).await {
            Ok(answer) => Ok(self.keep(link, answer)),
            Err(unanswered) => Err(unanswered.into_reason()),
        }
    }

    /// The connection that was used last, of those that are open.
    fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE_MAX);
        while let Some((mut link, _)) = idle.pop() {
            if link.is_open() {
                return Some(link);
            }
        }
        None
    }

    fn keep(&self, mut link: Link, answer: Response<Bytes>) -> Response<Bytes> {
        if link.is_open() {
            let mut idle = self.idle.lock();
            if idle.len() < self.idle_count_max {
                idle.push((link, Instant::now()));
            }
        }
        answer
    }
}
