//! The connections of one tenant on this node, by user.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::outbox::Outbox;
use super::relay::ConnectionKey;
use crate::effect::Order;
use crate::publication::Form;
use crate::tap::{Seat, Watch, Watched};

/// Orders that wait for one connection. Past it the connection is ended: it runs none of them.
const ORDERS_MAX: usize = 1_000;

/// Who is connected here, so that what is done to a user reaches its connections.
#[derive(Default)]
pub(crate) struct Connections(Mutex<Users>);

#[derive(Default)]
struct Users {
    connected: FxHashMap<Arc<str>, Handles>,
    /// Those who are watched, connected or not.
    watched: FxHashMap<Box<str>, Arc<Watched>>,
}

type Handles = FxHashMap<ConnectionKey, Arc<Handle>>;

/// A connection, as others see it.
pub(crate) struct Handle {
    pub(crate) key: ConnectionKey,
    /// Its id, as its client knows it.
    pub(crate) client: Arc<str>,
    pub(crate) form: Form,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) orders: Arc<Orders>,
}

/// What a connection is told to do from outside.
#[derive(Default)]
pub(crate) struct Orders {
    waiting: Mutex<VecDeque<Order>>,
    added: Notify,
}

/// A place among the connections of a user, given up when dropped.
pub(crate) struct Listed {
    connections: Arc<Connections>,
    user: Arc<str>,
    key: ConnectionKey,
}

impl Connections {
    /// Adds a connection of a user.
    pub(crate) fn add(self: &Arc<Self>, user: &Arc<str>, handle: Handle) -> Listed {
        let key = handle.key;
        let mut users = self.0.lock();
        if let Some(watched) = users.watched.get(&**user) {
            handle.sit(watched);
        }
        users.connected.entry(user.clone()).or_default().insert(key, Arc::new(handle));
        Listed { connections: self.clone(), user: user.clone(), key }
    }

    /// All connections.
    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.0.lock().connected.values().flat_map(FxHashMap::values).cloned().collect()
    }

    /// The connections of a user; of all that have none for the empty name.
    pub(crate) fn of(&self, user: &str) -> Vec<Arc<Handle>> {
        let users = self.0.lock();
        users.connected.get(user).map(|handles| handles.values().cloned().collect()).unwrap_or_default()
    }

    /// Has the connections of a user watched, those that come too; how many there are.
    pub(crate) fn watch(&self, user: &str, watch: &Arc<Watch>) -> usize {
        let mut users = self.0.lock();
        let Users { connected, watched } = &mut *users;
        let watched = watched.entry(user.into()).or_default();
        watched.add(watch.clone());
        let Some(handles) = connected.get(user) else { return 0 };
        handles.values().for_each(|handle| handle.sit(watched));
        handles.len()
    }

    /// Takes that back.
    pub(crate) fn unwatch(&self, user: &str, watch: &Arc<Watch>) {
        let mut users = self.0.lock();
        if users.watched.get(user).is_some_and(|watched| watched.remove(watch)) {
            users.watched.remove(user);
            let handles = users.connected.get(user).map(FxHashMap::values).into_iter().flatten();
            handles.for_each(|handle| handle.outbox.sit(None));
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut users = self.connections.0.lock();
        if let Some(handles) = users.connected.get_mut(&self.user) {
            handles.remove(&self.key);
            if handles.is_empty() {
                users.connected.remove(&self.user);
            }
        }
    }
}

impl Handle {
    fn sit(&self, watched: &Arc<Watched>) {
        let seat = Seat { watched: watched.clone(), client: self.client.clone(), form: self.form };
        self.outbox.sit(Some(Arc::new(seat)));
    }
}

impl Orders {
    /// Adds an order. False if too many wait.
    pub(crate) fn give(&self, order: Order) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.len() == ORDERS_MAX {
            return false;
        }
        waiting.push_back(order);
        drop(waiting);
        self.added.notify_one();
        true
    }

    /// The next order. Cancel-safe.
    pub(crate) async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.waiting.lock().pop_front() {
                return order;
            }
            self.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(key: ConnectionKey) -> Handle {
        Handle {
            key,
            client: key.to_string().into(),
            form: Form::default(),
            outbox: Arc::new(Outbox::new(1)),
            orders: Arc::default(),
        }
    }

    #[test]
    fn a_user_has_the_connections_that_are_open() {
        let connections = Arc::new(Connections::default());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let first = connections.add(&ann, handle(1));
        let _second = connections.add(&ann, handle(2));
        let _other = connections.add(&bob, handle(3));
        assert_eq!(connections.of("ann").len(), 2);
        drop(first);
        assert_eq!(connections.of("ann").iter().map(|handle| handle.key).collect::<Vec<_>>(), [2]);
        assert!(connections.of("eve").is_empty());
    }

    #[tokio::test]
    async fn orders_are_taken_in_order_and_bounded() {
        let orders = Orders::default();
        for _ in 0..ORDERS_MAX {
            assert!(orders.give(Order::Refresh { expires_at: None }));
        }
        assert!(!orders.give(Order::Refresh { expires_at: None }));
        assert!(matches!(orders.next().await, Order::Refresh { expires_at: None }));
    }
}
