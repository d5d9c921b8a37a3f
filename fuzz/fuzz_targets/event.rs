//! Events from outside, as envelopes and as CloudEvents: read as a type of three versions, signed and sealed, and held against
//! a tenant's catalog. Nothing panics; what is accepted says the same when it is written and read again.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};
use tidewire::{
    Catalog, Channel, Event, EventSet, Keys, Receiving, Sending, Tidewire, Timestamp, cloudevents,
};

#[derive(tidewire::Event, Serialize, Deserialize)]
#[event(name = "a", channel = "a")]
struct First {
    id: u8,
}

#[derive(tidewire::Event, Serialize, Deserialize)]
#[event(name = "a", version = 2, previous = First, channel = "a", key = id)]
struct Second {
    id: u16,
    #[event(redact)]
    text: Option<String>,
}

#[derive(tidewire::Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(name = "a", version = 3, previous = Second, channel = "a", key = id, subject = text)]
struct Third {
    #[schemars(range(min = 1))]
    id: u32,
    #[schemars(length(max = 8))]
    text: Option<String>,
    #[event(redact)]
    #[serde(default)]
    names: std::collections::BTreeMap<String, i64>,
}

#[derive(tidewire::Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(name = "b", channel = "a", sign, seal)]
struct Guarded {
    id: u8,
}

#[derive(tidewire::Event, Debug, PartialEq)]
enum Any {
    Third(Third),
    Guarded(Guarded),
}

impl From<First> for Second {
    fn from(old: First) -> Self {
        Self { id: old.id.into(), text: None }
    }
}

impl From<Second> for Third {
    fn from(old: Second) -> Self {
        Self { id: old.id.into(), text: old.text, names: Default::default() }
    }
}

const TENANT: &str = "shop";

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let ring = r#"[{"id":"k","secret":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]"#;
    let text = format!(r#"{{"tenants":{{"*":{{"signing":{ring},"sealing":{ring}}}}}}}"#);
    Keys::from_json(&text).expect("valid keys")
});

/// A channel of a tenant whose catalog has the types above.
static CHANNEL: LazyLock<Channel> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let opening = Tidewire::builder("memory:").keys(KEYS.clone()).open();
    let node = runtime.block_on(opening).expect("the engine opens");
    let tenant = node.tenant(TENANT).expect("a valid name");
    tenant.set_catalog(Catalog::new().with::<Any>().expect("declared alike"));
    let channel = tenant.channel("a").expect("a valid name");
    // What they stand on lives as long as the process.
    std::mem::forget((node, runtime));
    channel
});

fn read(event: &Event) {
    let receiving = Receiving { tenant: TENANT, keys: &KEYS };
    let typed = match Any::from_event(event, &receiving) {
        Ok(typed) => typed,
        Err(why) => return assert!(!why.to_string().is_empty()),
    };
    let sending = Sending { tenant: TENANT, keys: &KEYS, now: Timestamp::from_millis(7) };
    // What an older version lets pass need not keep to the newest.
    let Ok(again) = typed.to_event(&sending) else { return };
    assert_eq!(Any::from_event(&again, &receiving).expect("what was sent is received"), typed);
}

fn accept(event: Event) {
    let Ok(Ok(event)) = CHANNEL.conform(event) else { return };
    let _shown = (CHANNEL.redacted(&event), CHANNEL.opened(&event));
    read(&event);
    let again = CHANNEL.conform(event.clone()).expect("there are keys").expect("what conforms conforms");
    assert!(again == event, "{event:?}");
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let event = match kind % 3 {
        0 => Event::try_from(Bytes::copy_from_slice(bytes)),
        1 => cloudevents::from_json(bytes),
        // Data of a version of a type that is known: of what the others need long luck to hit.
        _ => {
            let (event_type, version) = if kind & 64 == 0 { ("a", kind / 3 % 5) } else { ("b", 1) };
            let event = Event::new(event_type, bytes.to_vec());
            Ok(event.with_data_schema(&format!("tidewire:{event_type}/{version}")))
        }
    };
    let Ok(event) = event else { return };
    let envelope = Bytes::from(&event);
    assert!(Event::try_from(envelope).expect("what was written is read") == event, "{event:?}");
    if kind % 3 == 1 {
        let again = cloudevents::from_json(&cloudevents::to_json(&event, CHANNEL.path()));
        let again = again.expect("what was written is read");
        assert_eq!(
            (again.id(), again.event_type(), again.data()),
            (event.id(), event.event_type(), event.data())
        );
    }
    read(&event);
    accept(event);
});
