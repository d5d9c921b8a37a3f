//! What is done when the time of a session or subscription is over, or about to be.

use tidewire_protocol::codes::UnsubscribeCode;
use tokio::time::Instant;

use super::asking::ASK_AGAIN_AFTER;
use super::connection::{Admitted, Connection};
use super::subscribe::Subscription;
use crate::hooks::{Denied, Refreshed};
use crate::hub::outbox::Disconnect;
use crate::permission;

impl Connection {
    /// When the next subscription ends with its token, or a backend is to be asked whether something goes on.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let Admitted { subscriptions, known, .. } = self.admitted.as_ref()?;
        let times = |subscription: &Subscription| [subscription.end_at, subscription.refresh_at];
        let session = known.as_ref().and_then(|known| known.refresh_at);
        subscriptions.iter().flat_map(times).flatten().chain(session).min()
    }

    /// Asks whether what is about to end goes on, and ends the subscriptions whose time is over: their clients come again.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub(super) async fn expire(&mut self) -> Result<(), Disconnect> {
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        let Ok(Admitted { subscriptions, known, .. }) = self.admitted() else { return Ok(()) };
        let due = subscriptions.iter().filter(|subscription| is_due(subscription.refresh_at));
        let due: Vec<Box<str>> = due.map(|subscription| subscription.channel().into()).collect();
        if is_due(known.as_ref().and_then(|known| known.refresh_at)) {
            self.refresh_by_hook().await?;
        }
        for channel in due {
            self.sub_refresh_by_hook(&channel).await?;
        }
        let Ok(Admitted { subscriptions, .. }) = self.admitted() else { return Ok(()) };
        let is_over = |subscription: &Subscription| is_due(subscription.end_at);
        let over = subscriptions.remove_if(is_over);
        for subscription in over {
            subscription.relay.expel(subscription.connection, UnsubscribeCode::EXPIRED);
            subscription.end().await;
        }
        Ok(())
    }

    /// Asks whether a subscription goes on, and ends it if not.
    async fn sub_refresh_by_hook(&mut self, channel: &str) -> Result<(), Disconnect> {
        let node = self.node.clone();
        let Ok(Admitted { tenant, .. }) = self.admitted() else { return Ok(()) };
        let rule = permission::rule_of(&tenant.rules, channel).ok();
        let name = rule.and_then(|rule| rule.ask.sub_refresh.as_deref());
        let Some(endpoint) = name.and_then(|name| tenant.hooks.named(name)).cloned() else { return Ok(()) };
        let asked = Denied::settle(self.ask_sub_refresh(&endpoint, channel).await)?;
        let Ok(Admitted { subscriptions, .. }) = self.admitted() else { return Ok(()) };
        match (asked, subscriptions.get_mut(channel)) {
            (Ok(Refreshed { expires_at, .. }), Some(subscription)) => {
                subscription.watch_refresh(&node, expires_at);
            }
            (Err(failure), Some(subscription)) if failure.code.is_temporary => {
                let again_at = node.clock.now().saturating_add(ASK_AGAIN_AFTER);
                subscription.watch_refresh(&node, Some(again_at));
            }
            (Err(_), Some(subscription)) => {
                (subscription.end_at, subscription.refresh_at) = (Some(Instant::now()), None)
            }
            (_, None) => {}
        }
        Ok(())
    }
}
