//! One backend that is asked: how many asks at a time, for how long, and not at all while it is down.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tidewire::circuit::{Admission, Circuit, Period, Sign};
use tidewire::clock::Stopwatch;
use tidewire::{BreakerState, Clock, Timestamp};
use tidewire_protocol::codes::ErrorCode;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use url::Url;
use uuid::Uuid;

use super::answer::Answer;
use super::{Asker, Denied, Hook, Question, body};
use crate::config::{HOOK_IN_URL, HookData, HookEndpoint};
use crate::metrics::{EndpointMetrics, Metrics, Outcome};
use crate::remote::{Links, Remote};
use crate::tokens::Refusal;
use crate::webhooks::{ID, SIGNATURE, SigningKey, TIMESTAMP, sign};

/// Time between two lines of the log that say why an endpoint gives no answers.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Connections that are kept without a request on them.
const IDLE_LINKS_MAX: usize = 16;

/// One endpoint of the settings.
pub(crate) struct Endpoint {
    tenant: String,
    name: String,
    links: Links,
    /// Path and query, by hook.
    paths: BTreeMap<Hook, String>,
    form: HookData,
    /// Those of the settings.
    headers: HeaderMap,
    client_headers: Vec<HeaderName>,
    client_cookies: Vec<String>,
    keys: Vec<SigningKey>,
    time_max: Duration,
    answer_bytes_max: usize,
    /// One for each ask that is under way or waits for its turn.
    places: Semaphore,
    /// One for each ask that is under way.
    turns: Semaphore,
    circuit: Mutex<Circuit>,
    logged: Mutex<Option<Timestamp>>,
    metrics: EndpointMetrics,
    clock: Clock,
}

/// Why there is no answer that can be used.
#[derive(Debug)]
enum Unanswered {
    /// It is not asked for the time being.
    Open,
    /// Too many asks wait, or waited too long.
    Overloaded,
    /// It was not reached in time, or did not say all in time.
    TimedOut,
    /// It was not reached, or has failed itself.
    Failed(String),
    /// What it said is no answer.
    Bad(String),
}

/// Leave to ask, which ends with what became of it. One that is dropped says nothing of the endpoint.
struct Pass<'e> {
    endpoint: &'e Endpoint,
    period: Period,
    sign: Sign,
}

