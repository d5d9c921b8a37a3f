//! What a node wants to hear of a cluster, slot by slot, and at which primary each slot is heard.
//!
//! A slot can move at any time: its server then ends the subscriptions in it unasked. Whatever is not heard at the
//! primary that serves it now is asked for there, all of a node at once, and when it is heard again, listeners are told
//! that something may have been missed.
//!
//! A pattern is heard as one channel per tag of its tenant. Scripts and publishers ask the server whether anybody hears
//! that channel, and only then publish on it too; nothing is registered, so nothing can be left over.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::interests::{Hears, Name, TenantPatterns, interests};
use crate::engine::redis::keys::{self, Tag};
use crate::engine::redis::topology::Node;
use crate::engine::{Heard, Interest, Sink};

/// The interests of a node in a cluster.
pub(in crate::engine::redis) struct Sharded {
    /// By the number of the tag.
    slots: Mutex<Vec<Slot>>,
    /// By what names of one tenant start with.
    patterns: Mutex<FxHashMap<String, TenantPatterns>>,
    sink: Arc<dyn Sink>,
    lost: Notify,
    /// Has the map of the cluster looked at.
    stale: Arc<Notify>,
}

#[derive(Default)]
struct Slot {
    names: FxHashMap<Bytes, Hears>,
    /// The primary where they were heard last; none before the first.
    home: Option<Weak<Node>>,
    /// The server there has ended some of them.
    is_lost: bool,
}

/// A slot that is to be heard at another primary, or again.
struct Move {
    tag: Tag,
    names: Vec<Name>,
    /// Where it was heard until now.
    from: Option<Arc<Node>>,
    was_lost: bool,
}

impl Sharded {
    pub(in crate::engine::redis) fn new(sink: Arc<dyn Sink>, stale: Arc<Notify>) -> Self {
        let slots = Tag::all().map(|_| Slot::default()).collect();
        Self { slots: Mutex::new(slots), patterns: Mutex::default(), sink, lost: Notify::new(), stale }
    }

    pub(super) fn hear(&self, heard: Heard) {
        self.sink.hear(heard);
    }

    /// Wants `interests` from now on; gives the names of each slot that are to be heard for them.
    pub(in crate::engine::redis) fn want(&self, interests: &[Interest]) -> Vec<(Tag, Vec<Name>)> {
        let mut wanted: FxHashMap<Tag, Vec<Name>> = FxHashMap::default();
        for interest in interests {
            match interest {
                Interest::Channel(path) | Interest::Work(path) => {
                    wanted.entry(Tag::of_channel(path)).or_default().push(Name::of(interest));
                }
                Interest::Pattern(path) => {
                    let tenant = keys::tenant(path.environment(), path.tenant());
                    let patterns = self.patterns.lock().entry(tenant).or_default().clone();
                    patterns.lock().push(path.clone());
                    for tag in Tag::all() {
                        let text = keys::patterns(path.environment(), path.tenant(), tag).into();
                        let name = Name { text, hears: Hears::Patterns(patterns.clone()) };
                        wanted.entry(tag).or_default().push(name);
                    }
                }
            }
        }
        let mut slots = self.slots.lock();
        for (tag, names) in &wanted {
            if let Some(slot) = slots.get_mut(tag.index()) {
                slot.names.extend(names.iter().map(|name| (name.text.clone(), name.hears.clone())));
            }
        }
        drop(slots);
        wanted.into_iter().collect()
    }

    /// Does not want `interests` any more; gives the names that nobody wants then.
    pub(in crate::engine::redis) fn give_up(&self, interests: &[Interest]) -> Vec<Name> {
        let mut names = Vec::new();
        for interest in interests {
            match interest {
                Interest::Channel(_) | Interest::Work(_) => names.push(Name::of(interest)),
                Interest::Pattern(path) => {
                    let tenant = keys::tenant(path.environment(), path.tenant());
                    let mut tenants = self.patterns.lock();
                    let Some(patterns) = tenants.get(&tenant).cloned() else { continue };
                    let mut held = patterns.lock();
                    held.retain(|held| held != path);
                    if held.is_empty() {
                        drop(held);
                        tenants.remove(&tenant);
                        names.extend(Tag::all().map(|tag| Name {
                            text: keys::patterns(path.environment(), path.tenant(), tag).into(),
                            hears: Hears::Patterns(patterns.clone()),
                        }));
                    }
                }
            }
        }
        let mut slots = self.slots.lock();
        for name in &names {
            let slot = keys::tag_of(&name.text).and_then(|tag| slots.get_mut(tag.index()));
            if let Some(slot) = slot
                && slot.names.remove(&name.text).is_some()
                && slot.names.is_empty()
            {
                *slot = Slot::default();
            }
        }
        drop(slots);
        names
    }

