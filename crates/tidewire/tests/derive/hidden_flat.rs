use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(crate = "self::serde")]
struct Person {
    name: String,
}

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed")]
struct OrderPlaced {
    #[event(redact)]
    #[serde(flatten)]
    person: Person,
}
