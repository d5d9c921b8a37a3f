//! Binary mode of the [HTTP binding](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md)
//! of CloudEvents: attributes in headers, data as the body.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::attributes::{self, CONTENT_TYPE, Incoming, fault, shown};
use crate::error::Result;
use crate::event::Event;
use crate::name::ChannelPath;

const PREFIX: &str = "ce-";
const CONTENT_TYPE_HEADER: &str = "content-type";
const JSON: &str = "application/json";
/// What is percent-encoded in a header beside all that is not ASCII; section 3.1.3.2.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// An event in binary mode: headers with lower-case names, and the body.
///
/// Values are percent-encoded as section 3.1.3.2 of the binding says. Data without a content type is told as
/// `application/json`. Else as [`to_json`](super::to_json).
pub fn to_binary(event: &Event, channel: &ChannelPath) -> (Vec<(String, String)>, Bytes) {
    let encoded = |value: Cow<'_, str>| utf8_percent_encode(&value, ENCODED).to_string();
    let attributes = attributes::of(event, channel);
    let mut headers: Vec<_> =
        attributes.map(|(name, value)| (format!("{PREFIX}{name}"), encoded(value))).collect();
    let implied = (!event.data().is_empty()).then_some(JSON);
    let content_type = event.content_type().filter(|content_type| !content_type.is_empty());
    if let Some(content_type) = content_type.or(implied) {
        headers.push((CONTENT_TYPE_HEADER.into(), content_type.into()));
    }
    (headers, event.data().clone())
}

/// Reads an event from the headers and the body of a request in binary mode. Headers that are neither `ce-..` nor
/// `content-type` say nothing about it; upper and lower case are the same in names.
///
/// # Errors
/// As [`from_json`](super::from_json).
pub fn from_binary<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>, body: Bytes) -> Result<Event> {
    let mut incoming = Incoming::default();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if name == CONTENT_TYPE_HEADER {
            incoming.set(CONTENT_TYPE.into(), Some(value.trim().to_owned()))?;
        } else if let Some(name) = name.strip_prefix(PREFIX) {
            if name == CONTENT_TYPE {
                return Err(fault("header \"ce-datacontenttype\" is reserved: send content-type"));
            }
            incoming.set(name.to_owned(), Some(decoded(name, value)?))?;
        }
    }
    incoming.into_event(body)
}

/// The value of an attribute in a header: unquoted, then percent-decoded once.
fn decoded(name: &str, value: &str) -> Result<String> {
    let broken = |what: &str| fault(format!("header of attribute {} {what}", shown(name)));
    let value = unquoted(value.trim()).ok_or_else(|| broken("has a quote that is not closed at its end"))?;
    if !value.is_ascii() {
        return Err(broken("has a character that must be percent-encoded"));
    }
    if !attributes::is_percent_encoded(&value) {
        return Err(broken("has a % before what are no two hexadecimal digits: write %25"));
    }
    let decoded = percent_decode_str(&value).decode_utf8();
    Ok(decoded.map_err(|_| broken("is percent-encoded from what is not UTF-8"))?.into_owned())
}

/// What stands between double quotes, backslash escapes resolved (RFC 7230, 3.2.6); all of it, where none is at its beginning.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else { return Some(value.into()) };
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
    characters.as_str().is_empty().then(|| text.into())
}
