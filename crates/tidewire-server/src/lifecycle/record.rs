//! What was told last of a channel: kept where all nodes see it, changed by compare-and-set. Odd generations are occupied, even
//! ones vacated, and each is told before the next begins: so what is told alternates, whoever races or dies.

use std::time::Duration;

use bytes::Bytes;

use super::DEDUP_WINDOW;

/// How long it is kept that a channel was told as vacated. The next generation begins at one again, so the ids of the ones
/// before must be forgotten by then.
const VACATED_FOR: Duration = DEDUP_WINDOW.saturating_mul(2);

/// The record of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) generation: u64,
    pub(super) progress: Progress,
}

/// How far a generation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is to be told, by whoever sees it.
    Begun,
    #[default]
    Told,
}

impl Record {
    /// The record as it is kept. What cannot be read was written by nobody that tells: as if there were none.
    pub(super) fn read(kept: &[u8]) -> Option<Self> {
        let (generation, progress) = std::str::from_utf8(kept).ok()?.split_once(' ')?;
        let progress = match progress {
            "begun" => Progress::Begun,
            "told" => Progress::Told,
            _ => return None,
        };
        Some(Self { generation: generation.parse().ok()?, progress })
    }

    pub(super) fn kept(self) -> Bytes {
        let progress = match self.progress {
            Progress::Begun => "begun",
            Progress::Told => "told",
        };
        format!("{} {progress}", self.generation).into()
    }

    /// How long it is kept; none: until it is changed.
    pub(super) fn ttl(self) -> Option<Duration> {
        (self.progress == Progress::Told && !self.is_occupied()).then_some(VACATED_FOR)
    }

    pub(super) fn is_occupied(self) -> bool {
        !self.generation.is_multiple_of(2)
    }

    /// The one that follows.
    pub(super) fn next(self) -> Self {
        Self { generation: self.generation + 1, progress: Progress::Begun }
    }

    pub(super) fn told(self) -> Self {
        Self { progress: Progress::Told, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of all releases share it. Append-only.
    #[test]
    fn what_is_kept_never_changes() {
        let occupied = Record::default().next();
        assert_eq!((occupied.kept(), occupied.told().kept()), ("1 begun".into(), "1 told".into()));
        assert_eq!(Record::read(b"1 begun"), Some(occupied));
        assert!(occupied.is_occupied() && !occupied.next().is_occupied());
        assert_eq!((Record::read(b"x told"), Record::read(b"1")), (None, None));
    }

    #[test]
    fn only_what_is_told_and_vacated_is_forgotten() {
        let occupied = Record::default().next();
        let vacated = occupied.told().next();
        assert_eq!((occupied.ttl(), occupied.told().ttl(), vacated.ttl()), (None, None, None));
        assert_eq!(vacated.told().ttl(), Some(VACATED_FOR));
    }
}
