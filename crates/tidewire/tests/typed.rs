//! Typed events, as a service uses them: derived, sent, lifted, refused.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidewire::testing::Bench;
use tidewire::{
    Catalog, DeadKind, Emit, ErrorKind, Event, EventType, Json, Keys, Outcome, Retries, Start, State,
    Tidewire, TypedItem, Unknown, Unreadable,
};

/// An order, as it was at first.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed", channel = "orders")]
struct OrderPlacedV1 {
    id: u64,
    euros: u64,
}

/// It has a currency.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed", version = 2, previous = OrderPlacedV1, channel = "orders")]
struct OrderPlacedV2 {
    id: u64,
    cents: u64,
    currency: String,
}

/// An order was placed.
#[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[event(name = "order.placed", version = 3, previous = OrderPlacedV2, channel = "orders", key = customer, subject = id)]
#[serde(rename_all = "camelCase")]
struct OrderPlaced {
    id: u64,
    #[schemars(range(min = 1))]
    cents: u64,
    currency: String,
    customer: Option<String>,
    #[event(redact)]
    card_number: Option<String>,
}

impl From<OrderPlacedV1> for OrderPlacedV2 {
    fn from(old: OrderPlacedV1) -> Self {
        Self { id: old.id, cents: old.euros * 100, currency: "EUR".into() }
    }
}

impl From<OrderPlacedV2> for OrderPlaced {
    fn from(old: OrderPlacedV2) -> Self {
        Self { id: old.id, cents: old.cents, currency: old.currency, customer: None, card_number: None }
    }
}

/// An order was cancelled.
#[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[event(name = "order.cancelled", channel = "orders", key = customer)]
struct OrderCancelled {
    customer: String,
}

#[derive(Event, Debug, Clone, PartialEq)]
enum OrderEvent {
    Placed(OrderPlaced),
    Cancelled(OrderCancelled),
}

fn placed(id: u64) -> OrderPlaced {
    let card_number = Some("4111-1111".into());
    OrderPlaced { id, cents: 700, currency: "EUR".into(), customer: Some("ann".into()), card_number }
}

type Seen = State<Arc<Mutex<Vec<OrderPlaced>>>>;

async fn note(order: OrderPlaced, State(seen): Seen) {
    seen.lock().push(order);
}

