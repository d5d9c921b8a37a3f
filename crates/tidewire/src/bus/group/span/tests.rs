use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::*;
use crate::{Emit, Outcome, Retries, Start, Tidewire};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const OWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";

type Fields = BTreeMap<String, String>;

/// What is recorded on a target.
#[derive(Clone)]
struct Recorder {
    target: &'static str,
    level: Level,
    spans: Arc<Mutex<Vec<Fields>>>,
    lines: Arc<Mutex<Vec<Fields>>>,
}

impl Recorder {
    fn on(target: &'static str, level: Level) -> (Self, DefaultGuard) {
        let recorder = Self { target, level, spans: Arc::default(), lines: Arc::default() };
        let subscriber = tracing_subscriber::registry().with(recorder.clone());
        (recorder, tracing::subscriber::set_default(subscriber))
    }
}

struct Visitor<'f>(&'f mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").trim_matches('"').into());
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == self.target && *metadata.level() <= self.level
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Visitor(&mut fields));
        self.spans.lock().push(fields);
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        self.lines.lock().push(fields);
    }
}

fn placed() -> Event {
    let event = Event::new("order.placed", "the secret").with_correlation_id("c-7");
    event.with_trace_parent(&format!("00-{TRACE}-{SPAN}-01"))
}

#[test]
fn a_trace_parent_is_read_as_the_w3c_writes_it() {
    for text in [
        format!("00-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-00"),
        format!("7a-{TRACE}-{SPAN}-01-of a later version"),
    ] {
        assert_eq!(parse(&text), Some((TRACE, SPAN)), "{text}");
    }
    let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
    for text in [
        String::new(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{no_trace}-{SPAN}-01"),
        format!("00-{TRACE}-{no_span}-01"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}{SPAN}-{SPAN}-01"),
    ] {
        assert_eq!(parse(&text), None, "{text}");
    }
}

#[tokio::test]
async fn a_handler_runs_in_a_span_linked_to_the_trace_of_its_event_which_goes_on_with_what_it_emits() {
    let (recorder, _guard) = Recorder::on("tidewire::consume", Level::DEBUG);
    let node = Tidewire::open("memory:").await.unwrap();
    let tenant = node.tenant("shop").unwrap();
    let (orders, mails) = (tenant.channel("orders").unwrap(), tenant.channel("mails").unwrap());
    let (inside, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let (noted, told) = (inside.clone(), done.clone());
    let handler = move |emit: Emit| {
        let (noted, told) = (noted.clone(), told.clone());
        async move {
            noted.lock().push(Span::current().metadata().map(Metadata::name));
            emit.append("mails", Event::new("mail.due", "")).unwrap();
            // As a program does that has made a span of its own.
            emit.append("mails", Event::new("mail.due", "").with_trace_parent(OWN)).unwrap();
            told.notify_one();
        }
    };
    let mut received = mails.subscribe().open().await.unwrap();
    let consumer = orders.group("billing", Start::Earliest).unwrap().consume().run(handler).await.unwrap();
    let event = placed();
    let receipt = orders.append(event.clone()).await.unwrap();
    done.notified().await;
    assert_eq!(*inside.lock(), [Some("consume")]);
    let span = recorder.spans.lock()[0].clone();
    for (name, value) in [
        ("otel.name", "consume orders"),
        ("otel.kind", "consumer"),
        ("tenant", "shop"),
        ("channel", "orders"),
        ("group", "billing"),
        ("position", &receipt.position.unwrap().to_string()),
        ("attempt", "1"),
        ("event_id", &event.id().to_string()),
        ("event_type", "order.placed"),
        ("correlation_id", "c-7"),
        ("trace_id", TRACE),
        ("parent_span_id", SPAN),
    ] {
        assert_eq!(span.get(name).map(String::as_str), Some(value), "{name} of {span:?}");
    }
    for trace_parent in [event.trace_parent(), Some(OWN)] {
        let item = received.next().await.and_then(|item| item.into_event()).unwrap();
        assert_eq!(item.event.trace_parent(), trace_parent);
    }
    consumer.stop().await;
}

#[tokio::test]
async fn the_event_log_has_a_line_for_each_stage_and_never_the_data() {
    let (recorder, _guard) = Recorder::on("tidewire::events", Level::TRACE);
    let node = Tidewire::open("memory:").await.unwrap();
    let orders = node.tenant("shop").unwrap().channel("orders").unwrap();
    let group = orders.group("billing", Start::Earliest).unwrap();
    let first_retry = Retries { immediate_count: 1, ..Retries::default() };
    let handler = |delivery: Delivery| async move {
        match delivery.attempt() {
            1 => Outcome::retry("too early"),
            _ => Outcome::reject("card declined"),
        }
    };
    let consumer = group.consume().retries(first_retry).run(handler).await.unwrap();
    let event = placed();
    orders.append(event.clone()).await.unwrap();
    while consumer.stats().dead == 0 {
        tokio::task::yield_now().await;
    }
    consumer.stop().await;
    let lines = recorder.lines.lock().clone();
    let of = |line: &Fields, name: &str| line.get(name).cloned().unwrap_or_default();
    let stages: Vec<_> =
        lines.iter().map(|line| ["stage", "outcome", "error"].map(|name| of(line, name))).collect();
    let expected = [
        ["appended", "", ""],
        ["delivered", "", ""],
        ["settled", "retry", "too early"],
        ["delivered", "", ""],
        ["settled", "reject", "card declined"],
        ["dead", "", "card declined"],
    ];
    assert_eq!(stages, expected);
    for line in &lines {
        assert_eq!(of(line, "id"), event.id().to_string());
        assert_eq!([of(line, "type"), of(line, "channel")], ["order.placed", "orders"]);
        assert_eq!(of(line, "correlation_id"), "c-7");
        assert!(line.contains_key("latency_us"), "{line:?}");
        assert!(!line.values().any(|value| value.contains("secret")), "{line:?}");
    }
}

#[tokio::test]
async fn a_consumer_is_counted_with_its_group_and_a_channel_with_what_was_sent_to_it() {
    let node = Tidewire::open("memory:").await.unwrap();
    let orders = node.tenant("shop").unwrap().channel("orders").unwrap();
    let group = orders.group("billing", Start::Earliest).unwrap();
    let handler = |emit: Emit| async move { emit.append("mails", Event::new("mail.due", "")).unwrap() };
    let consumer = group.consume().run(handler).await.unwrap();
    orders.append(placed()).await.unwrap();
    orders.publish(placed()).await.unwrap();
    while consumer.stats().acked == 0 {
        tokio::task::yield_now().await;
    }
    let activity = node.consumers();
    assert_eq!((activity.len(), activity[0].consumers), (1, 1));
    assert_eq!(activity[0].group.as_ref(), Some(group.path()));
    consumer.stop().await;
    let activity = node.consumers();
    let stats = activity[0].stats;
    assert_eq!((activity[0].consumers, stats.acked, stats.handler_times.count()), (0, 1, 1));
    let mut channels: Vec<_> = node
        .channels(10)
        .into_iter()
        .map(|activity| {
            let name = activity.channel.unwrap().channel().to_owned();
            (name, activity.published.succeeded, activity.appended.succeeded)
        })
        .collect();
    channels.sort();
    assert_eq!(channels, [("mails".into(), 0, 1), ("orders".into(), 1, 1)]);
}

#[tokio::test]
async fn what_is_handed_back_while_the_consumer_stops_is_not_begun_again() {
    let node = Tidewire::open("memory:").await.unwrap();
    let orders = node.tenant("shop").unwrap().channel("orders").unwrap();
    let group = orders.group("billing", Start::Earliest).unwrap();
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, wait) = (began.clone(), go_on.clone());
    let handler = move || {
        let (begin, wait) = (begin.clone(), wait.clone());
        async move {
            begin.notify_one();
            wait.notified().await;
            wait.notify_one();
            Outcome::HandBack
        }
    };
    let consumer = group.consume().stop_within(Duration::from_secs(3_600)).run(handler).await.unwrap();
    orders.append(placed()).await.unwrap();
    began.notified().await;
    let stopping = async {
        tokio::task::yield_now().await;
        go_on.notify_one();
    };
    tokio::join!(consumer.stop(), stopping);
    assert_eq!((consumer.stats().delivered, consumer.stats().handed_back), (1, 1));
}
