//! One event for all subscribers of a channel on this node: encoded once for each form in which they get it.

use tidewire::{Channel, Event};
use tidewire_protocol::Filter;

use super::outbox::Frame;
use crate::publication::{self, Form, Prepared, Tags};

/// Data of the event before, by the form in which subscribers got it: what deltas start from.
pub(super) type Bases = Vec<(Form, Box<[u8]>)>;

/// An event on its way to subscribers.
pub(super) struct Broadcast<'e> {
    channel: &'e Channel,
    event: &'e Event,
    offset: u64,
    tags: Option<Tags<'e>>,
    bases: &'e Bases,
    /// There are few forms, so a list is looked through faster than a map.
    prepared: Vec<(Form, Ready<'e>)>,
}

/// An event in one form, whole and as a delta, each made when the first subscriber needs it.
struct Ready<'e> {
    event: Prepared<'e>,
    whole: Option<Frame>,
    /// Without a frame inside where a delta would be no gain.
    delta: Option<Option<Frame>>,
}

impl<'e> Broadcast<'e> {
    pub(super) fn new(channel: &'e Channel, event: &'e Event, offset: u64, bases: &'e Bases) -> Self {
        Self { channel, event, offset, tags: None, bases, prepared: Vec::new() }
    }

    /// Whether the event is one of those that a filter lets through.
    pub(super) fn is_admitted(&mut self, filter: &Filter) -> bool {
        let tags = self.tags.get_or_insert_with(|| publication::tags_of(self.event));
        publication::is_admitted(filter, tags)
    }

    /// The event as it is sent in a form, to a subscriber that may have the one before.
    pub(super) fn frame(&mut self, form: Form, has_base: bool) -> Frame {
        let known = self.prepared.iter().position(|(other, _)| *other == form);
        let at = known.unwrap_or_else(|| {
            let event = Prepared::new(self.channel, self.event, self.offset, form);
            self.prepared.push((form, Ready { event, whole: None, delta: None }));
            self.prepared.len() - 1
        });
        let Some((_, ready)) = self.prepared.get_mut(at) else { return Frame::default() };
        let (name, bases) = (self.channel.name(), self.bases);
        if form.is_delta && has_base {
            let delta = ready.delta.get_or_insert_with(|| {
                let (_, base) = bases.iter().find(|(other, _)| *other == form)?;
                Some(ready.event.delta(name, base)?.shared())
            });
            if let Some(frame) = delta {
                return frame.clone();
            }
        }
        ready.whole.get_or_insert_with(|| ready.event.push(name).shared()).clone()
    }

    /// What the deltas of the next event start from.
    pub(super) fn into_bases(self) -> Bases {
        let with_deltas = self.prepared.into_iter().filter(|(form, _)| form.is_delta);
        with_deltas.map(|(form, ready)| (form, ready.event.base())).collect()
    }
}
