//! What the handlers of a case did, and how its groups are consumed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::scene::{Scene, patiently};
use crate::bus::{Channel, Consuming, Delivery, EventHandler, Group, Outcome, Retries};
use crate::engine::Start;
use crate::event::Event;

/// What handlers did, in the order in which they did it, and a count of it to wait for.
#[derive(Clone)]
pub(super) struct Diary {
    entries: Arc<Mutex<Vec<Note>>>,
    count: Arc<Semaphore>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) number: usize,
    pub(super) attempt: u32,
    pub(super) fence: u64,
}

impl Diary {
    pub(super) fn new() -> Self {
        Self { entries: Arc::default(), count: Arc::new(Semaphore::new(0)) }
    }

    /// Notes the number of an event and its attempt.
    pub(super) fn note(&self, delivery: &Delivery) -> usize {
        let number = number_of(delivery.event());
        self.entries.lock().push(Note { number, attempt: delivery.attempt(), fence: delivery.fence() });
        self.count.add_permits(1);
        number
    }

    /// A handler that notes what it gets, and does with its number and attempt what `decide` says.
    pub(super) fn handler(
        &self,
        decide: impl Fn(usize, u32) -> Outcome + Clone + Send + Sync + 'static,
    ) -> impl EventHandler<(Delivery,)> {
        let diary = self.clone();
        move |delivery: Delivery| {
            let number = diary.note(&delivery);
            std::future::ready(decide(number, delivery.attempt()))
        }
    }

    /// Waits for so many notes since the last wait.
    pub(super) async fn wait(&self, notes: u32) {
        let permits = patiently("handlers", self.count.acquire_many(notes)).await;
        permits.expect("never closed").forget();
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        self.entries.lock().clone()
    }

    pub(super) fn numbers(&self) -> Vec<usize> {
        self.entries.lock().iter().map(|note| note.number).collect()
    }

    /// The numbers in their order, each once.
    pub(super) fn sorted(&self) -> Vec<usize> {
        let mut numbers = self.numbers();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    pub(super) fn attempts_of(&self, number: usize) -> Vec<u32> {
        let entries = self.entries.lock();
        entries.iter().filter(|note| note.number == number).map(|note| note.attempt).collect()
    }
}

pub(super) fn number_of(event: &Event) -> usize {
    std::str::from_utf8(event.data()).expect("text").parse().expect("a number")
}

pub(super) fn group(channel: &Channel) -> Group {
    channel.group("shipping", Start::Earliest).expect("a valid name")
}

/// A consumer whose lease is short enough for a case to see it end.
pub(super) fn consume(scene: &Scene, group: &Group) -> Consuming {
    let retries = Retries { first_delay: scene.ticks(2), delay_max: scene.ticks(2), ..Retries::default() };
    let consuming = group.consume().lease(scene.lease()).retries(retries);
    consuming.timeout(scene.lease() * 1_000).stop_within(scene.lease() * 10)
}
