use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event)]
#[event(name = "order.placed")]
struct OrderPlaced {
    id: u64,
}
