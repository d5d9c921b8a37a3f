//! Typed events: older versions, signatures, seals and hidden values on their way through an engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::delivery::{stop, until_settled};
use super::diary::{consume, group};
use super::scene::{Scene, next_event, patiently};
use crate::bus::{Channel, DeadKind, Events, FromDelivery, Group, Outcome, Retries, TypedItem, Unknown};
use crate::event::{Event, EventSet, Keys};
use crate::tidewire::Tidewire;

/// An order as it was at first.
#[derive(crate::Event, Serialize, Deserialize)]
#[event(crate = "crate", name = "order.placed", channel = "orders")]
struct OrderV1 {
    id: usize,
}

/// It has a customer.
#[derive(crate::Event, Serialize, Deserialize)]
#[event(crate = "crate", name = "order.placed", version = 2, previous = OrderV1, channel = "orders", key = customer)]
struct OrderV2 {
    id: usize,
    customer: String,
}

/// An order was placed.
#[derive(crate::Event, Serialize, Deserialize)]
#[event(crate = "crate", name = "order.placed", version = 3, previous = OrderV2, channel = "orders", key = customer)]
struct Order {
    number: usize,
    customer: String,
    #[event(redact)]
    card: String,
}

/// A payment was made.
#[derive(crate::Event, Serialize, Deserialize, Debug)]
#[event(crate = "crate", name = "payment.made", channel = "orders", sign)]
struct Payment {
    number: usize,
}

/// A patient was seen.
#[derive(crate::Event, Serialize, Deserialize)]
#[event(crate = "crate", name = "patient.seen", channel = "orders", seal)]
struct Visit {
    number: usize,
    patient: String,
}

impl From<OrderV1> for OrderV2 {
    fn from(old: OrderV1) -> Self {
        Self { id: old.id, customer: "nobody".into() }
    }
}

impl From<OrderV2> for Order {
    fn from(old: OrderV2) -> Self {
        Self { number: old.id, customer: old.customer, card: String::new() }
    }
}

/// What a marked field holds in these cases.
const CARD: &str = "4111-1111-1111";

fn order(number: usize) -> Order {
    Order { number, customer: format!("customer-{}", number % 2), card: CARD.into() }
}

fn visit(number: usize) -> Visit {
    Visit { number, patient: "Ann Example".into() }
}

