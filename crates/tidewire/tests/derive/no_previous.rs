use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed", version = 2)]
struct OrderPlaced {
    id: u64,
}
