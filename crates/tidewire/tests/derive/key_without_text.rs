use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed", key = ids)]
struct OrderPlaced {
    ids: Vec<u64>,
}
