//! What is marked as personal, and what operators get to see: nothing of it. One test, for it collects all that is traced.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidewire::derive::schemars;
use tidewire::{Channel, Event, Events, Group, Keys, Outcome, Retries, Start, Tidewire, TypedItem};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// What a marked field holds: in a nested type, in the items of a list, a number, and the names in a map.
const HIDDEN: [&str; 5] =
    ["Zoe Hidden", "+49 30 1234567", "+49 30 7654321", "98765432", "zoe@hidden.example"];

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(crate = "schemars")]
struct Person {
    #[schemars(extend("x-redact" = true))]
    name: String,
    phones: Vec<Phone>,
}

#[derive(Serialize, Deserialize, schemars::JsonSchema, Debug)]
#[schemars(crate = "schemars", extend("x-redact" = true))]
struct Phone(String);

/// A patient was seen.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "patient.seen", channel = "patients", key = id)]
struct Seen {
    id: u64,
    person: Person,
    #[event(redact)]
    #[schemars(range(min = 1))]
    insurance: u64,
    #[event(redact)]
    mails: std::collections::BTreeMap<String, u8>,
}

/// A patient has paid.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "patient.paid", channel = "payments", sign, seal)]
struct Paid {
    id: u64,
    #[event(redact)]
    who: String,
}

fn seen(id: u64) -> Seen {
    let [name, one, two, insurance, mail] = HIDDEN;
    Seen {
        id,
        person: Person { name: name.into(), phones: vec![Phone(one.into()), Phone(two.into())] },
        insurance: insurance.parse().unwrap(),
        mails: [(mail.into(), 1)].into(),
    }
}

fn said_of(seen: &Seen) -> String {
    let Seen { person, insurance, mails, .. } = seen;
    format!("{} ({:?}), insured as {insurance}, writes as {mails:?}", person.name, person.phones)
}

async fn see(seen: Seen) -> Result<(), Outcome> {
    match seen.id {
        0 => Ok(()),
        1 => Err(Outcome::reject(said_of(&seen))),
        2 => Err(Outcome::retry_now(said_of(&seen))),
        3 => Err(Outcome::park(said_of(&seen))),
        _ => panic!("of {}", said_of(&seen)),
    }
}

async fn take(paid: Paid) -> Result<(), Outcome> {
    Err(Outcome::reject(format!("{} has no account", paid.who)))
}

/// All that is traced, as text.
#[derive(Clone, Default)]
struct Traced(Arc<Mutex<Vec<u8>>>);

