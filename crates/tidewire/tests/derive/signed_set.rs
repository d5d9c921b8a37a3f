use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed", channel = "orders")]
struct OrderPlaced {
    id: u64,
}

#[derive(Event)]
#[event(sign)]
enum OrderEvent {
    Placed(OrderPlaced),
}
