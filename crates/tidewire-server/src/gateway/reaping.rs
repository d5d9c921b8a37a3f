//! Members of nodes that are gone: they are taken out of their channels, and their going is told.

use std::sync::Arc;
use std::time::Duration;

use tidewire::{PresenceChange, PresenceNews, Reaped};
use tokio::time::sleep;

use super::attendance::tell;
use crate::lifecycle;
use crate::node::Node;
use crate::permission;
use crate::publication::Movement;

/// How often a node looks for others that are gone: with their lease of 1.5 s, what they leave behind is gone within 2 s.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks for nodes that are gone, as long as this one is there.
pub(crate) fn start(node: &Arc<Node>) {
    let node = node.clone();
    node.tasks.clone().spawn(async move {
        loop {
            // Not cut short: what was found is told, or nobody tells it.
            match node.tidewire.reap_members(|departing| lifecycle::see_off(node.clone(), departing)).await {
                Ok(Reaped { changes, standing, .. }) => {
                    lifecycle::come_back(&node, standing);
                    for change in changes {
                        tell_change(&node, change).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot look for nodes that are gone"),
            }
            tokio::select! {
                () = node.tasks.stopping().cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    });
}

async fn tell_change(node: &Node, change: PresenceChange) {
    let PresenceChange { tenant, channel, news, .. } = change;
    let Some(tenant) = node.tenants.named(&tenant) else { return };
    let is_told = permission::rule_of(&tenant.rules, &channel).is_ok_and(|rule| rule.join_leave);
    if !is_told {
        return;
    }
    match news {
        PresenceNews::Left(member) => tell(tenant, &channel, Movement::Leave, member.info).await,
        PresenceNews::Returned(member) => tell(tenant, &channel, Movement::Join, member.info).await,
        _ => {}
    }
}
