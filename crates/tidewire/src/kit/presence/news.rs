//! Changes that wait until somebody asks for them.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{PresenceChange, Standing};
use crate::limits;

/// What has become of this node's members, until somebody asks for it.
#[derive(Default)]
pub(super) struct Sighting(Mutex<Standing>);

impl Sighting {
    pub(super) fn note(&self, standing: Standing) {
        let mut noted = self.0.lock();
        *noted = standing.max(*noted);
    }

    pub(super) fn take(&self) -> Standing {
        std::mem::take(&mut *self.0.lock())
    }
}

#[derive(Default)]
pub(super) struct News(Mutex<VecDeque<PresenceChange>>);

impl News {
    pub(super) fn add(&self, changes: impl Iterator<Item = PresenceChange>) {
        let mut waiting = self.0.lock();
        waiting.extend(changes);
        let over = waiting.len().saturating_sub(limits::PRESENCE_CHANGES_MAX);
        if over > 0 {
            waiting.drain(..over);
            let limit = limits::PRESENCE_CHANGES_MAX;
            tracing::warn!(over, limit, "changes of members were dropped: nobody asked for them");
        }
    }

    pub(super) fn take(&self) -> Vec<PresenceChange> {
        std::mem::take(&mut *self.0.lock()).into()
    }
}
