//! What a backend is told when it is asked.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::{Encoding, JsonData, JsonDataError, Opaque};

use super::ClientHeaders;
use crate::config::HookData;
use crate::failure::Failure;

/// The connection that somebody is asked for.
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a str,
    pub(crate) transport: &'static str,
    pub(crate) protocol: Encoding,
    /// `None` as long as it is not known.
    pub(crate) user: Option<&'a str>,
    /// `meta`, as JSON.
    pub(crate) meta: Option<&'a Arc<str>>,
    pub(crate) headers: &'a ClientHeaders,
}

/// What is asked, beside for whom.
#[derive(Default)]
pub(crate) struct Question<'a> {
    pub(crate) channel: Option<&'a str>,
    pub(crate) method: Option<&'a str>,
    pub(crate) data: Option<&'a Opaque<'a>>,
    /// The client's name for its kind, and its version.
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    /// The server-side subscriptions that it had.
    pub(crate) channels: Vec<&'a str>,
}

/// Fields are those of Centrifugo's proxy, in its order.
#[derive(Serialize)]
struct Body<'a> {
    client: &'a str,
    transport: &'static str,
    protocol: &'static str,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Box<RawValue>>,
}

/// The body of an ask.
///
/// # Errors
/// The client's data nests too deep.
pub(super) fn of(asker: &Asker<'_>, question: &Question<'_>, form: HookData) -> Result<Vec<u8>, Failure> {
    let data = question.data.map(|data| as_json(data, form)).transpose()?;
    let (encoding, data, b64data) = match data {
        Some(Sent::Base64(text)) => ("binary", None, Some(text)),
        Some(Sent::Json(json)) => ("json", Some(json), None),
        None if form == HookData::Base64 => ("binary", None, None),
        None => ("json", None, None),
    };
    let body = Body {
        client: asker.client,
        transport: asker.transport,
        protocol: match asker.protocol {
            Encoding::Json => "json",
            Encoding::Protobuf => "protobuf",
        },
        encoding,
        user: asker.user,
        channel: question.channel,
        method: question.method,
        data,
        b64data,
        name: question.name,
        version: question.version,
        channels: question.channels.clone(),
        meta: asker.meta.and_then(|meta| RawValue::from_string(meta.to_string()).ok()),
    };
    // Strings and JSON: there is nothing that can fail.
    serde_json::to_vec(&body)
        .map_err(|error| Failure { detail: Some(error.to_string()), ..ErrorCode::INTERNAL.into() })
}

enum Sent<'a> {
    Json(Cow<'a, RawValue>),
    Base64(String),
}

fn as_json<'a>(data: &'a Opaque<'a>, form: HookData) -> Result<Sent<'a>, Failure> {
    if form == HookData::Base64 {
        return Ok(Sent::Base64(STANDARD.encode(data.as_bytes())));
    }
    let json = match data {
        Opaque::Json(json) => JsonData::from_raw(json),
        Opaque::Bytes(bytes) => JsonData::from_json(bytes),
    };
    match json {
        Ok(json) => Ok(Sent::Json(Cow::Owned(json.as_raw().to_owned()))),
        Err(JsonDataError::NotJson) => Ok(Sent::Base64(STANDARD.encode(data.as_bytes()))),
        Err(error) => Err(Failure::new(ErrorCode::BAD_REQUEST, error.to_string())),
    }
}
