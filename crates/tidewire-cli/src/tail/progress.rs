//! How far a tail has come in a stream: which event is next, what is missing, and what to read to find it. No I/O.

use std::fmt;
use std::ops::RangeInclusive;

use tidewire_protocol::{StreamPosition, SubscribeResult};

/// Where a tail begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    Now,
    Oldest,
    After(StreamPosition<'static>),
}

/// The place of a tail in a stream.
///
/// Events come by themselves, in order, once the subscription stands. Where one does not - the server could not
/// recover, or a hole appears - the events after `position` are read page by page, and those that come meanwhile are
/// dropped, because a page brings them: nothing waits in memory.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last event seen or known to be gone. `None` before the start is known, and on a channel that keeps nothing.
    position: Option<StreamPosition<'static>>,
    /// The stream reaches this far, and what follows `position` has to be read.
    read_until: u64,
    /// Nothing was asked for that may be gone.
    takes_oldest: bool,
}

/// What to do with an event.
#[derive(Debug, PartialEq)]
pub(super) enum Admission {
    Print,
    /// It was printed before, or a page brings it again.
    Drop,
}

/// Something that whoever reads the events has to know.
#[derive(Debug, PartialEq)]
pub(super) enum Notice {
    /// A position was asked for and the channel has none.
    KeepsNothing,
    /// The stream has another epoch than the position.
    HistoryLost { after: u64 },
    /// The position is past the end.
    PastEnd { asked: u64, last: u64 },
    /// Events that were asked for and are not there any more.
    Gone(RangeInclusive<u64>),
}

impl Progress {
    pub(super) fn new(start: Start) -> Self {
        let takes_oldest = start == Start::Oldest;
        let position = match start {
            Start::Now => None,
            Start::Oldest => Some(StreamPosition::default()),
            Start::After(position) => Some(position),
        };
        Self { position, read_until: 0, takes_oldest }
    }

