use bytes::Bytes;
use serde::Deserialize;

use super::*;
use crate::limits::{EMITTED_BYTES_MAX, EMITTED_EVENTS_MAX};

#[derive(Debug, Deserialize, PartialEq)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Line {
    price: u64,
}

fn delivery_of(data: &'static str) -> Delivery {
    Delivery::sample(Event::new("order.placed", data), States::default())
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Reject { reason } => reason.into(),
        other => panic!("expected a reject, got {other:?}"),
    }
}

#[test]
fn data_is_read_as_json() {
    let delivery = delivery_of(r#"{"lines":[{"price":3}]}"#);
    let Json(order) = Json::<Order>::from_delivery(&delivery).unwrap();
    assert_eq!(order.lines, [Line { price: 3 }]);
    assert_eq!(Bytes::from_delivery(&delivery).unwrap(), r#"{"lines":[{"price":3}]}"#);
}

#[test]
fn data_that_cannot_be_read_is_rejected_with_place_and_reason() {
    let not_read =
        |data| reason(Json::<Order>::from_delivery(&delivery_of(data)).expect_err("it cannot be read"));
    let text = not_read(r#"{"lines":[{"price":3},{"price":-1}]}"#);
    assert!(text.contains("Order at lines[1].price: invalid value: integer `-1`"), "{text}");
    let text = not_read("{");
    assert!(text.contains("Order") && text.contains("EOF"), "{text}");
    let text = not_read(r#"{"lines":[]} and more"#);
    assert!(text.contains("trailing characters"), "{text}");
}

#[test]
fn a_state_that_was_not_given_is_found_before_the_first_delivery() {
    let mut states = States::default();
    let error = State::<u32>::check(&states).expect_err("it was not given");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("State<u32>"), "{error}");
    states.insert(7_u32);
    State::<u32>::check(&states).unwrap();
    let delivery = Delivery::sample(Event::new("a", ""), states);
    assert_eq!(State::<u32>::from_delivery(&delivery).unwrap(), State(7));
}

#[test]
fn what_is_emitted_says_what_caused_it() {
    let cause = Event::new("order.placed", "").with_correlation_id("talk");
    let delivery = Delivery::sample(cause.clone(), States::default());
    let emit = Emit::from_delivery(&delivery).unwrap();
    emit.append("shipped", Event::new("order.shipped", "{}")).unwrap();
    let emitted = delivery.close_emitted();
    let [Emitted { channel, event }] = emitted.as_slice() else { panic!("one event, got {emitted:?}") };
    assert_eq!((&**channel, event.event_type()), ("shipped", "order.shipped"));
    assert_eq!(event.causation_id(), Some(cause.id().to_string().as_str()));
    assert_eq!(event.correlation_id(), Some("talk"));
}

#[test]
fn what_cannot_be_appended_is_refused_at_once() {
    let delivery = delivery_of("");
    let emit = Emit::from_delivery(&delivery).unwrap();
    let kind = |channel: &str, bytes: usize| {
        let event = Event::new("a", vec![0; bytes]);
        emit.append(channel, event).expect_err("it cannot be appended").kind()
    };
    assert_eq!(kind("a*", 1), ErrorKind::InvalidName);
    assert_eq!(kind("a", 1024 * 1024 + 1), ErrorKind::TooLarge);
    assert!(delivery.close_emitted().is_empty());
}

#[test]
fn what_one_delivery_emits_is_bounded() {
    let delivery = delivery_of("");
    let emit = Emit::from_delivery(&delivery).unwrap();
    for _ in 0..EMITTED_EVENTS_MAX {
        emit.append("a", Event::new("a", "")).unwrap();
    }
    let error = emit.append("a", Event::new("a", "")).expect_err("one too many");
    assert!(error.to_string().contains("EMITTED_EVENTS_MAX"), "{error}");

    let emit = Emit::from_delivery(&delivery_of("")).unwrap();
    let half = || Event::new("a", vec![0; EMITTED_BYTES_MAX / 2]);
    emit.append("a", half()).unwrap();
    let error = emit.append("a", half()).expect_err("with their attributes they are too large");
    assert!(error.to_string().contains("EMITTED_BYTES_MAX"), "{error}");
}

#[test]
fn what_is_emitted_after_the_delivery_was_settled_is_refused() {
    let delivery = delivery_of("");
    let emit = Emit::from_delivery(&delivery).unwrap();
    assert!(delivery.close_emitted().is_empty());
    let error = emit.append("a", Event::new("a", "")).expect_err("nobody would append it");
    assert_eq!(error.kind(), ErrorKind::Closed);
}