/// Keys of every tenant, made from a letter: `a` and `b` differ.
fn keys(letter: &str) -> Keys {
    // A secret of 32 bytes in base64.
    let secret = format!("{}A=", letter.repeat(42));
    let ring = format!(r#"[{{"id": "key-{letter}", "secret": "{secret}"}}]"#);
    let text = format!(r#"{{"tenants": {{"*": {{"signing": {ring}, "sealing": {ring}}}}}}}"#);
    Keys::from_json(&text).expect("valid keys")
}

/// The numbers that handlers were given, in their order.
type Numbers = Arc<Mutex<Vec<usize>>>;

/// A node with keys of letter `a`, and its channel of such events in the tenant of the case.
async fn events<E: EventSet>(scene: &Scene) -> (Tidewire, Events<E>) {
    let node = scene.builder().keys(keys("a")).open().await.expect("the engine opens");
    let events = scene.tenant(&node).events_on("orders").expect("declared alike");
    (node, events)
}

/// The reasons of a group's dead letters, in the order of the stream.
async fn reasons(group: &Group) -> Vec<String> {
    let letters = group.dead_letters().list("", 100).await.expect("a page").letters;
    let reasons: BTreeMap<_, _> =
        letters.iter().map(|letter| (letter.position.offset, letter.reason.to_string())).collect();
    reasons.into_values().collect()
}

/// Handles events until nothing is left but so many dead letters; the numbers of those that it got.
async fn handled<E: FromDelivery + Send + 'static>(
    scene: &Scene,
    group: &Group,
    deaths: u64,
    number: fn(&E) -> usize,
) -> Vec<usize> {
    let numbers = Numbers::default();
    let noted = numbers.clone();
    let handler = move |event: E| {
        noted.lock().push(number(&event));
        std::future::ready(())
    };
    let consumer = consume(scene, group).run(handler).await.expect("runs");
    until_settled(scene, group, deaths).await;
    stop(scene, &consumer).await;
    std::mem::take(&mut *numbers.lock())
}

/// Appends an event as it is.
async fn append(channel: &Channel, event: Event) {
    channel.append(event).await.expect("confirmed");
}

pub(super) async fn events_of_older_versions_are_read_by_a_newer_handler_in_order(scene: Scene) {
    let (node, orders) = events::<Order>(&scene).await;
    let group = group(orders.channel()).ordered(2);
    let tenant = scene.tenant(&node);
    let (first, second) = (tenant.events::<OrderV1>(), tenant.events::<OrderV2>());
    let (first, second) = (first.expect("declared alike"), second.expect("declared alike"));
    for number in (0..12).step_by(3) {
        first.append(&OrderV1 { id: number }).key("one").await.expect("confirmed");
        let customer = "one".into();
        second.append(&OrderV2 { id: number + 1, customer }).await.expect("confirmed");
        let newest = Order { customer: "one".into(), ..order(number + 2) };
        orders.append(&newest).await.expect("confirmed");
    }
    assert_eq!(handled(&scene, &group, 0, |order: &Order| order.number).await, (0..12).collect::<Vec<_>>());
}

pub(super) async fn an_event_of_an_unknown_version_is_a_dead_letter_with_its_bytes(scene: Scene) {
    let (_node, orders) = events::<Order>(&scene).await;
    let group = group(orders.channel());
    let newer =
        Event::new("order.placed", r#"{"of": "another time"}"#).with_data_schema("tidewire:order.placed/4");
    append(orders.channel(), newer).await;
    append(orders.channel(), Event::new("order.lost", "{}")).await;
    orders.append(&order(7)).await.expect("confirmed");
    assert_eq!(
        handled(&scene, &group, 2, |order: &Order| order.number).await,
        [7],
        "the next one is handled"
    );
    let kept = orders.channel().read().await.expect("reads").events;
    let mut letters = group.dead_letters().list("", 10).await.expect("a page").letters;
    letters.sort_by_key(|letter| letter.position.offset);
    let whys = [
        "event is order.placed version 4, which is not read here",
        "event is of type \"order.lost\", and \"order.placed\" is read here",
    ];
    assert_eq!(letters.len(), whys.len());
    for ((letter, original), why) in letters.iter().zip(&kept).zip(whys) {
        assert_eq!(letter.event().expect("decodes"), original.event);
        assert_eq!((letter.kind, letter.attempts, &*letter.reason), (DeadKind::Rejected, 1, why));
    }
}

pub(super) async fn an_event_of_an_unknown_version_is_passed_over_where_that_is_said(scene: Scene) {
    let (_node, orders) = events::<Order>(&scene).await;
    append(orders.channel(), Event::new("order.placed", "{}").with_data_schema("tidewire:order.placed/4"))
        .await;
    let group = group(orders.channel());
    let consuming = consume(&scene, &group).unknown(Unknown::Skip);
    let consumer = consuming.run(|_order: Order| std::future::ready(())).await.expect("runs");
    until_settled(&scene, &group, 0).await;
    assert_eq!((consumer.stats().acked, consumer.stats().dead), (1, 0));
    stop(&scene, &consumer).await;
}

pub(super) async fn an_event_of_an_unknown_version_waits_where_that_is_said(scene: Scene) {
    let (node, orders) = events::<OrderV1>(&scene).await;
    let second = scene.tenant(&node).events::<OrderV2>().expect("declared alike");
    second.append(&OrderV2 { id: 7, customer: "ann".into() }).await.expect("confirmed");
    let group = group(orders.channel());
    let consuming = consume(&scene, &group).unknown(Unknown::Park).park_time(scene.ticks(4));
    let older = consuming.run(|_order: OrderV1| std::future::ready(())).await.expect("runs");
    scene.until("two waits", || std::future::ready(older.stats().parked >= 2)).await;
    assert_eq!((older.stats().acked, older.stats().dead), (0, 0));
    stop(&scene, &older).await;
    assert_eq!(
        handled(&scene, &group, 0, |order: &Order| order.number).await,
        [7],
        "no attempt was burnt, nothing was lost"
    );
}

pub(super) async fn what_cannot_be_trusted_is_a_dead_letter_with_its_reason(scene: Scene) {
    let (node, payments) = events::<Payment>(&scene).await;
    let group = group(payments.channel());
    let right = payments.event(&Payment { number: 1 }).expect("signed");
    let signature = right.extension("signature").expect("it is signed").to_owned();
    let other = node.tenant(&format!("{}-d", std::process::id())).expect("valid");
    let others = other.events_on::<Payment>("orders").expect("declared alike");
    let forged = Event::new("payment.made", r#"{"number":1000000}"#).with_extension("signature", &signature);
    let wrong = "signature is wrong";
    let untrusted = [
        (Event::new("payment.made", r#"{"number":1}"#), "signature is missing"),
        (forged.with_id(right.id()).with_time(right.time()), wrong),
        (right.clone().with_key("of another"), wrong),
        (right.clone().with_data_schema("tidewire:payment.made/2"), wrong),
        (others.event(&Payment { number: 1 }).expect("signed"), wrong),
        (right.clone().with_extension("signature", "key-a:AAAA"), "signature is cut or malformed"),
    ];
    for (event, _) in &untrusted {
        append(payments.channel(), event.clone()).await;
    }
    append(payments.channel(), right).await;
    let deaths = untrusted.len() as u64;
    assert_eq!(
        handled(&scene, &group, deaths, |payment: &Payment| payment.number).await,
        [1],
        "the next one is handled"
    );
    assert_eq!(reasons(&group).await, untrusted.map(|(_, why)| why));
}

pub(super) async fn a_key_that_is_not_known_yet_is_waited_for(scene: Scene) {
    let (node, payments) = events::<Payment>(&scene).await;
    let ahead = Tidewire::builder("memory:").keys(keys("b")).clock(scene.clock());
    let ahead = ahead.open().await.expect("the engine opens");
    let signing = scene.tenant(&ahead).events::<Payment>().expect("declared alike");
    append(payments.channel(), signing.event(&Payment { number: 7 }).expect("signed")).await;
    let group = group(payments.channel());
    let retries = Retries { attempts_max: 1_000, first_delay: scene.ticks(2), ..Retries::default() };
    let numbers = Numbers::default();
    let noted = numbers.clone();
    let handler = move |payment: Payment| {
        noted.lock().push(payment.number);
        std::future::ready(())
    };
    let consumer = consume(&scene, &group).retries(retries).run(handler).await.expect("runs");
    scene.until("an attempt", || std::future::ready(consumer.stats().retried >= 1)).await;
    assert_eq!(*numbers.lock(), Vec::<usize>::new());
    node.keys().replace(&keys("b"));
    until_settled(&scene, &group, 0).await;
    stop(&scene, &consumer).await;
    assert_eq!(*numbers.lock(), [7]);
}

pub(super) async fn what_is_sealed_is_read_by_its_tenant_alone(scene: Scene) {
    let (node, visits) = events::<Visit>(&scene).await;
    visits.append(&visit(7)).await.expect("confirmed");
    let sealed = visits.channel().read().await.expect("reads").events.remove(0).event;
    let envelope = Bytes::from(&sealed);
    assert!(!envelope.windows(3).any(|bytes| bytes == b"Ann"), "the engine has nothing in clear");
    let other = node.tenant(&format!("{}-e", std::process::id())).expect("valid");
    let elsewhere = other.events_on::<Visit>("orders").expect("declared alike");
    append(elsewhere.channel(), sealed.clone()).await;
    append(elsewhere.channel(), Event::new("patient.seen", r#"{"number":1,"patient":"Bob"}"#)).await;
    elsewhere.append(&visit(8)).await.expect("confirmed");
    for (visits, expected, whys) in
        [(&visits, 7, vec![]), (&elsewhere, 8, vec!["seal is wrong", "seal is missing"])]
    {
        let group = group(visits.channel());
        let number_of = |visit: &Visit| {
            assert_eq!(visit.patient, "Ann Example");
            visit.number
        };
        assert_eq!(handled(&scene, &group, whys.len() as u64, number_of).await, [expected]);
        assert_eq!(reasons(&group).await, whys);
    }
}

pub(super) async fn a_marked_value_is_in_no_reason(scene: Scene) {
    let (_node, orders) = events::<Order>(&scene).await;
    let group = group(orders.channel());
    for number in 0..3 {
        orders.append(&order(number)).await.expect("confirmed");
    }
    // What keeps to no contract: a marked value of the wrong type.
    let wrong = Event::new("order.placed", format!(r#"{{"number":3,"customer":"x","card":["{CARD}"]}}"#));
    append(orders.channel(), wrong.with_data_schema("tidewire:order.placed/3")).await;
    let handler = |order: Order| {
        let said = format!("card {} of order {} is declined", order.card, order.number);
        std::future::ready(match order.number {
            0 => Outcome::reject(said),
            1 => Outcome::retry_now(said),
            _ => Outcome::park(said),
        })
    };
    let retries = Retries { attempts_max: 2, first_delay: scene.ticks(1), ..Retries::default() };
    let consuming = consume(&scene, &group).retries(retries).park_time(scene.ticks(100_000));
    let consumer = consuming.run(handler).await.expect("runs");
    let are_said = || async {
        let status = group.status().await.expect("a status");
        status.dead_letters == 3 && consumer.stats().parked == 1
    };
    scene.until("all that is said", are_said).await;
    stop(&scene, &consumer).await;
    assert_eq!(
        reasons(&group).await,
        [
            "card *** of order 0 is declined",
            "card *** of order 1 is declined",
            "data is not order.placed version 3 at card"
        ]
    );
    let status = format!("{:?}", group.status().await.expect("a status"));
    let listed = format!("{:?}", group.dead_letters().list("", 10).await.expect("a page"));
    let counted = format!("{:?}", group.dead_letters().reasons().await.expect("reasons"));
    for told in [status, listed, counted] {
        assert!(!told.contains("4111"), "{told}");
    }
}

pub(super) async fn typed_events_of_a_batch_keep_their_keys_and_their_order(scene: Scene) {
    let (_node, orders) = events::<Order>(&scene).await;
    let batcher = orders.channel().batcher().events_max(16).start();
    let mut confirmations = Vec::new();
    for number in 0..40 {
        let event = orders.event(&order(number)).expect("keeps to its contract");
        confirmations.push(batcher.push(event).await.expect("taken"));
    }
    for confirmation in confirmations {
        scene.pass_until("the batch", confirmation).await.expect("confirmed");
    }
    let kept = orders.channel().read().await.expect("reads").events;
    let found: Vec<_> = kept.iter().map(|received| received.event.key().unwrap_or_default()).collect();
    assert_eq!(found, (0..40).map(|number| format!("customer-{}", number % 2)).collect::<Vec<_>>());
    let group = group(orders.channel()).ordered(4);
    let numbers = handled(&scene, &group, 0, |order: &Order| order.number).await;
    for parity in 0..2 {
        let of_key: Vec<_> = numbers.iter().copied().filter(|number| number % 2 == parity).collect();
        assert_eq!(of_key, (parity..40).step_by(2).collect::<Vec<_>>());
    }
}

pub(super) async fn a_signed_dead_letter_is_replayed_and_handled(scene: Scene) {
    let (_node, payments) = events::<Payment>(&scene).await;
    let group = group(payments.channel());
    payments.append(&Payment { number: 7 }).await.expect("confirmed");
    let handler = |_payment: Payment| std::future::ready(Outcome::reject("the bank is closed"));
    let consumer = consume(&scene, &group).run(handler).await.expect("runs");
    until_settled(&scene, &group, 1).await;
    stop(&scene, &consumer).await;
    let replayed = group.dead_letters().replay().by("ann").await.expect("replays");
    assert_eq!(replayed.count, 1);
    assert_eq!(handled(&scene, &group, 0, |payment: &Payment| payment.number).await, [7]);
}

pub(super) async fn a_signature_holds_on_another_channel_of_its_tenant(scene: Scene) {
    let (node, payments) = events::<Payment>(&scene).await;
    let tenant = scene.tenant(&node);
    let there = tenant.events_on::<Payment>("notifications").expect("declared alike");
    let mut typed = there.subscribe().open().await.expect("listening");
    let mut raw = there.channel().subscribe().open().await.expect("listening");
    payments.append(&Payment { number: 7 }).announce_on("notifications").await.expect("confirmed");
    let item = patiently("an item", typed.next()).await.expect("goes on");
    let TypedItem::Event(announced) = item else { panic!("expected a payment, got {item:?}") };
    let event = next_event(&mut raw).await.event;
    assert_eq!((announced.event.number, event.is_signed()), (7, true));
}