    /// From where to subscribe; `None` for "from now".
    pub(super) fn position(&self) -> Option<&StreamPosition<'static>> {
        self.position.as_ref()
    }

    /// From where to read a page of history, if one is needed.
    pub(super) fn wanted(&self) -> Option<StreamPosition<'static>> {
        self.position.clone().filter(|position| position.offset < self.read_until)
    }

    /// The subscription stands; its own events are admitted next.
    pub(super) fn subscribed(&mut self, result: &SubscribeResult<'_>) -> Option<Notice> {
        self.read_until = 0;
        if !result.recoverable {
            return self.position.take().map(|_| Notice::KeepsNothing);
        }
        let top = StreamPosition { offset: result.offset, epoch: result.epoch.clone().into_owned().into() };
        let Some(position) = &mut self.position else {
            self.position = Some(top);
            return None;
        };
        if !position.epoch.is_empty() && position.epoch != top.epoch {
            let after = position.offset;
            self.read_until = top.offset;
            *position = StreamPosition { offset: 0, ..top };
            return Some(Notice::HistoryLost { after });
        }
        position.epoch = top.epoch.clone();
        if result.recovered {
            return None;
        }
        if position.offset > top.offset {
            let notice = Notice::PastEnd { asked: position.offset, last: top.offset };
            *position = top;
            return Some(notice);
        }
        self.read_until = top.offset;
        None
    }

    /// An event that came by itself; offset 0 for a live one.
    pub(super) fn admit(&mut self, offset: u64) -> Admission {
        match &mut self.position {
            Some(position) if offset == position.offset + 1 => {
                position.offset = offset;
                Admission::Print
            }
            Some(position) if offset > position.offset => {
                self.read_until = self.read_until.max(offset);
                Admission::Drop
            }
            Some(_) if offset > 0 => Admission::Drop,
            _ => Admission::Print,
        }
    }

    /// An event of a page that was read.
    pub(super) fn admit_read(&mut self, offset: u64) -> (Option<Notice>, Admission) {
        let Some(position) = self.position.as_mut().filter(|position| position.offset < offset) else {
            return (None, Admission::Drop);
        };
        let first_wanted = position.offset + 1;
        let is_gap = offset > first_wanted && !self.takes_oldest;
        position.offset = offset;
        self.takes_oldest = false;
        (is_gap.then(|| Notice::Gone(first_wanted..=offset - 1)), Admission::Print)
    }

    /// A page that was read holds nothing: what was wanted is gone.
    pub(super) fn read_nothing(&mut self) -> Option<Notice> {
        let read_until = self.read_until;
        let position = self.position.as_mut().filter(|position| position.offset < read_until)?;
        let gone = position.offset + 1..=read_until;
        position.offset = read_until;
        (!self.takes_oldest).then_some(Notice::Gone(gone))
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepsNothing => {
                f.write_str("gap: the channel keeps nothing, so only what is published from now on follows")
            }
            Self::HistoryLost { after } => write!(
                f,
                "gap: the stream lost its history and began again; what followed offset {after} before is gone"
            ),
            Self::PastEnd { asked, last } => {
                write!(
                    f,
                    "gap: offset {asked} is past the end of the stream; going on after its last, {last}"
                )
            }
            Self::Gone(range) => {
                write!(f, "gap: offsets {} to {} are not kept any more", range.start(), range.end())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, offset: u64) -> StreamPosition<'static> {
        StreamPosition { offset, epoch: epoch.to_owned().into() }
    }

    fn standing(epoch: &'static str, offset: u64, recovered: bool) -> SubscribeResult<'static> {
        let epoch = epoch.into();
        SubscribeResult { recoverable: true, epoch, offset, recovered, ..SubscribeResult::default() }
    }

    #[test]
    fn prints_each_event_once_over_a_reconnect() {
        let mut progress = Progress::new(Start::Now);
        assert_eq!(progress.position(), None);
        assert_eq!(progress.subscribed(&standing("a", 7, false)), None);
        assert_eq!(progress.admit(8), Admission::Print);
        assert_eq!(progress.admit(0), Admission::Print, "a live event");

        assert_eq!(progress.position(), Some(&at("a", 8)));
        assert_eq!(progress.subscribed(&standing("a", 8, true)), None);
        assert_eq!(progress.admit(8), Admission::Drop);
        assert_eq!(progress.admit(9), Admission::Print);
        assert_eq!(progress.wanted(), None);
    }

    #[test]
    fn reads_what_does_not_come_by_itself() {
        let mut progress = Progress::new(Start::After(at("", 3)));
        assert_eq!(progress.subscribed(&standing("a", 5, false)), None);
        assert_eq!(progress.wanted(), Some(at("a", 3)));
        assert_eq!(progress.admit(6), Admission::Drop, "the page after next brings it");
        assert_eq!(progress.admit_read(4), (None, Admission::Print));
        assert_eq!(progress.admit_read(5), (None, Admission::Print));
        assert_eq!(progress.wanted(), Some(at("a", 5)));
        assert_eq!(progress.admit_read(6), (None, Admission::Print));
        assert_eq!(progress.wanted(), None);
        assert_eq!(progress.admit(9), Admission::Drop, "a hole");
        assert_eq!(progress.wanted(), Some(at("a", 6)));
    }

    #[test]
    fn tells_what_is_gone() {
        let mut progress = Progress::new(Start::After(at("a", 3)));
        progress.subscribed(&standing("a", 9, false));
        assert_eq!(progress.admit_read(6), (Some(Notice::Gone(4..=5)), Admission::Print));
        assert_eq!(progress.read_nothing(), Some(Notice::Gone(7..=9)));
        assert_eq!(progress.wanted(), None);
        assert_eq!(progress.admit(10), Admission::Print);
    }

    #[test]
    fn the_oldest_event_kept_is_no_gap() {
        let mut progress = Progress::new(Start::Oldest);
        progress.subscribed(&standing("a", 9, false));
        assert_eq!(progress.admit_read(6), (None, Admission::Print));
        assert_eq!(progress.admit_read(8), (Some(Notice::Gone(7..=7)), Admission::Print));
    }

    #[test]
    fn goes_on_with_all_of_a_new_epoch_and_says_that_the_old_one_is_gone() {
        let mut progress = Progress::new(Start::After(at("a", 7)));
        assert_eq!(progress.subscribed(&standing("b", 2, false)), Some(Notice::HistoryLost { after: 7 }));
        assert_eq!(progress.wanted(), Some(at("b", 0)));
    }

    #[test]
    fn a_position_that_the_stream_does_not_have_is_told() {
        let mut progress = Progress::new(Start::After(at("", 7)));
        assert_eq!(
            progress.subscribed(&standing("a", 2, false)),
            Some(Notice::PastEnd { asked: 7, last: 2 })
        );
        assert_eq!(progress.admit(3), Admission::Print);

        let mut live = Progress::new(Start::Oldest);
        assert_eq!(live.subscribed(&SubscribeResult::default()), Some(Notice::KeepsNothing));
        assert_eq!(live.position(), None);
        assert_eq!(live.admit(0), Admission::Print);
    }
}
