//! Who publishes: a client over the wire, or the server API.

use std::ops::Range;

use anyhow::{Result, bail};
use serde_json::value::RawValue;
use tidewire_protocol::http::{ApiError, ApiReply, PublishResult};
use tidewire_protocol::{Encoding, Method, Opaque, PublishRequest};

use super::client::{Connection, into_error};
use super::http::{Answer, Http};
use super::number::data;
use super::target::Target;
use crate::failed::Failed;
use crate::hint::explain;

/// Bytes of data published together: with what stands around it well below the 64 KiB that a client's frame may have.
const TOGETHER_BYTES_MAX: usize = 32 * 1024;
/// Events published together, where they are small.
const TOGETHER_EVENTS_MAX: usize = 100;

/// How events are published, and what they look like.
#[derive(clap::Args)]
pub(super) struct PublishArguments {
    /// Key of the server API, over which events are published
    #[arg(long, env = "TIDEWIRE_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Publish as a client does, where the server has no API or its channel lets clients publish
    #[arg(long)]
    publish_from_client: bool,
    /// Size of the data of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
}

/// A way to publish that was chosen.
#[derive(Clone)]
pub(super) struct Publishing {
    /// None to publish as a client.
    api_key: Option<String>,
    bytes: usize,
}

/// A connection that publishes.
pub(super) struct Publisher {
    way: Way,
    bytes: usize,
}

enum Way {
    Client(Connection, Encoding),
    /// With the head of a request up to its length.
    Api(Http, String),
}

impl PublishArguments {
    pub(super) fn chosen(self) -> Result<Publishing, Failed> {
        let bytes = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        match self.api_key {
            _ if self.publish_from_client => Ok(Publishing { api_key: None, bytes }),
            Some(key) if key.chars().any(char::is_control) => {
                Err(Failed::Usage("--api-key holds a control character".into()))
            }
            Some(key) => Ok(Publishing { api_key: Some(key), bytes }),
            None => Err(Failed::Usage(
                "nothing to publish with: give --api-key or TIDEWIRE_API_KEY to publish over the server API, or \
                 --publish-from-client to do it over the wire"
                    .into(),
            )),
        }
    }
}

impl Publishing {
    /// The way in words.
    pub(super) fn name(&self) -> &'static str {
        if self.api_key.is_some() { "server API" } else { "client" }
    }

    pub(super) async fn open(&self, target: &Target) -> Result<Publisher> {
        let way = match &self.api_key {
            None => Way::Client(Connection::open(target).await.map_err(into_error)?, target.encoding),
            Some(key) => {
                let head = format!(
                    "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nX-API-Key: {key}\r\nContent-Length: ",
                    target.http_path("/api/publish"),
                    target.authority()
                );
                Way::Api(Http::open(target).await?, head)
            }
        };
        Ok(Publisher { way, bytes: self.bytes })
    }
}

impl Publisher {
    /// Publishes an event for each number, together as far as a frame holds them; returns when the server has taken all.
    pub(super) async fn publish(&mut self, channel: &str, numbers: Range<u64>) -> Result<()> {
        let events: Vec<String> = numbers.map(|number| data(number, self.bytes)).collect();
        let together = (TOGETHER_BYTES_MAX / self.bytes.max(1)).clamp(1, TOGETHER_EVENTS_MAX);
        for some in events.chunks(together) {
            self.publish_together(channel, some).await?;
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        if let Way::Client(connection, _) = self.way {
            connection.close().await;
        }
    }

    async fn publish_together(&mut self, channel: &str, events: &[String]) -> Result<()> {
        match &mut self.way {
            Way::Client(connection, encoding) => {
                let requests: Result<Vec<_>, _> =
                    events.iter().map(|event| client_request(channel, event, *encoding)).collect();
                connection.publish(requests?).await.map_err(into_error)
            }
            Way::Api(http, head) => {
                let channel = serde_json::to_string(channel)?;
                let requests: String = events
                    .iter()
                    .map(|event| format!(r#"{{"channel":{channel},"data":{event}}}"#))
                    .map(|body| format!("{head}{}\r\n\r\n{body}", body.len()))
                    .collect();
                http.send(&requests).await?;
                for _ in events {
                    check(&http.answer().await?)?;
                }
                Ok(())
            }
        }
    }
}

fn client_request<'a>(channel: &'a str, event: &'a str, encoding: Encoding) -> Result<Method<'a>> {
    let data = match encoding {
        Encoding::Json => Opaque::from(serde_json::from_str::<&RawValue>(event)?),
        Encoding::Protobuf => Opaque::from(event.as_bytes()),
    };
    Ok(Method::Publish(PublishRequest { channel: channel.into(), data: Some(data) }))
}

fn check(Answer { status, body }: &Answer) -> Result<()> {
    match serde_json::from_str::<ApiReply<'_, PublishResult<'_>>>(body) {
        _ if *status == 401 => bail!("the server does not accept this API key (status 401)"),
        Ok(ApiReply::Result(_)) => Ok(()),
        Ok(ApiReply::Error(ApiError { code, message, .. })) => bail!("publish: {}", explain(code, &message)),
        Err(_) => bail!("the server API answers status {status}: without one, give --publish-from-client"),
    }
}
