//! One request to an endpoint, signed and bounded in time; nothing of the answer is read but its head.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use tidewire::name::ChannelPath;
use tidewire::{Clock, Event, Timestamp};
use tokio::time::timeout;

use super::signature::{SigningKey, sign};
use super::{body, retry_after};
use crate::config::{WebhookBody, WebhookConfig};
use crate::remote::{Reading, Remote};

pub(crate) const ID: HeaderName = HeaderName::from_static("webhook-id");
pub(crate) const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(crate) const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Sends events to one endpoint.
pub(super) struct Sender {
    remote: Remote,
    keys: Vec<SigningKey>,
    shape: WebhookBody,
    time_max: Duration,
    clock: Clock,
}

/// What an endpoint said to an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 2xx: it has the event.
    Accepted(StatusCode),
    /// 410: it wants no more of them.
    Gone,
    /// 429 or 503 with `Retry-After`: not now, but after so long.
    Later(StatusCode, Duration),
    /// Anything else.
    Refused(StatusCode),
    /// It was not reached, or did not answer.
    Failed(String),
}

impl Answer {
    fn of(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        let later = || retry_after::read(headers.get(RETRY_AFTER)?.to_str().ok()?, now);
        match status {
            _ if status.is_success() => Self::Accepted(status),
            StatusCode::GONE => Self::Gone,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                later().map_or(Self::Refused(status), |after| Self::Later(status, after))
            }
            _ => Self::Refused(status),
        }
    }

    /// The status, if there was an answer.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Accepted(status) | Self::Later(status, _) | Self::Refused(status) => Some(*status),
            Self::Gone => Some(StatusCode::GONE),
            Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(status) => write!(f, "the endpoint answered {}", status.as_u16()),
            Self::Gone => f.write_str("the endpoint answered 410: it wants no more events"),
            Self::Refused(status) if status.is_redirection() => {
                write!(f, "the endpoint answered {}; redirects are not followed", status.as_u16())
            }
            Self::Later(status, _) | Self::Refused(status) => {
                write!(f, "the endpoint answered {}", status.as_u16())
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Sender {
    /// # Errors
    /// What cannot be used of the settings, or the system has no roots for TLS.
    pub(super) fn new(config: &WebhookConfig, clock: Clock) -> Result<Self, String> {
        let keys = config.secrets.iter().map(|secret| SigningKey::parse(secret.expose()));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
            shape: config.body,
            time_max: config.timeout,
            remote: Remote::new(&config.url, config.allow_private)?,
            clock,
        })
    }

    /// Sends an event and tells what became of it. Dropping the future ends the connection; the endpoint may have the event
    /// all the same.
    pub(super) async fn send(&self, event: &Event, channel: &ChannelPath) -> Answer {
        let request = match self.request(event, channel) {
            Ok(request) => request,
            Err(error) => return Answer::Failed(format!("the request cannot be made: {error}")),
        };
        match timeout(self.time_max, self.remote.exchange(request, Reading::HeadOnly)).await {
            Ok(Ok(answer)) => Answer::of(answer.status(), answer.headers(), self.clock.now()),
            Ok(Err(why)) => Answer::Failed(why),
            Err(_) => Answer::Failed(format!("the endpoint did not answer within {:?}", self.time_max)),
        }
    }

    fn request(
        &self,
        event: &Event,
        channel: &ChannelPath,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let (headers, body) = body::of(event, channel, self.shape);
        // Of the request, not of the event: a receiver refuses old ones, so that nobody can send them again.
        let seconds = self.clock.now().as_millis() / 1_000;
        let id = event.id().to_string();
        let signature = sign(&self.keys, &id, seconds, &body);
        let mut request = (self.remote.request(Method::POST))
            .header(ID, id)
            .header(TIMESTAMP, seconds)
            .header(SIGNATURE, signature);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(trace_parent) = event.trace_parent().and_then(|text| HeaderValue::from_str(text).ok()) {
            request = request.header(TRACE_PARENT, trace_parent);
        }
        request.body(Full::new(body))
    }
}

#[cfg(test)]
mod tests;