impl Endpoint {
    /// # Errors
    /// What cannot be used of the settings, or the system has no roots for TLS.
    pub(super) fn new(
        tenant: &str,
        name: &str,
        config: &HookEndpoint,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let paths = Hook::ALL.into_iter().map(|hook| Ok((hook, path_of(&config.url, hook)?)));
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let mut value =
                HeaderValue::from_str(value.expose()).map_err(|error| format!("{name}: {error}"))?;
            value.set_sensitive(true);
            headers.insert(name.parse::<HeaderName>().map_err(|error| format!("{name}: {error}"))?, value);
        }
        let client_headers = config.client_headers.iter().map(|name| name.parse::<HeaderName>());
        let keys = config.secrets.iter().map(|secret| SigningKey::parse(secret.expose()));
        // What stands for a hook is in the path, which each request has its own of.
        let remote = Remote::new(&config.url.replace(HOOK_IN_URL, ""), config.allow_private)?;
        Ok(Self {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            links: Links::new(remote, IDLE_LINKS_MAX.min(config.asks_max)),
            paths: paths.collect::<Result<_, String>>()?,
            form: config.data,
            headers,
            client_headers: client_headers.collect::<Result<_, _>>().map_err(|error| error.to_string())?,
            client_cookies: config.client_cookies.clone(),
            keys: keys.collect::<Result<_, _>>()?,
            time_max: config.timeout,
            answer_bytes_max: config.answer_bytes_max,
            places: Semaphore::new(
                config.asks_max.saturating_add(config.waiting_max).min(Semaphore::MAX_PERMITS),
            ),
            turns: Semaphore::new(config.asks_max.min(Semaphore::MAX_PERMITS)),
            circuit: Mutex::new(Circuit::new(config.breaker.into())),
            logged: Mutex::default(),
            metrics: metrics.hooks.of(tenant, name),
            clock: clock.clone(),
        })
    }

    /// The headers of clients that it is handed on.
    pub(super) fn wanted(&self) -> Vec<HeaderName> {
        let cookie = (!self.client_cookies.is_empty()).then_some(hyper::header::COOKIE);
        self.client_headers.iter().cloned().chain(cookie).collect()
    }

    /// Its tenant, its name, and what its breaker does.
    pub(crate) fn standing(&self) -> (&str, &str, BreakerState) {
        (&self.tenant, &self.name, self.circuit.lock().state())
    }

    /// Asks, and has `read` read the result. Dropping the future gives the ask up: the backend may have it all the same.
    ///
    /// # Errors
    /// The backend refuses, with what it says; or there is no answer that can be used: error 100.
    pub(crate) async fn ask<R>(
        &self,
        hook: Hook,
        asker: &Asker<'_>,
        question: &Question<'_>,
        read: impl FnOnce(Option<&RawValue>, Timestamp) -> Result<R, Refusal>,
    ) -> Result<R, Denied> {
        let body = body::of(asker, question, self.form)?;
        let watch = Stopwatch::start();
        // Given up, unless it comes to an end.
        let counted = self.metrics.begin(hook.name());
        let answered = self.answer(hook, asker, body, read).await;
        let outcome = match &answered {
            Ok(Ok(_)) => Outcome::Result,
            Ok(Err(Denied::Failure(_))) => Outcome::Error,
            Ok(Err(Denied::Disconnect(_))) => Outcome::Disconnect,
            Err(Unanswered::Open) => Outcome::BreakerOpen,
            Err(Unanswered::Overloaded) => Outcome::Overloaded,
            Err(Unanswered::TimedOut) => Outcome::TimedOut,
            Err(Unanswered::Failed(_)) => Outcome::Failed,
            Err(Unanswered::Bad(_)) => Outcome::BadAnswer,
        };
        counted.end(outcome, watch.elapsed());
        answered.unwrap_or_else(|unanswered| {
            self.complain(hook, &unanswered);
            Err(ErrorCode::INTERNAL.into())
        })
    }

    async fn answer<R>(
        &self,
        hook: Hook,
        asker: &Asker<'_>,
        body: Vec<u8>,
        read: impl FnOnce(Option<&RawValue>, Timestamp) -> Result<R, Refusal>,
    ) -> Result<Result<R, Denied>, Unanswered> {
        let _place = self.places.try_acquire().map_err(|_| Unanswered::Overloaded)?;
        let deadline = Instant::now() + self.time_max;
        // The semaphore is never closed: what fails is the wait.
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(Unanswered::Overloaded)?;
        // The turn may come at the very end, of one whose time is over too: nothing can be said of the backend then.
        if Instant::now() >= deadline {
            return Err(Unanswered::Overloaded);
        }
        let mut pass = self.pass().ok_or(Unanswered::Open)?;
        let request = self.request(hook, asker, body).map_err(|error| Unanswered::Bad(error.to_string()))?;
        let exchanged = timeout_at(deadline, self.links.exchange(request, self.answer_bytes_max)).await;
        let exchanged = exchanged.map_err(|_| Unanswered::TimedOut);
        let answered = exchanged.and_then(|exchanged| exchanged.map_err(Unanswered::Failed));
        let answered = answered.and_then(|answer| match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status if status.is_server_error() => {
                Err(Unanswered::Failed(format!("it answered {}", status.as_u16())))
            }
            status => Err(Unanswered::Bad(format!("it answered {}", status.as_u16()))),
        });
        pass.sign = match &answered {
            Err(Unanswered::Failed(_) | Unanswered::TimedOut) => Sign::Failure,
            // It lives, whatever it says: a client that has it say nonsense must not have it silenced for the others.
            _ => Sign::Success,
        };
        drop(pass);
        let result = match Answer::read(&answered?).map_err(Unanswered::Bad)? {
            Answer::Result(result) => result,
            Answer::Denied(denied) => return Ok(Err(denied)),
        };
        match read(result.as_deref(), self.clock.now()) {
            Ok(read) => Ok(Ok(read)),
            Err(Refusal::Expired) => Ok(Err(ErrorCode::EXPIRED.into())),
            Err(Refusal::Invalid(reason) | Refusal::Unavailable(reason)) => Err(Unanswered::Bad(reason)),
        }
    }

    fn request(
        &self,
        hook: Hook,
        asker: &Asker<'_>,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let path = self.paths.get(&hook).map_or("/", String::as_str);
        let mut request = self.links.request(Method::POST).uri(path).body(Full::new(Bytes::new()))?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if self.client_headers.contains(&hyper::header::USER_AGENT) {
            headers.remove(hyper::header::USER_AGENT);
        }
        asker.headers.hand_on(&self.client_headers, &self.client_cookies, headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !self.keys.is_empty() {
            let (id, seconds) = (Uuid::now_v7().to_string(), self.clock.now().as_millis() / 1_000);
            let signature = sign(&self.keys, &id, seconds, &body);
            headers.insert(ID, HeaderValue::from_str(&id)?);
            headers.insert(TIMESTAMP, HeaderValue::from(seconds));
            headers.insert(SIGNATURE, HeaderValue::from_str(&signature)?);
        }
        *request.body_mut() = Full::new(body.into());
        Ok(request)
    }

    /// Leave to ask; none while the breaker is open, or one is being tried.
    fn pass(&self) -> Option<Pass<'_>> {
        match self.circuit.lock().admit(self.clock.now()) {
            Admission::Go(period) => Some(Pass { endpoint: self, period, sign: Sign::Neither }),
            Admission::Wait | Admission::WaitUntil(_) => None,
        }
    }

    /// Says why, now and then: a backend that is down is not told of by each who asks.
    fn complain(&self, hook: Hook, unanswered: &Unanswered) {
        let reason = match unanswered {
            // What opened it has been told.
            Unanswered::Open => return,
            Unanswered::Overloaded => "too many asks wait (asks_max, waiting_max)",
            Unanswered::TimedOut => "no answer in time (timeout)",
            Unanswered::Failed(reason) | Unanswered::Bad(reason) => reason,
        };
        let (tenant, endpoint, hook) = (&self.tenant, &self.name, hook.name());
        let now = self.clock.now();
        let mut logged = self.logged.lock();
        if logged.is_none_or(|logged| now.since(logged) >= LOG_EVERY) {
            *logged = Some(now);
            tracing::warn!(tenant, endpoint, hook, reason, "a hook is not answered");
        } else {
            tracing::debug!(tenant, endpoint, hook, reason, "a hook is not answered");
        }
    }
}

/// Path and query of a hook.
fn path_of(url: &str, hook: Hook) -> Result<String, String> {
    let url: Url = (url.replace(HOOK_IN_URL, hook.name()).parse())
        .map_err(|error| format!("url cannot be used: {error}"))?;
    Ok(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())))
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let Endpoint { circuit, clock, tenant, name, .. } = self.endpoint;
        let mut circuit = circuit.lock();
        let before = circuit.state();
        circuit.record(self.period, self.sign, clock.now());
        let after = circuit.state();
        drop(circuit);
        if before != after {
            tracing::warn!(
                tenant,
                endpoint = name,
                ?before,
                ?after,
                "the breaker of a hook's endpoint has changed"
            );
        }
    }
}

#[cfg(test)]
mod tests;
