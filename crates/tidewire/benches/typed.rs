//! What a type costs: typed appends beside untyped ones of the same bytes, and the check of 1 KB against a schema.
//!
//! `cargo xtask bench typed`. Allocations are counted by `cargo xtask bench allocations`.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads its server from the environment")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::future::Future;
use std::hint::black_box;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidewire::clock::Stopwatch;
use tidewire::{
    Channel, Event, EventType, JsonLimits, Keys, Receiving, Retention, Sending, Tidewire, Timestamp,
    check_json,
};

/// Appends at once.
const TASKS: u64 = 64;
/// Time of one measurement, and how often each is made: in turns, for machines are noisy.
const TIME: Duration = Duration::from_millis(600);
const ROUNDS: usize = 7;

macro_rules! orders {
    ($($name:ident $event:literal [$($guard:ident)*] $(#[$bound:meta])?)*) => {
        $(
            #[derive(Event, Serialize, Deserialize, Clone)]
            #[event(name = $event, channel = "orders", key = customer, $($guard),*)]
            struct $name {
                id: u64,
                customer: String,
                $(#[$bound])?
                cents: u64,
                currency: String,
                note: String,
            }

            impl $name {
                fn sample() -> Self {
                    Self {
                        id: 4711,
                        customer: "customer-4711".into(),
                        cents: 12_950,
                        currency: "EUR".into(),
                        note: "Leave it with the neighbours if nobody is at home, and ring twice.".into(),
                    }
                }
            }
        )*
    };
}

orders! {
    Plain "bench.plain" []
    Checked "bench.checked" [] #[schemars(range(min = 1))]
    Signed "bench.signed" [sign]
    Sealed "bench.sealed" [seal]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).unwrap();
    let mut urls = vec!["memory:".to_owned(), format!("file:{}", directory.path().display())];
    urls.extend(std::env::var("TIDEWIRE_TEST_REDIS_URL"));
    let bytes = serde_json::to_vec(&Plain::sample()).unwrap().len();
    println!(
        "appends of {bytes} bytes of data, {TASKS} at once; time of the untyped append of the same bytes = 1"
    );
    println!(
        "{:<12}{:>12}{:>10}{:>12}{:>10}{:>10}",
        "", "untyped/s", "typed", "and checked", "signed", "sealed"
    );
    for url in urls {
        runtime.block_on(appends(&url));
    }
    making();
    checking();
}

fn keys() -> Keys {
    let secret = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let ring = json!([{"id": "1", "secret": secret}]);
    Keys::from_json(&json!({"tenants": {"*": {"signing": ring, "sealing": ring}}}).to_string()).unwrap()
}

/// One row: each kind of append on one engine.
async fn appends(url: &str) {
    let retention = Retention { events_max: Some(10_000), ..Retention::default() };
    let node = Tidewire::builder(url).keys(keys()).retention(retention).open().await.unwrap();
    let tenant = node.tenant("bench").unwrap();
    let channel = tenant.channel("orders").unwrap();
    let data = bytes::Bytes::from(serde_json::to_vec(&Plain::sample()).unwrap());
    let mut rates = [const { Vec::new() }; 5];
    let (plain, checked) = (tenant.events::<Plain>().unwrap(), tenant.events::<Checked>().unwrap());
    let (signed, sealed) = (tenant.events::<Signed>().unwrap(), tenant.events::<Sealed>().unwrap());
    let (a, b, c, d) = (Plain::sample(), Checked::sample(), Signed::sample(), Sealed::sample());
    for _ in 0..ROUNDS {
        rates[0].push(rate(|| untyped(&channel, &data)).await);
        rates[1].push(rate(|| async { drop(plain.append(&a).await.unwrap()) }).await);
        rates[2].push(rate(|| async { drop(checked.append(&b).await.unwrap()) }).await);
        rates[3].push(rate(|| async { drop(signed.append(&c).await.unwrap()) }).await);
        rates[4].push(rate(|| async { drop(sealed.append(&d).await.unwrap()) }).await);
    }
    let [untyped, others @ ..] = rates.map(|mut rates| median(&mut rates));
    let name = url.split(':').next().unwrap_or_default();
    print!("{name:<12}{untyped:>12.0}");
    for (other, width) in others.into_iter().zip([10, 12, 10, 10]) {
        print!("{:>width$.2}", untyped / other);
    }
    println!();
    node.close(Duration::from_secs(10)).await.unwrap();
}

async fn untyped(channel: &Channel, data: &bytes::Bytes) {
    let event = Event::new("bench.plain", data.clone()).with_key("customer-4711");
    drop(channel.append(event).await.unwrap());
}

/// Operations per second, so many at once.
async fn rate<F: Future<Output = ()>>(operation: impl Fn() -> F) -> f64 {
    let watch = Stopwatch::start();
    let task = || async {
        let mut count = 0_u64;
        while watch.elapsed() < TIME {
            operation().await;
            count += 1;
        }
        count
    };
    let counts = join_all((0..TASKS).map(|_| task())).await;
    counts.iter().sum::<u64>() as f64 / watch.elapsed().as_secs_f64()
}

/// What it takes to make and to read one event, without an engine.
fn making() {
    println!("\none event, without an engine{:>14}{:>10}", "made, ns", "read, ns");
    let keys = keys();
    let sending = Sending { tenant: "bench", keys: &keys, now: Timestamp::from_millis(1) };
    let receiving = Receiving { tenant: "bench", keys: &keys };
    let data = bytes::Bytes::from(serde_json::to_vec(&Plain::sample()).unwrap());
    let untyped =
        nanos(|| drop(black_box(Event::new("bench.plain", data.clone()).with_key("customer-4711"))));
    println!("{:<28}{untyped:>14.0}", "untyped");
    row::<Plain>("typed", &Plain::sample(), &sending, &receiving);
    row::<Checked>("typed and checked", &Checked::sample(), &sending, &receiving);
    row::<Signed>("signed", &Signed::sample(), &sending, &receiving);
    row::<Sealed>("sealed", &Sealed::sample(), &sending, &receiving);
}

fn row<E: EventType>(what: &str, sample: &E, sending: &Sending<'_>, receiving: &Receiving<'_>) {
    let made = nanos(|| drop(black_box(sample.to_event(sending).unwrap())));
    let event = sample.to_event(sending).unwrap();
    let read = nanos(|| drop(black_box(E::from_event(&event, receiving).unwrap())));
    println!("{what:<28}{made:>14.0}{read:>10.0}");
}

/// Data of 1 KB against its schema, and the parts of that.
fn checking() {
    let contract = tidewire::Contract::new(serde_json::from_value(large()).unwrap()).unwrap();
    let lines: Vec<_> = (0..9)
        .map(|n| json!({"sku": format!("SKU-{n:05}"), "name": "A cup", "count": n + 1, "cents": 1250 + n}))
        .collect();
    let data = json!({
        "id": "0199d3c4-7b1e-7c5a-9d1e-0123456789ab", "customer": "customer-4711", "currency": "EUR", "cents": 12_950,
        "note": "Leave it with the neighbours if nobody is at home, and ring twice before you go on to the next house.",
        "address": {"street": "Nordring 12", "city": "Kiel", "zip": "24103", "country": "DE"}, "lines": lines,
    });
    let text = data.to_string();
    let bytes = text.as_bytes();
    let bounds = JsonLimits::default();
    contract.check(bytes, &bounds).unwrap();
    println!("\n{:<44}{:>10}{:>14}", format!("{} bytes against a schema", bytes.len()), "ns", "thousand/s");
    let print = |what: &str, nanos: f64| println!("{what:<44}{nanos:>10.0}{:>14.0}", 1e6 / nanos);
    let parsed = || serde_json::from_slice::<Value>(bytes).unwrap();
    let library = jsonschema::options()
        .should_validate_formats(true)
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(&contract.definition().schema)
        .unwrap();
    print("check: bounds and schema", nanos(|| contract.check(black_box(bytes), &bounds).unwrap()));
    print("of that: bounds", nanos(|| check_json(black_box(bytes), &bounds).unwrap()));
    print("limit: serde_json into a Value", nanos(|| drop(black_box(parsed()))));
    print("limit: the schema library on a Value", nanos(|| library.validate(black_box(&data)).unwrap()));
    let ignored = || serde_json::from_slice::<serde::de::IgnoredAny>(black_box(bytes)).unwrap();
    print("limit: serde_json, nothing kept", nanos(|| _ = black_box(ignored())));
}

fn large() -> Value {
    let text = |max: u64| json!({"type": "string", "minLength": 1, "maxLength": max});
    json!({
        "type": "bench.large", "version": 1,
        "schema": {
            "type": "object",
            "required": ["id", "customer", "currency", "cents", "address", "lines"],
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "customer": text(64),
                "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
                "cents": {"type": "integer", "minimum": 1},
                "note": {"type": ["string", "null"], "maxLength": 500},
                "address": {"$ref": "#/$defs/Address"},
                "lines": {"type": "array", "minItems": 1, "maxItems": 100, "items": {"$ref": "#/$defs/Line"}},
            },
            "$defs": {
                "Address": {
                    "type": "object", "required": ["street", "city", "zip", "country"],
                    "properties": {"street": text(100), "city": text(100), "zip": text(10), "country": text(2)},
                },
                "Line": {
                    "type": "object", "required": ["sku", "name", "count", "cents"],
                    "properties": {
                        "sku": text(40), "name": text(200),
                        "count": {"type": "integer", "minimum": 1}, "cents": {"type": "integer", "minimum": 0},
                    },
                },
            },
        },
    })
}

/// Nanoseconds of one call: the median of some rounds.
fn nanos(mut operation: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (watch, mut count) = (Stopwatch::start(), 0_u64);
            while watch.elapsed() < TIME / 6 {
                (0..100).for_each(|_| operation());
                count += 100;
            }
            watch.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    median(&mut rounds)
}

fn median(rounds: &mut [f64]) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}
