use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed")]
struct OrderPlaced {
    #[event(redact)]
    #[schemars(skip)]
    card: String,
}