#[tokio::test]
async fn events_of_version_1_are_read_by_a_handler_of_version_3() {
    let shop = Tidewire::open("memory:").await.unwrap().tenant("shop").unwrap();
    let orders = shop.events::<OrderPlaced>().unwrap();
    let group = orders.group("billing", Start::Earliest).unwrap().ordered(1);
    group.declare().await.unwrap();
    shop.events::<OrderPlacedV1>().unwrap().append(&OrderPlacedV1 { id: 1, euros: 2 }).await.unwrap();
    let second = OrderPlacedV2 { id: 2, cents: 3, currency: "USD".into() };
    shop.events::<OrderPlacedV2>().unwrap().append(&second).await.unwrap();
    // From before there were versions.
    orders.channel().append(Event::new("order.placed", r#"{"id":3,"euros":1}"#)).await.unwrap();
    orders.append(&placed(4)).await.unwrap();

    let seen = Arc::<Mutex<Vec<OrderPlaced>>>::default();
    let consumer = group.consume().state(seen.clone()).run(note).await.unwrap();
    let mut end = orders.subscribe().earliest().open().await.unwrap();
    for _ in 0..4 {
        assert!(matches!(end.next().await, Some(TypedItem::Event(_))));
    }
    while consumer.stats().acked < 4 {
        tokio::task::yield_now().await;
    }
    let seen = seen.lock().clone();
    let cents: Vec<_> = seen.iter().map(|order| (order.id, order.cents, &*order.currency)).collect();
    assert_eq!(cents, [(1, 200, "EUR"), (2, 3, "USD"), (3, 100, "EUR"), (4, 700, "EUR")]);
    assert_eq!(seen.last(), Some(&placed(4)));
    consumer.stop().await;
}

#[tokio::test]
async fn an_event_carries_what_its_type_declares() {
    let tidewire = Tidewire::open("memory:").await.unwrap();
    let orders = tidewire.tenant("shop").unwrap().events::<OrderPlaced>().unwrap();
    let event = orders.event(&placed(7)).unwrap();
    assert_eq!((event.event_type(), event.data_schema()), ("order.placed", Some("tidewire:order.placed/3")));
    assert_eq!((event.key(), event.subject()), (Some("ann"), Some("7")));
    assert_eq!(
        event.data(),
        r#"{"id":7,"cents":700,"currency":"EUR","customer":"ann","cardNumber":"4111-1111"}"#
    );
    let catalog = tidewire.catalog();
    assert_eq!(
        catalog.contracts().map(|contract| contract.uri().to_owned()).collect::<Vec<_>>(),
        ["tidewire:order.placed/1", "tidewire:order.placed/2", "tidewire:order.placed/3",]
    );
    let schema = &catalog.get("order.placed", 3).unwrap().definition().schema;
    assert_eq!(schema["properties"]["cardNumber"]["x-redact"], true);
    assert_eq!(schema["properties"]["cents"]["minimum"], 1);
    assert_eq!(schema["description"], "An order was placed.");
    tidewire.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_does_not_keep_to_its_contract_is_sent_nowhere() {
    let shop = Tidewire::open("memory:").await.unwrap().tenant("shop").unwrap();
    let orders = shop.events::<OrderPlaced>().unwrap();
    let error = orders.append(&OrderPlaced { cents: 0, ..placed(7) }).dedup("7").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Codec, "data at /cents: does not keep to minimum 1".into())
    );
    assert_eq!(orders.channel().stats().await.unwrap().stream.last, 0);
}

#[tokio::test]
async fn what_does_not_keep_to_its_contract_is_a_dead_letter_with_the_place_and_the_rule() {
    async fn handle(_order: OrderPlaced) {}
    let bench = Bench::new(handle).await.unwrap();
    let event =
        |data: &'static str| Event::new("order.placed", data).with_data_schema("tidewire:order.placed/3");
    let run = bench.run(event(r#"{"id":7,"cents":0,"currency":"EUR"}"#)).await.unwrap();
    assert_eq!(&*run.assert_dead().reason, "data at /cents: does not keep to minimum 1");
    let run = bench.run(event(r#"{"id":7,"cents":1,"currency":"EUR","id":8}"#)).await.unwrap();
    assert_eq!(&*run.assert_dead().reason, "data at /id: duplicate key");
    let run = bench.run(event(r#"{"id":"4111-1111","cents":1,"currency":"EUR"}"#)).await.unwrap();
    assert_eq!(run.assert_dead().kind, DeadKind::Rejected);
    assert!(!run.assert_dead().reason.contains("4111"), "{}", run.assert_dead().reason);
}

#[tokio::test]
async fn an_unknown_type_or_version_is_a_dead_letter_unless_said_otherwise() {
    async fn handle(_order: OrderPlaced) {}
    let unknown = [
        (
            Event::new("order.lost", "{}"),
            "event is of type \"order.lost\", and \"order.placed\" is read here",
        ),
        (
            Event::new("order.placed", "{}").with_data_schema("tidewire:order.placed/4"),
            "event is order.placed version 4, which is not read here",
        ),
    ];
    for (event, why) in unknown {
        let bench = Bench::new(handle).await.unwrap();
        assert_eq!(&*bench.run(event.clone()).await.unwrap().assert_dead().reason, why);
        let bench = Bench::with(handle, |consuming| consuming.unknown(Unknown::Skip)).await.unwrap();
        bench.run(event).await.unwrap().assert_acked();
    }
}

#[tokio::test]
async fn a_channel_carries_several_types_and_a_handler_takes_an_enum_of_them() {
    async fn handle(event: OrderEvent, emit: Emit) -> tidewire::Result<()> {
        match event {
            OrderEvent::Placed(order) => emit.event(&OrderCancelled { customer: order.id.to_string() }),
            OrderEvent::Cancelled(_) => Ok(()),
        }
    }
    let shop = Tidewire::open("memory:").await.unwrap().tenant("shop").unwrap();
    let orders = shop.events::<OrderEvent>().unwrap();
    let mut listening = orders.subscribe().open().await.unwrap();
    let consumer = orders.group("g", Start::Earliest).unwrap().consume().run(handle).await.unwrap();
    orders.append(&OrderEvent::Placed(placed(7))).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let Some(TypedItem::Event(typed)) = listening.next().await else { panic!("an event") };
        seen.push(typed.event);
    }
    let cancelled = OrderEvent::Cancelled(OrderCancelled { customer: "7".into() });
    assert_eq!(seen, [OrderEvent::Placed(placed(7)), cancelled]);
    consumer.stop().await;
    orders.channel().append(Event::new("order.lost", "{}")).await.unwrap();
    let Some(TypedItem::Unreadable(_, why)) = listening.next().await else { panic!("no order event") };
    assert_eq!(
        why,
        Unreadable::UnknownType("event is of type \"order.lost\", which OrderEvent does not have".into())
    );
}

#[tokio::test]
async fn what_a_handler_says_of_a_hidden_value_reaches_nobody() {
    async fn handle(order: OrderPlaced, Json(_): Json<serde_json::Value>) -> Result<(), Outcome> {
        Err(Outcome::reject(format!("card {} of {:?} declined", order.card_number.unwrap(), order.customer)))
    }
    let bench = Bench::new(handle).await.unwrap();
    let event = Tidewire::open("memory:").await.unwrap().tenant("test").unwrap();
    let event = event.events::<OrderPlaced>().unwrap().event(&placed(7)).unwrap();
    assert_eq!(&*bench.run(event).await.unwrap().assert_dead().reason, "card *** of Some(\"ann\") declined");
}

#[test]
fn a_type_that_is_declared_twice_and_not_alike_is_told_at_the_start() {
    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "order.cancelled", channel = "orders")]
    struct Other {
        customer: u64,
    }
    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "order.cancelled", version = 2, oldest, channel = "cancellations")]
    struct Elsewhere {
        customer: u64,
    }
    let catalog = Catalog::new().with::<OrderEvent>().unwrap();
    let error = catalog.clone().with::<Other>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "order.cancelled version 1 is declared twice, and not alike: make the newer one version 2"
    );
    let error = catalog.with::<Elsewhere>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(Other::VERSION, 1);
}

/// A payment was made.
#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(name = "payment.made", channel = "payments", tenant = shop, key = id, sign, seal)]
struct PaymentMade {
    shop: String,
    id: u64,
    #[event(redact)]
    iban: String,
}

fn keys(signing: &str, sealing: &str) -> Keys {
    let text = serde_json::json!({"tenants": {"*": {
        "signing": [{"id": signing, "secret": BASE64.encode(signing.repeat(32).as_bytes().first_chunk::<32>().unwrap())}],
        "sealing": [{"id": sealing, "secret": BASE64.encode(sealing.repeat(32).as_bytes().first_chunk::<32>().unwrap())}],
    }}});
    Keys::from_json(&text.to_string()).unwrap()
}

fn paid() -> PaymentMade {
    PaymentMade { shop: "shop".into(), id: 7, iban: "DE02120300000000202051".into() }
}

#[tokio::test]
async fn a_sealed_event_is_opened_by_who_has_the_key_and_a_forged_one_is_a_dead_letter() {
    let tidewire = Tidewire::builder("memory:").keys(keys("s1", "e1")).open().await.unwrap();
    let payments = tidewire.tenant("shop").unwrap().events::<PaymentMade>().unwrap();
    let group = payments.group("billing", Start::Earliest).unwrap();
    async fn handle(
        payment: PaymentMade,
        State(seen): State<Arc<Mutex<Vec<PaymentMade>>>>,
    ) -> Result<(), Outcome> {
        let iban = payment.iban.clone();
        seen.lock().push(payment);
        Err(Outcome::reject(format!("no account {iban}")))
    }
    group.declare().await.unwrap();
    payments.append(&paid()).await.unwrap();

    let good = payments.event(&paid()).unwrap();
    assert!(good.is_sealed() && !good.data().windows(4).any(|window| window == b"DE02"));
    let forged = [
        Event::new("payment.made", r#"{"shop":"shop","id":7,"iban":"x"}"#),
        good.clone().with_key("8"),
        good.clone().with_data_schema("tidewire:payment.made/2"),
        tidewire
            .tenant("other")
            .unwrap()
            .events::<PaymentMade>()
            .unwrap()
            .event(&PaymentMade { shop: "other".into(), ..paid() })
            .unwrap(),
    ];
    for event in forged {
        payments.channel().append(event).await.unwrap();
    }
    let seen = Arc::<Mutex<Vec<PaymentMade>>>::default();
    let consumer = group.consume().state(seen.clone()).run(handle).await.unwrap();
    while consumer.stats().dead < 5 {
        tokio::task::yield_now().await;
    }
    consumer.stop().await;
    assert_eq!(*seen.lock(), [paid()]);
    let letters = group.dead_letters().list("", 10).await.unwrap().letters;
    let mut reasons: Vec<_> =
        letters.iter().map(|letter| (letter.position.offset, letter.reason.to_string())).collect();
    reasons.sort();
    let reasons: Vec<_> = reasons.iter().map(|(_, reason)| reason.as_str()).collect();
    let wrong = "signature is wrong";
    assert_eq!(reasons, ["no account ***", "signature is missing", wrong, wrong, wrong]);
    let shown = payments.channel().redacted(&good);
    assert_eq!(shown, Some("***".into()), "of what is sealed nothing is shown");
}

#[tokio::test]
async fn keys_rotate_while_the_node_runs() {
    async fn handle(_payment: PaymentMade) {}
    let newer = |event: &Event, node: &Tidewire| {
        let tenant = node.tenant("shop").unwrap();
        tenant.events::<PaymentMade>().unwrap().channel().opened(event).is_some()
    };
    let node = Tidewire::builder("memory:").keys(keys("s1", "e1")).open().await.unwrap();
    let payments = node.tenant("shop").unwrap().events::<PaymentMade>().unwrap();
    let before = payments.event(&paid()).unwrap();
    node.keys().replace(&keys("s2", "e2"));
    let after = payments.event(&paid()).unwrap();
    assert_eq!((newer(&before, &node), newer(&after, &node)), (false, true));

    // A key that is not known may be on its way: that is tried again, and not given up at once.
    let bench =
        Bench::with(handle, |consuming| consuming.retries(Retries { attempts_max: 3, ..Retries::default() }))
            .await
            .unwrap();
    let run = bench.run(before).await.unwrap();
    assert_eq!((run.assert_dead().kind, run.assert_dead().attempts), (DeadKind::AttemptsUsedUp, 3));
    assert!(run.assert_dead().reason.contains("s1"), "{}", run.assert_dead().reason);
}

#[tokio::test]
async fn an_event_of_another_tenant_is_refused() {
    let node = Tidewire::builder("memory:").keys(keys("s1", "e1")).open().await.unwrap();
    let payments = node.tenant("other").unwrap().events::<PaymentMade>().unwrap();
    let error = payments.append(&paid()).await.unwrap_err();
    assert_eq!(error.to_string(), "payment.made is of tenant \"shop\" and is sent in tenant \"other\"");
    let unsigned = Tidewire::open("memory:").await.unwrap().tenant("shop").unwrap();
    let error = unsigned.events::<PaymentMade>().unwrap().publish(&paid()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
