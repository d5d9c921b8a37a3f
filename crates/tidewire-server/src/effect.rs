//! What is done to the connections of a user from outside, on every node.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewire_protocol::codes::{DisconnectCode, UnsubscribeCode};

use crate::hub::connections::Handle;
use crate::hub::outbox::Disconnect;
use crate::metrics::Loss;
use crate::node::Node;
use crate::tenants::Tenant;
use crate::tokens::RawOptions;

/// Something that is to happen to a user's connections, wherever they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Effect {
    pub(crate) tenant: String,
    pub(crate) user: String,
    /// Only the connection with this id; all of the user's where it is empty.
    pub(crate) client: String,
    pub(crate) what: What,
}

/// What happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// The connection ends, unless its id is among those that stay.
    Disconnect { code: u16, reason: String, but: Vec<String> },
    /// Its subscription to a channel ends, and does not come back by itself.
    Unsubscribe { channel: String },
    /// It does something itself.
    Order(Order),
}

/// What a connection does when it is told to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Subscribe to a channel, from a position on if one is given: offset, epoch.
    Subscribe { channel: String, options: Box<RawOptions>, since: Option<(u64, String)> },
    /// End at another time, in milliseconds since 1970; never without one.
    Refresh { expires_at: Option<u64> },
    /// Forget a subscription that has been ended from outside.
    Forget { channel: String },
}

impl Effect {
    /// Has it happen on this node, and tells all others. Live: a node that no link leads to at this moment is not told.
    ///
    /// # Errors
    /// Those of the engine; it has happened here then.
    pub(crate) async fn spread(self, node: &Arc<Node>) -> tidewire::Result<()> {
        self.apply(node);
        let tenant = node.tenants.named(&self.tenant).cloned();
        let told = node.peers.tell_all(self).await;
        if let (Err(_), Some(tenant)) = (&told, tenant) {
            tenant.metrics.losses.add(Loss::Effect, 1);
        }
        told
    }

    /// Has it happen on this node.
    pub(crate) fn apply(&self, node: &Node) {
        let Some(tenant) = node.tenants.named(&self.tenant) else { return };
        for handle in tenant.people.of(&self.user) {
            if !self.client.is_empty() && *handle.client != *self.client {
                continue;
            }
            match &self.what {
                What::Disconnect { but, .. } if but.iter().any(|client| **client == *handle.client) => {}
                What::Disconnect { code, reason, .. } => {
                    let code = DisconnectCode { number: *code, text: "" };
                    handle.outbox.end(Disconnect::new(code, reason.clone()));
                }
                What::Unsubscribe { channel } => {
                    if let Some(relay) = tenant.registry.relay(channel) {
                        relay.expel(handle.key, UnsubscribeCode::SERVER);
                    }
                    give(tenant, &handle, &Order::Forget { channel: channel.clone() });
                }
                What::Order(order) => give(tenant, &handle, order),
            }
        }
    }
}

fn give(tenant: &Tenant, handle: &Handle, order: &Order) {
    if !handle.orders.give(order.clone()) {
        tenant.metrics.losses.add(Loss::Order, 1);
        handle.outbox.end(DisconnectCode::TOO_MANY_REQUESTS.into());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidewire::{Clock, Tidewire};

    use super::*;
    use crate::config::Config;
    use crate::hub::outbox::Outbox;
    use crate::publication::Form;

    #[tokio::test]
    async fn what_is_too_much_for_a_connection_or_cannot_be_told_is_counted() {
        let tidewire = Tidewire::open("memory:").await.unwrap();
        let node = Node::new(Config::dev(), tidewire, Clock::system(), ([127, 0, 0, 1], 0).into()).unwrap();
        let tenant = node.tenants.named("default").unwrap();
        let outbox = Arc::new(Outbox::new(1_000));
        let (form, orders) = (Form::default(), Arc::default());
        let handle = Handle { key: 1, client: "c".into(), form, outbox: outbox.clone(), orders };
        let _listed = tenant.people.add(&"ann".into(), handle);
        let what = What::Order(Order::Refresh { expires_at: None });
        let effect = Effect { tenant: "default".into(), user: "ann".into(), client: String::new(), what };
        while !outbox.has_ended() {
            effect.apply(&node);
        }
        assert_eq!(tenant.metrics.losses.of(Loss::Order), 1);
        node.tidewire.close(Duration::from_secs(5)).await.unwrap();
        assert!(effect.spread(&node).await.is_err());
        assert_eq!(tenant.metrics.losses.of(Loss::Effect), 1);
    }
}
