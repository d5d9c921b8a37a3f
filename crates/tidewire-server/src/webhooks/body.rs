//! What is in a request: an event in one of three shapes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tidewire::Event;
use tidewire::name::ChannelPath;
use tidewire_protocol::{JsonData, RawValue};

use crate::config::WebhookBody;

const JSON: &str = "application/json";

/// The body of a request, and its content type.
pub(super) fn of(event: &Event, channel: &ChannelPath, shape: WebhookBody) -> (Bytes, String) {
    match shape {
        WebhookBody::Standard => {
            let data = JsonData::from_any(event.data());
            let timestamp = event.time().to_string();
            let body = Standard { event_type: event.event_type(), timestamp, data: data.as_raw() };
            (encode(&body), JSON.into())
        }
        WebhookBody::CloudEvents => {
            (encode(&CloudEvent { event, channel }), "application/cloudevents+json; charset=utf-8".into())
        }
        WebhookBody::Data => (event.data().clone(), event.content_type().unwrap_or(JSON).into()),
    }
}

fn encode(body: &impl Serialize) -> Bytes {
    // Strings and checked raw JSON into memory: there is nothing that can fail.
    serde_json::to_vec(body).unwrap_or_default().into()
}

#[derive(Serialize)]
struct Standard<'e> {
    #[serde(rename = "type")]
    event_type: &'e str,
    timestamp: String,
    data: &'e RawValue,
}

/// An event in the [JSON format](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md) of
/// CloudEvents, structured mode.
struct CloudEvent<'e> {
    event: &'e Event,
    channel: &'e ChannelPath,
}

impl Serialize for CloudEvent<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let Self { event, channel } = self;
        let mut map = output.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &event.id().to_string())?;
        map.serialize_entry("type", event.event_type())?;
        map.serialize_entry("time", &event.time().to_string())?;
        // CloudEvents knows no event without a source; a channel is one.
        match event.source() {
            Some(source) => map.serialize_entry("source", source)?,
            None => map.serialize_entry("source", &format!("/{}/{}", channel.tenant(), channel.channel()))?,
        }
        for (name, value) in event.attributes().filter(|(name, _)| *name != "source") {
            map.serialize_entry(name, value)?;
        }
        match JsonData::from_json(event.data()) {
            _ if event.data().is_empty() => {}
            Ok(data) if event.content_type().is_none_or(is_json) => {
                map.serialize_entry("data", data.as_raw())?;
            }
            _ => map.serialize_entry("data_base64", &BASE64.encode(event.data()))?,
        }
        map.end()
    }
}

fn is_json(content_type: &str) -> bool {
    let (kind, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    let kind = kind.trim().to_ascii_lowercase();
    kind == JSON || kind.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(event: &Event, shape: WebhookBody) -> Value {
        let channel = ChannelPath::new("test", "shop", "orders").unwrap();
        serde_json::from_slice(&of(event, &channel, shape).0).unwrap()
    }

    #[test]
    fn the_standard_body_has_type_time_and_data() {
        let time = "2026-01-31T12:00:00Z";
        let event = Event::new("order.placed", r#"{"id":7}"#).with_time(time.parse().unwrap());
        let expected = json!({"type": "order.placed", "timestamp": time, "data": {"id": 7}});
        assert_eq!(body(&event, WebhookBody::Standard), expected);
        assert_eq!(body(&Event::new("a", "not JSON"), WebhookBody::Standard)["data"], "not JSON");
    }

    #[test]
    fn a_cloud_event_has_every_attribute_and_bytes_that_are_no_json_as_base64() {
        let event = Event::new("order.placed", r#"{"id":7}"#)
            .with_time("2026-01-31T12:00:00Z".parse().unwrap())
            .with_subject("order/7")
            .with_key("7")
            .with_extension("region", "eu");
        let expected = json!({
            "specversion": "1.0", "id": event.id().to_string(), "type": "order.placed", "time": "2026-01-31T12:00:00Z",
            "source": "/shop/orders", "subject": "order/7", "partitionkey": "7", "region": "eu", "data": {"id": 7},
        });
        assert_eq!(body(&event, WebhookBody::CloudEvents), expected);
        let text = event.with_content_type("text/plain").with_source("/erp");
        let text = body(&text, WebhookBody::CloudEvents);
        assert_eq!((&text["source"], &text["data_base64"]), (&json!("/erp"), &json!("eyJpZCI6N30=")));
        assert_eq!(text.get("data"), None);
    }

    #[test]
    fn data_alone_is_sent_as_it_is() {
        let event = Event::new("a", "x=1").with_content_type("text/plain");
        let channel = ChannelPath::new("test", "shop", "orders").unwrap();
        assert_eq!(of(&event, &channel, WebhookBody::Data), (Bytes::from("x=1"), "text/plain".into()));
    }
}
