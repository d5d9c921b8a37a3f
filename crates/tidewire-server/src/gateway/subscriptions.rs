//! The subscriptions of one connection, by channel.

use super::subscribe::Subscription;

/// A list and not a map: most connections have one or a few, and a map would take several times as much for them.
#[derive(Default)]
pub(super) struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    pub(super) fn get(&self, channel: &str) -> Option<&Subscription> {
        self.0.iter().find(|subscription| subscription.channel() == channel)
    }

    pub(super) fn get_mut(&mut self, channel: &str) -> Option<&mut Subscription> {
        self.0.iter_mut().find(|subscription| subscription.channel() == channel)
    }

    /// Adds one to a channel that has none.
    pub(super) fn add(&mut self, subscription: Subscription) {
        if self.0.len() < 4 {
            self.0.reserve_exact(1);
        }
        self.0.push(subscription);
    }

    pub(super) fn remove(&mut self, channel: &str) -> Option<Subscription> {
        let at = self.0.iter().position(|subscription| subscription.channel() == channel)?;
        Some(self.0.swap_remove(at))
    }

    /// Whether there is one that goes on. One that was ended from outside is there until now; a new one begins after it.
    pub(super) async fn has_live(&mut self, channel: &str) -> bool {
        if self.get(channel).is_some_and(Subscription::is_live) {
            return true;
        }
        if let Some(ended) = self.remove(channel) {
            ended.end().await;
        }
        false
    }

    /// Removes those that are `over`.
    pub(super) fn remove_if(&mut self, over: impl Fn(&Subscription) -> bool) -> Vec<Subscription> {
        self.0.extract_if(.., |subscription| over(subscription)).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
