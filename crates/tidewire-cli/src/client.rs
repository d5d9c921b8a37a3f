//! The server API over HTTP.

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tidewire_protocol::http::{ApiError, ApiReply, PublishRequest, PublishResult};
use ureq::http::Request;
use ureq::{Agent, Error};

use crate::failed::Failed;
use crate::hint::explain;
use crate::print::one_line;
use crate::rest::RestPath;
use crate::server_url::{ServerArguments, ServerPlace, ServerUrl};
use crate::tls;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// From the request to the end of its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Of an answer that is no answer of ours, shown in an error.
const FOREIGN_ANSWER_CHARACTERS: usize = 200;

/// Which server to call, and by which right.
#[derive(clap::Args)]
pub(crate) struct ApiArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Key of the server API; it says which tenant the channel is in
    #[arg(long, env = "TIDEWIRE_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,
}

/// A server's API.
pub(crate) struct Api {
    agent: Agent,
    server: ServerPlace,
    key: String,
}

/// Where a kept event stands.
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
}

impl ApiArguments {
    pub(crate) fn api(self) -> Result<Api, Failed> {
        let key = self.api_key.ok_or_else(|| {
            Failed::Usage(
                "no API key: give it with --api-key or TIDEWIRE_API_KEY; a server started with `tidewire serve \
                 --dev` prints its own"
                    .into(),
            )
        })?;
        let server = self.server.place()?;
        Ok(Api { agent: agent(&server), server, key })
    }
}

impl Api {
    /// Publishes an event; the answer is `None` if it was live.
    pub(crate) fn publish(&self, request: &PublishRequest<'_>) -> Result<Option<Place>> {
        let answer = self.post("/api/publish", serde_json::to_string(request)?)?;
        let result: PublishResult<'_> = self.result(&answer)?;
        Ok((result.offset > 0).then(|| Place { offset: result.offset, epoch: result.epoch.into_owned() }))
    }

    /// Calls the REST API; the result of a success, whatever it is.
    pub(crate) fn rest<T: DeserializeOwned>(&self, verb: Verb, path: &str, body: String) -> Result<T> {
        let answer = self.call(verb, path, body)?;
        match answer.status {
            200 | 201 => serde_json::from_str(&answer.text).map_err(|_| self.foreign(&answer)),
            // Only an error is left to be read.
            _ => Err(self.result::<IgnoredAny>(&answer).err().unwrap_or_else(|| self.foreign(&answer))),
        }
    }

    /// Reads what is at a path and has no end, until the server or the caller is gone.
    pub(crate) fn lines(&self, path: &RestPath) -> Result<impl BufRead + use<>, LinesError> {
        let request = self.request(Verb::Get, path.as_str(), "").map_err(LinesError::Final)?;
        let mut response = agent_within(&self.server, None)
            .run(request)
            .map_err(|error| LinesError::Lost(unreachable(&self.server.url, error)))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(BufReader::new(response.into_body().into_reader()));
        }
        let text = response.body_mut().read_to_string();
        let text = text.map_err(|error| LinesError::Lost(unreachable(&self.server.url, error)))?;
        let answer = Answer { status, text };
        let error = self.result::<IgnoredAny>(&answer).err().unwrap_or_else(|| self.foreign(&answer));
        Err(if matches!(status, 429 | 500..) { LinesError::Lost(error) } else { LinesError::Final(error) })
    }

    fn post(&self, path: &str, body: String) -> Result<Answer> {
        self.call(Verb::Post, path, body)
    }

    fn call(&self, verb: Verb, path: &str, body: String) -> Result<Answer> {
        let request = self.request(verb, path, body)?;
        let mut response = self.agent.run(request).map_err(|error| unreachable(&self.server.url, error))?;
        let status = response.status().as_u16();
        let text =
            response.body_mut().read_to_string().map_err(|error| unreachable(&self.server.url, error))?;
        Ok(Answer { status, text })
    }

    fn request<B>(&self, verb: Verb, path: &str, body: B) -> Result<Request<B>> {
        let request = Request::builder().method(verb.as_str()).uri(self.server.url.http(path));
        let request = request.header("Content-Type", "application/json").header("X-API-Key", &self.key);
        request.body(body).context("the request cannot be made")
    }

    fn result<'a, T: Deserialize<'a>>(&self, answer: &'a Answer) -> Result<T> {
        let Answer { status, text } = answer;
        match (serde_json::from_str(text), status) {
            (Ok(ApiReply::Result(result)), 200) => Ok(result),
            (_, 401) => bail!("{} does not accept this API key (status 401)", self.server.url),
            (Ok(ApiReply::Error(ApiError { code, message, .. })), _) => bail!(explain(code, &message)),
            _ => Err(self.foreign(answer)),
        }
    }

    fn foreign(&self, Answer { status, text }: &Answer) -> anyhow::Error {
        let start: String = text.chars().take(FOREIGN_ANSWER_CHARACTERS).collect();
        anyhow!("{} answers like no Tidewire server: status {status}: {}", self.server.url, one_line(&start))
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// Why there are no lines, or no more.
pub(crate) enum LinesError {
    /// Another attempt may succeed.
    Lost(anyhow::Error),
    /// No attempt will, until something is changed.
    Final(anyhow::Error),
}

struct Answer {
    status: u16,
    text: String,
}

/// An HTTP client that returns every answer, whatever its status.
pub(crate) fn agent(server: &ServerPlace) -> Agent {
    agent_within(server, Some(ANSWER_WITHIN))
}

/// The same with a time from the request to the end of its answer; without one only its beginning is waited for as long.
fn agent_within(server: &ServerPlace, time_max: Option<Duration>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // The API never redirects, and our WebSocket would not go by a proxy either: all or nothing.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_recv_response(Some(ANSWER_WITHIN))
        .timeout_global(time_max);
    let config = match &server.roots {
        Some(roots) => config.tls_config(roots.for_http()),
        None => config,
    };
    Agent::new_with_config(config.build())
}

/// What it means that a request got no answer.
pub(crate) fn unreachable(url: &ServerUrl, error: Error) -> anyhow::Error {
    match error {
        Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => anyhow!(url.refused()),
        Error::Io(error) if tls::remedy(&error).is_some() => {
            let remedy = tls::remedy(&error).unwrap_or_default();
            anyhow!("cannot trust {url}: {error}; {remedy}")
        }
        Error::HostNotFound => anyhow!("no host of that name: {url}"),
        Error::Timeout(_) => anyhow!("{url} gave no answer in time; what was asked may have happened"),
        error => anyhow::Error::new(error).context(format!("lost {url}")),
    }
}
