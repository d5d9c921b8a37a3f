//! The hub: the listeners of this node, and the interests that it holds at the engine for them.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::lane::{Arrival, Lane};
use crate::engine::{Heard, Interest, PubSub, Sink};
use crate::error::{Error, Result};
use crate::event;
use crate::limits;

/// Locks are held for one event or one change; more shards than cores keep them apart.
const SHARD_COUNT: usize = 64;

/// Routes what the engine hears to the lanes that wait for it.
///
/// One interest is held at the engine however many lanes share it, from the first lane to the last.
pub(crate) struct Hub {
    shards: Box<[Shard]>,
    pubsub: OnceLock<Arc<dyn PubSub>>,
    was_relinked: Arc<AtomicBool>,
}

#[derive(Default)]
struct Shard {
    held: Mutex<FxHashMap<Interest, Held>>,
    /// Orders subscribe against unsubscribe of the same interest.
    change: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    lanes: Vec<Arc<Lane>>,
    recent: RecentIds,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARD_COUNT).map(|_| Shard::default()).collect(),
            pubsub: OnceLock::new(),
            was_relinked: Arc::default(),
        }
    }

    /// Says which engine holds the interests; once, right after it is opened.
    pub(crate) fn attach(&self, pubsub: Arc<dyn PubSub>) {
        // A second attach cannot happen: the builder owns both.
        let _first = self.pubsub.set(pubsub).is_ok();
    }

    /// Set when a link was lost or led elsewhere: another server may have taken over, without what was written last.
    pub(crate) fn was_relinked(&self) -> Arc<AtomicBool> {
        self.was_relinked.clone()
    }

    fn shard(&self, interest: &Interest) -> &Shard {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash choose a shard")]
        let hash = FxBuildHasher.hash_one(interest) as usize;
        #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
        &self.shards[hash % SHARD_COUNT]
    }

    fn pubsub(&self) -> Result<&Arc<dyn PubSub>> {
        self.pubsub.get().ok_or_else(|| Error::closed("engine"))
    }

    /// Adds a lane. When this returns, all that is published later arrives in it.
    pub(super) async fn listen(&self, interest: &Interest, lane: Arc<Lane>) -> Result<()> {
        let shard = self.shard(interest);
        let _ordered = shard.change.lock().await;
        let is_first = {
            let mut held = shard.held.lock();
            let entry = held.entry(interest.clone()).or_default();
            entry.lanes.push(lane.clone());
            entry.lanes.len() == 1
        };
        if is_first && let Err(error) = self.pubsub()?.subscribe(vec![interest.clone()]).await {
            shard.remove(interest, &lane);
            return Err(error);
        }
        Ok(())
    }

    /// Removes a lane at once; the interest of a last lane is then given up by [`release`](Self::release).
    pub(super) fn leave(&self, interest: &Interest, lane: &Arc<Lane>) -> bool {
        self.shard(interest).remove(interest, lane)
    }

    /// Gives up the interest at the engine if still no lane shares it.
    pub(super) async fn release(&self, interest: Interest) -> Result<()> {
        let shard = self.shard(&interest);
        let _ordered = shard.change.lock().await;
        if shard.held.lock().contains_key(&interest) {
            return Ok(());
        }
        self.pubsub()?.unsubscribe(vec![interest]).await
    }

    /// Closes every lane: their subscriptions end after what they hold.
    pub(crate) fn close(&self) {
        for shard in &self.shards {
            shard.held.lock().values().flat_map(|held| &held.lanes).for_each(|lane| lane.close());
        }
    }
}

impl Shard {
    /// Removes a lane; true if it was the last of its interest.
    fn remove(&self, interest: &Interest, lane: &Arc<Lane>) -> bool {
        let mut held = self.held.lock();
        let Some(entry) = held.get_mut(interest) else { return false };
        entry.lanes.retain(|other| !Arc::ptr_eq(other, lane));
        let is_last = entry.lanes.is_empty();
        if is_last {
            held.remove(interest);
        }
        is_last
    }
}

impl Sink for Hub {
    fn hear(&self, heard: Heard) {
        if matches!(heard, Heard::Relinked | Heard::Moved(_)) {
            self.was_relinked.store(true, Ordering::Release);
        }
        match heard {
            Heard::Event { interest, channel, kept, envelope } => {
                let mut held = self.shard(&interest).held.lock();
                let Some(entry) = held.get_mut(&interest) else { return };
                if kept.is_none() && entry.recent.is_second_copy(&envelope) {
                    return;
                }
                for lane in &entry.lanes {
                    let (channel, kept, envelope) = (channel.clone(), kept.clone(), envelope.clone());
                    lane.push(Arrival { channel, kept, envelope });
                }
            }
            Heard::Work(channel) => {
                let interest = Interest::Work(channel);
                if let Some(held) = self.shard(&interest).held.lock().get(&interest) {
                    held.lanes.iter().for_each(|lane| lane.relink());
                }
            }
            Heard::Moved(interests) => {
                for interest in interests {
                    if let Some(held) = self.shard(&interest).held.lock().get(&interest) {
                        held.lanes.iter().for_each(|lane| lane.relink());
                    }
                }
            }
            Heard::Relinked => {
                for shard in &self.shards {
                    shard.held.lock().values().flat_map(|held| &held.lanes).for_each(|lane| lane.relink());
                }
            }
        }
    }
}

/// Ids of the last live events of an interest, to drop the second copy of a publish that was retried.
#[derive(Default)]
struct RecentIds(VecDeque<u128>);

impl RecentIds {
    /// Remembers the event. True if it is marked as retried and its first copy was seen.
    fn is_second_copy(&mut self, envelope: &[u8]) -> bool {
        let Some((id, is_retried)) = event::identity_of(envelope) else { return false };
        if is_retried && self.0.contains(&id) {
            return true;
        }
        if self.0.len() == limits::RECENT_IDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(id);
        false
    }
}
