//! Takes a batch apart by hash tag and puts the outcomes together again.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::Job;
use super::lane::Lane;
use crate::engine::redis::connection::Need;
use crate::engine::redis::keys::Tag;
use crate::engine::redis::topology::Topology;
use crate::engine::{Append, Appended};
use crate::error::{Error, Result};
use crate::tasks::Tasks;

/// One lane per tag and per durability asked for, begun at the first append to it.
pub(super) struct Lanes {
    topology: Arc<Topology>,
    node: String,
    tasks: Tasks,
    stop: CancellationToken,
    by_tag: [OnceLock<Lane>; Tag::COUNT],
    /// Those of appends that wait for copies.
    durable: Mutex<FxHashMap<(Tag, Need), Arc<Lane>>>,
}

/// The entries of a batch that share a tag, each with its place in the batch.
struct Part {
    tag: Tag,
    places: Vec<usize>,
    appends: Vec<Append>,
}

impl Lanes {
    pub(super) fn new(topology: Arc<Topology>, node: &str, tasks: Tasks, stop: CancellationToken) -> Self {
        let by_tag = std::array::from_fn(|_| OnceLock::new());
        Self { topology, node: node.to_owned(), tasks, stop, by_tag, durable: Mutex::default() }
    }

    /// Appends to streams of any tags; one outcome per entry, in order.
    pub(super) async fn append(&self, batch: Vec<Append>) -> Result<Vec<Result<Appended>>> {
        if let Some(tag) = Self::only_tag(&batch) {
            return self.append_to(tag, batch).await;
        }
        let parts = take_apart(batch).into_iter().map(async |part| {
            let outcomes = match self.append_to(part.tag, part.appends).await {
                Ok(outcomes) => outcomes,
                // One slot cannot be reached: its entries fail, the others have outcomes of their own.
                Err(error) => {
                    let fail = |_: &usize| Err(Error::new(error.kind(), error.to_string()));
                    part.places.iter().map(fail).collect()
                }
            };
            part.places.into_iter().zip(outcomes)
        });
        let parts = futures_util::future::join_all(parts).await;
        let mut outcomes: Vec<_> = parts.into_iter().flatten().collect();
        outcomes.sort_unstable_by_key(|(place, _)| *place);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    /// The tag of all entries of a batch; none if they are of several, or there are none.
    pub(super) fn only_tag(batch: &[Append]) -> Option<Tag> {
        let mut tags = batch.iter().map(|append| Tag::of_channel(&append.channel));
        let first = tags.next()?;
        tags.all(|tag| tag == first).then_some(first)
    }

    /// Appends entries of one tag. All get what the most demanding asks for: those of one channel stay in their order.
    pub(super) async fn append_to(&self, tag: Tag, appends: Vec<Append>) -> Result<Vec<Result<Appended>>> {
        let needs = appends.iter().map(|append| Need::of(append.durability));
        let need = needs.fold(Need::default(), Need::and);
        let (outcome, outcomes) = oneshot::channel();
        self.push(tag, need, Job { appends, deadline: self.topology.deadline(), outcome });
        // A lane drops its jobs only when the engine stops.
        outcomes.await.unwrap_or_else(|_| Err(Error::closed("the engine")))
    }

    fn push(&self, tag: Tag, need: Need, job: Job) {
        let begin = || Lane::begin(self.topology.clone(), &self.node, tag, need, &self.tasks, &self.stop);
        if need.is_any() {
            let mut durable = self.durable.lock();
            let lane = durable.entry((tag, need)).or_insert_with(|| Arc::new(begin())).clone();
            drop(durable);
            lane.push(job);
        } else if let Some(lane) = self.by_tag.get(tag.index()) {
            lane.get_or_init(begin).push(job);
        }
    }
}

fn take_apart(batch: Vec<Append>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (place, append) in batch.into_iter().enumerate() {
        let tag = Tag::of_channel(&append.channel);
        match parts.iter_mut().find(|part| part.tag == tag) {
            Some(part) => {
                part.places.push(place);
                part.appends.push(append);
            }
            None => parts.push(Part { tag, places: vec![place], appends: vec![append] }),
        }
    }
    parts
}
