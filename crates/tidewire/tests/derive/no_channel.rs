use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed")]
struct OrderPlaced {
    id: u64,
}

fn send(tenant: &tidewire::Tenant) {
    let _orders = tenant.events::<OrderPlaced>();
}