impl io::Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Events that are no `Seen`: of a wrong type where something is marked, of another version, no JSON.
async fn append_wrong(channel: &Channel) {
    let [name, one, _, insurance, mail] = HIDDEN;
    let person = |name: &str| format!(r#"{{"id":9,"person":{{"name":{name},"phones":["{one}"]}}"#);
    let data = [
        person(&format!(r#"["{name}"]"#)) + r#","insurance":1,"mails":{}}"#,
        person(&format!(r#""{name}""#)) + &format!(r#","insurance":"{insurance}","mails":{{}}}}"#),
        person(&format!(r#""{name}""#)) + &format!(r#","insurance":1,"mails":{{"{mail}":"{one}"}}}}"#),
        person(&format!(r#""{name}""#)) + &format!(r#","insurance":1,"mails":{{"{mail}":1,"{mail}":2}}}}"#),
        format!("no JSON of {name}"),
    ];
    for data in data {
        channel.append(Event::new("patient.seen", data)).await.unwrap();
    }
    let newer = Event::new("patient.seen", format!(r#"{{"name":"{name}"}}"#));
    channel.append(newer.with_data_schema("tidewire:patient.seen/9")).await.unwrap();
}

/// Publishes what is right and what is not; the texts of errors.
async fn publish(patients: &Events<Seen>) -> Vec<String> {
    let mut listening = patients.subscribe().open().await.unwrap();
    patients.publish(&seen(7)).await.unwrap();
    for id in 0..5 {
        patients.append(&seen(id)).await.unwrap();
    }
    append_wrong(patients.channel()).await;
    let mut told = vec![patients.append(&Seen { insurance: 0, ..seen(8) }).await.unwrap_err().to_string()];
    while told.len() < 7 {
        match listening.next().await.unwrap() {
            TypedItem::Event(typed) => assert_eq!(typed.event.person.name, HIDDEN[0], "it is there in clear"),
            TypedItem::Gap(gap) => panic!("{gap:?}"),
            TypedItem::Unreadable(received, why) => told.push(format!("{why} {received:?}")),
        }
    }
    told
}

/// What an operator can ask of a group, as text.
async fn shown(group: &Group, channel: &Channel) -> Vec<String> {
    let page = group.dead_letters().list("", 100).await.unwrap();
    let mut shown = vec![
        format!("{:?}", group.status().await.unwrap()),
        format!("{page:?}"),
        format!("{:?}", group.dead_letters().reasons().await.unwrap()),
        format!("{:?}", group.audit().await.unwrap()),
    ];
    for letter in &page.letters {
        shown.push(letter.reason.to_string());
        let event = letter.event().unwrap();
        shown.push(channel.redacted(&event).expect("its type has marks").to_string());
    }
    for received in channel.read().await.unwrap().events {
        shown.push(format!("{:?}", channel.trace(received.event.id()).await.unwrap()));
    }
    shown
}

#[tokio::test]
async fn what_is_marked_reaches_handlers_and_nobody_else() {
    let traced = Traced::default();
    let writer = traced.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let folder = tempfile::tempdir().unwrap();
    let secret = BASE64.encode([7; 32]);
    let ring = format!(r#"[{{"id":"k","secret":"{secret}"}}]"#);
    let keys = format!(r#"{{"tenants":{{"*":{{"signing":{ring},"sealing":{ring}}}}}}}"#);
    for url in ["memory:".to_owned(), format!("file:{}", folder.path().display())] {
        let node = Tidewire::builder(&url).keys(Keys::from_json(&keys).unwrap()).open().await.unwrap();
        let shop = node.tenant("clinic").unwrap();
        let (patients, payments) = (shop.events::<Seen>().unwrap(), shop.events::<Paid>().unwrap());
        let mut told = publish(&patients).await;
        let paid = Paid { id: 1, who: HIDDEN[0].into() };
        payments.append(&paid).await.unwrap();
        payments.channel().append(payments.event(&paid).unwrap().with_key("forged")).await.unwrap();
        payments.publish(&paid).await.unwrap();

        let group = patients.group("files", Start::Earliest).unwrap();
        let retries =
            Retries { attempts_max: 2, first_delay: Duration::from_millis(1), ..Retries::default() };
        let consumer = group.consume().retries(retries).run(see).await.unwrap();
        let billing = payments.group("billing", Start::Earliest).unwrap();
        let taking = billing.consume().run(take).await.unwrap();
        while consumer.stats().dead < 9 || consumer.stats().parked < 1 || taking.stats().dead < 2 {
            tokio::task::yield_now().await;
        }
        told.push(format!("{consumer:?} {:?}", consumer.stats()));
        told.push(format!("{node:?} {:?} {:?}", node.keys(), node.catalog()));
        consumer.stop().await;
        taking.stop().await;
        told.extend(shown(&group, patients.channel()).await);
        told.extend(shown(&billing, payments.channel()).await);
        for told in told {
            assert!(HIDDEN.iter().chain([&&*secret]).all(|hidden| !told.contains(*hidden)), "{told}");
        }
        node.close(Duration::from_secs(5)).await.unwrap();
    }
    let traced = String::from_utf8(traced.0.lock().clone()).unwrap();
    assert!(traced.contains("*** ([") && traced.contains("patient.seen"), "reasons are traced:\n{traced}");
    for hidden in HIDDEN.iter().chain([&&*secret]) {
        let lines: Vec<_> = traced.lines().filter(|line| line.contains(*hidden)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