    /// The names of a slot are heard at `node`, unless they were heard elsewhere before: then they are to move.
    pub(in crate::engine::redis) fn settle(&self, tag: Tag, node: &Arc<Node>) {
        if let Some(slot) = self.slots.lock().get_mut(tag.index()) {
            slot.home.get_or_insert_with(|| Arc::downgrade(node));
            if slot.is_lost {
                self.lost.notify_one();
            }
        }
    }

    /// Servers have stopped to hear `names` for us.
    pub(super) fn lose(&self, names: impl Iterator<Item = impl AsRef<[u8]>>) {
        let mut slots = self.slots.lock();
        let mut is_any = false;
        for tag in names.filter_map(|name| keys::tag_of(name.as_ref())) {
            if let Some(slot) = slots.get_mut(tag.index()) {
                slot.is_lost = true;
                is_any = true;
            }
        }
        drop(slots);
        if is_any {
            self.stale.notify_one();
            self.lost.notify_one();
        }
    }

    /// Waits until a server has stopped to hear something for us.
    pub(in crate::engine::redis) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Hears everything at the primaries that serve it now; false if something could not be heard by `deadline`.
    pub(in crate::engine::redis) async fn follow(
        &self,
        owners: &[Option<Arc<Node>>],
        deadline: Instant,
    ) -> bool {
        let moves = self.misplaced(owners).into_iter().map(async |(node, moves)| {
            let names: Vec<Name> = moves.iter().flat_map(|part| part.names.iter().cloned()).collect();
            match node.subscriber().hear(&names, deadline).await {
                Ok(()) => {
                    let unwanted = self.arrive(&moves, &node);
                    node.subscriber().leave(&unwanted);
                    // Not before: what a node said of the cluster may have been old.
                    for Move { names, from, .. } in &moves {
                        from.iter().for_each(|from| from.subscriber().leave(names));
                    }
                    tracing::info!(slots = moves.len(), "subscriptions moved with their slots");
                    self.sink.hear(Heard::Moved(interests(names.iter().map(|name| &name.hears))));
                    true
                }
                Err(error) => {
                    tracing::debug!(%error, slots = moves.len(), "subscriptions could not be moved yet");
                    self.stay(&moves);
                    false
                }
            }
        });
        join_all(moves).await.into_iter().all(|is_done| is_done)
    }

    /// What is not heard where it should be, by the primary that should hear it.
    fn misplaced(&self, owners: &[Option<Arc<Node>>]) -> Vec<(Arc<Node>, Vec<Move>)> {
        let mut moves: Vec<(Arc<Node>, Vec<Move>)> = Vec::new();
        let mut slots = self.slots.lock();
        for ((tag, slot), owner) in Tag::all().zip(slots.iter_mut()).zip(owners) {
            let (Some(home), Some(owner)) = (&slot.home, owner) else { continue };
            let home = home.upgrade();
            let is_home = home.as_ref().is_some_and(|home| Arc::ptr_eq(home, owner));
            let was_lost = std::mem::take(&mut slot.is_lost);
            if is_home && !was_lost {
                continue;
            }
            let name = |(text, hears): (&Bytes, &Hears)| Name { text: text.clone(), hears: hears.clone() };
            let names = slot.names.iter().map(name).collect();
            let part = Move { tag, names, from: home.filter(|_| !is_home), was_lost };
            match moves.iter_mut().find(|(node, _)| Arc::ptr_eq(node, owner)) {
                Some((_, parts)) => parts.push(part),
                None => moves.push((owner.clone(), vec![part])),
            }
        }
        moves
    }

    /// Slots are heard at `node` now; gives the names that nobody wants any more.
    fn arrive(&self, moves: &[Move], node: &Arc<Node>) -> Vec<Name> {
        let mut slots = self.slots.lock();
        let mut unwanted = Vec::new();
        for Move { tag, names, .. } in moves {
            let Some(slot) = slots.get_mut(tag.index()) else { continue };
            if !slot.names.is_empty() {
                slot.home = Some(Arc::downgrade(node));
            }
            unwanted.extend(names.iter().filter(|name| !slot.names.contains_key(&name.text)).cloned());
        }
        unwanted
    }

    fn stay(&self, moves: &[Move]) {
        let mut slots = self.slots.lock();
        for Move { tag, was_lost, .. } in moves {
            if let Some(slot) = slots.get_mut(tag.index()) {
                slot.is_lost |= *was_lost && !slot.names.is_empty();
            }
        }
    }
}

#[cfg(test)]
mod tests;
