//! What is in a request: an event in one of four shapes.

use bytes::Bytes;
use serde::Serialize;
use tidewire::name::ChannelPath;
use tidewire::{Event, cloudevents};
use tidewire_protocol::{JsonData, RawValue};

use crate::config::WebhookBody;

const CONTENT_TYPE: &str = "content-type";
const JSON: &str = "application/json";

/// The body of a request, and the headers that say what it is: `content-type`, and in binary mode an event's attributes.
pub(super) fn of(event: &Event, channel: &ChannelPath, shape: WebhookBody) -> (Vec<(String, String)>, Bytes) {
    let only = |content_type: &str| vec![(CONTENT_TYPE.to_owned(), content_type.to_owned())];
    match shape {
        WebhookBody::Standard => {
            let data = JsonData::from_any(event.data());
            let timestamp = event.time().to_string();
            let body = Standard { event_type: event.event_type(), timestamp, data: data.as_raw() };
            // Strings and checked raw JSON into memory: there is nothing that can fail.
            (only(JSON), serde_json::to_vec(&body).unwrap_or_default().into())
        }
        WebhookBody::CloudEvents => {
            let content_type = format!("{}; charset=utf-8", cloudevents::STRUCTURED);
            (only(&content_type), cloudevents::to_json(event, channel))
        }
        WebhookBody::CloudEventsBinary => cloudevents::to_binary(event, channel),
        WebhookBody::Data => (only(event.content_type().unwrap_or(JSON)), event.data().clone()),
    }
}

#[derive(Serialize)]
struct Standard<'e> {
    #[serde(rename = "type")]
    event_type: &'e str,
    timestamp: String,
    data: &'e RawValue,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(event: &Event, shape: WebhookBody) -> Value {
        let channel = ChannelPath::new("test", "shop", "orders").unwrap();
        serde_json::from_slice(&of(event, &channel, shape).1).unwrap()
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
    fn a_cloud_event_is_whole_in_the_body_or_in_headers_and_body() {
        let event =
            Event::new("order.placed", r#"{"id":7}"#).with_subject("order 7").with_extension("region", "eu");
        let expected = json!({
            "specversion": "1.0", "id": event.id().to_string(), "type": "order.placed", "source": "/shop/orders",
            "subject": "order 7", "region": "eu", "data": {"id": 7},
        });
        assert_eq!(body(&event, WebhookBody::CloudEvents), expected);
        let channel = ChannelPath::new("test", "shop", "orders").unwrap();
        let (headers, data) = of(&event, &channel, WebhookBody::CloudEventsBinary);
        assert!(headers.contains(&("ce-subject".into(), "order%207".into())), "{headers:?}");
        assert!(headers.contains(&("content-type".into(), "application/json".into())), "{headers:?}");
        assert_eq!(data, event.data());
    }

    #[test]
    fn data_alone_is_sent_as_it_is() {
        let event = Event::new("a", "x=1").with_content_type("text/plain");
        let channel = ChannelPath::new("test", "shop", "orders").unwrap();
        let (headers, data) = of(&event, &channel, WebhookBody::Data);
        assert_eq!((headers, data), (vec![("content-type".into(), "text/plain".into())], Bytes::from("x=1")));
    }
}
