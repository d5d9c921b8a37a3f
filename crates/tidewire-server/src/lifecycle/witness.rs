//! What a dead node can tell no more: who finds it tells it, before the rows are removed. Whoever dies in between leaves them
//! to the next one, whose repetition has the same dedup ids.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tidewire::{Departing, Present};

use super::fact::{Ending, Fact};
use super::{Lifecycle, may_pass};
use crate::config::NODES_TENANT;
use crate::node::Node;

/// What the names of the sets begin with. Those of a dead node are gone through in order of their names: it is out of all
/// channels before the first of those that it held is looked at.
pub(super) const ATTENDED: &str = "attended";
pub(super) const HELD: &str = "held";
pub(super) const TOLD: &str = "told";

/// Connections or channels that are told of at a time.
const TOLD_AT_A_TIME: usize = 64;

/// Tells what is to be told of rows of a dead node.
///
/// # Errors
/// Those of the engine: the rows stay then.
pub(crate) fn see_off(node: Arc<Node>, departing: Departing) -> BoxFuture<'static, tidewire::Result<()>> {
    async move { tell_departing(&node, departing).await }.boxed()
}

async fn tell_departing(node: &Node, departing: Departing) -> tidewire::Result<()> {
    let Departing { tenant, channel, members, .. } = departing;
    if *tenant != *NODES_TENANT {
        return Ok(());
    }
    let mut parts = channel.split(':');
    let (Some(kind @ (HELD | TOLD)), Some(tenant)) = (parts.next(), parts.next()) else { return Ok(()) };
    let lifecycle = node.tenants.named(tenant).and_then(|tenant| tenant.lifecycle.as_ref());
    let Some(lifecycle) = lifecycle else {
        tracing::warn!(tenant, "a dead node had something to tell of a tenant that is not to be told here");
        return Ok(());
    };
    if kind == HELD {
        return all(members.iter().map(|held| lifecycle.reconcile(&held.id).boxed()).collect()).await;
    }
    let clients = members.chunk_by(|one, other| client_of(one) == client_of(other));
    all(clients.map(|rows| lifecycle.tell_rows(rows).boxed()).collect()).await
}

/// Does several things, some at a time, until one fails.
pub(super) async fn all(work: Vec<BoxFuture<'_, tidewire::Result<()>>>) -> tidewire::Result<()> {
    stream::iter(work).buffer_unordered(TOLD_AT_A_TIME).try_collect().await
}

/// Whose a row is.
fn client_of(row: &Present) -> &str {
    row.id.rsplit_once(':').map_or(&*row.id, |(client, _)| client)
}

impl Lifecycle {
    /// Tells that rows of one connection are over, the connection last.
    async fn tell_rows(&self, rows: &[Present]) -> tidewire::Result<()> {
        let now = self.clock.now();
        for row in rows {
            let Some(fact) = Fact::read(&row.info) else {
                tracing::error!(row = &*row.id, "a row of a dead node cannot be read, and is not told");
                continue;
            };
            if fact.is_young(now) {
                self.tell_or_pass(fact.begun()).await?;
            }
            self.tell_or_pass(fact.over(now, Ending::of_node())).await?;
        }
        Ok(())
    }

    /// Tells something; what cannot be told ever is passed over, so that it does not keep all that follows from being told.
    pub(super) async fn tell_or_pass(&self, notice: super::Notice) -> tidewire::Result<()> {
        match self.tell(notice).await {
            Err(error) if !may_pass(&error) => {
                tracing::error!(%error, tenant = self.tenant.name(), "cannot be told");
                Ok(())
            }
            outcome => outcome,
        }
    }
}
