use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event)]
enum OrderEvent {
    Placed { id: u64 },
}
