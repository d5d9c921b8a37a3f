use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

struct OrderPlaced;

fn send(tenant: &tidewire::Tenant) {
    let _orders = tenant.events::<OrderPlaced>();
}
