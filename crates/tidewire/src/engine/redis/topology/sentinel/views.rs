//! What each sentinel says, and what follows from it.

use std::sync::Arc;

use crate::engine::redis::address::Endpoint;

/// What a sentinel says of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// It has not been asked yet.
    Nothing,
    /// Where it is, as of this epoch; 0 where the sentinel may not tell.
    Primary { endpoint: Endpoint, epoch: u64 },
    /// It does not know the name.
    Unknown,
    /// It cannot be asked, and why; whether a person has to change something.
    Silent { why: Arc<str>, is_permanent: bool },
}

/// What all sentinels say, in the order of the URL.
#[derive(Clone, Debug)]
pub(super) struct Views(Vec<View>);

#[derive(Clone, Debug)]
struct View {
    says: Says,
    /// The last question that it answered.
    question: u64,
}

impl Views {
    pub(super) fn new(sentinels: usize) -> Self {
        Self(vec![View { says: Says::Nothing, question: 0 }; sentinels])
    }

    /// Takes over what a sentinel says; gives the primary if it is not the one that was `named`.
    pub(super) fn take(
        &mut self,
        number: usize,
        says: Says,
        question: u64,
        named: Option<&Endpoint>,
    ) -> Option<Endpoint> {
        let view = self.0.get_mut(number)?;
        let before =
            std::mem::replace(view, View { says: says.clone(), question: view.question.max(question) });
        let newest = self.epoch()?;
        // Sentinels that may not tell epochs are believed when they change their minds.
        if let (Says::Primary { endpoint: from, .. }, Says::Primary { endpoint, epoch }) = (before.says, says)
            && from != endpoint
            && epoch == newest
        {
            return (named != Some(&endpoint)).then_some(endpoint);
        }
        let mut primaries = self.0.iter().filter_map(|view| view.says.primary(newest));
        let first = primaries.next()?;
        let is_current = named.is_some_and(|named| named == first || primaries.any(|other| named == other));
        (!is_current).then(|| first.clone())
    }

    /// Where the primary may be, as those say who answered this question or a later one and know of the last failover
    /// that anybody knows of.
    pub(super) fn candidates(&self, question: u64) -> impl Iterator<Item = Endpoint> {
        let newest = self.epoch();
        let fresh = self.0.iter().filter(move |view| view.question >= question);
        fresh.filter_map(move |view| view.says.primary(newest?)).cloned()
    }

    /// Which sentinels answered this question.
    pub(super) fn answered(&self, question: u64) -> impl Iterator<Item = bool> {
        self.0.iter().map(move |view| view.question >= question && !matches!(view.says, Says::Silent { .. }))
    }

    /// Whether waiting for another answer is in vain.
    pub(super) fn is_settled(&self, question: u64) -> bool {
        self.0.iter().all(|view| view.question >= question || matches!(view.says, Says::Silent { .. }))
    }

    /// Whether nobody names a primary, and waiting will not help.
    pub(super) fn is_in_vain(&self) -> bool {
        let is_known = |view: &View| matches!(view.says, Says::Primary { .. });
        let is_wrong =
            |view: &View| matches!(view.says, Says::Unknown | Says::Silent { is_permanent: true, .. });
        self.0.iter().any(is_wrong) && !self.0.iter().any(is_known)
    }

    /// What is wrong with each sentinel.
    pub(super) fn faults(&self, name: &str) -> impl Iterator<Item = Option<String>> {
        self.0.iter().map(move |view| match &view.says {
            Says::Primary { .. } | Says::Nothing => None,
            Says::Unknown => Some(format!("it watches no primary under the name {name:?}")),
            Says::Silent { why, .. } => Some(why.to_string()),
        })
    }

    fn epoch(&self) -> Option<u64> {
        let epoch = |view: &View| match view.says {
            Says::Primary { epoch, .. } => Some(epoch),
            Says::Nothing | Says::Unknown | Says::Silent { .. } => None,
        };
        self.0.iter().filter_map(epoch).max()
    }
}

impl Says {
    /// The primary as of this epoch.
    fn primary(&self, of: u64) -> Option<&Endpoint> {
        match self {
            Self::Primary { endpoint, epoch } if *epoch == of => Some(endpoint),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> Endpoint {
        Endpoint::Tcp { host: "10.0.0.1".to_owned(), port }
    }

    fn says(port: u16, epoch: u64) -> Says {
        Says::Primary { endpoint: server(port), epoch }
    }

    fn silent() -> Says {
        Says::Silent { why: "gone".into(), is_permanent: false }
    }

    /// Three sentinels, and the primary that follows from what they say.
    struct Told(Views, Option<Endpoint>);

    impl Told {
        fn new() -> Self {
            Self(Views::new(3), None)
        }

        fn hear(&mut self, number: usize, says: Says) -> Option<Endpoint> {
            let news = self.0.take(number, says, 1, self.1.as_ref());
            self.1 = news.clone().or(self.1.take());
            news
        }
    }

    #[test]
    fn a_sentinel_that_was_away_does_not_lead_back_to_the_old_primary() {
        let mut told = Told::new();
        assert_eq!(told.hear(0, says(1, 3)), Some(server(1)));
        assert_eq!(told.hear(1, says(1, 3)), None);
        assert_eq!(told.hear(2, silent()), None);
        assert_eq!(told.hear(0, says(2, 4)), Some(server(2)), "the first that knows of the failover counts");
        assert_eq!(told.hear(2, says(1, 3)), None, "it is back, and has not heard of it");
        assert_eq!(told.0.candidates(1).collect::<Vec<_>>(), [server(2)]);
        assert_eq!(told.hear(1, says(2, 4)), None);
    }

    #[test]
    fn the_last_primary_stays_known_while_no_sentinel_answers() {
        let mut told = Told::new();
        told.hear(0, says(1, 3));
        for number in 0..3 {
            assert_eq!(told.hear(number, silent()), None);
        }
        assert_eq!(told.1, Some(server(1)));
        assert!(told.0.is_settled(9) && !told.0.is_in_vain());
        assert_eq!(told.hear(1, says(2, 4)), Some(server(2)));
    }

    #[test]
    fn a_name_that_is_watched_anew_begins_at_a_low_epoch() {
        let mut told = Told::new();
        (0..3).for_each(|number| drop(told.hear(number, says(1, 3))));
        told.hear(0, Says::Unknown);
        told.hear(0, says(2, 0));
        told.hear(1, says(2, 0));
        assert_eq!(told.1, Some(server(1)), "one of them still says so");
        assert_eq!(told.hear(2, says(2, 0)), Some(server(2)));
    }

    #[test]
    fn sentinels_that_may_not_tell_epochs_are_believed_when_they_change_their_minds() {
        let mut told = Told::new();
        (0..3).for_each(|number| drop(told.hear(number, says(1, 0))));
        assert_eq!(told.hear(2, says(2, 0)), Some(server(2)));
        assert_eq!(told.hear(1, says(1, 0)), None);
        assert_eq!(told.hear(1, says(2, 0)), None);
        assert_eq!(told.1, Some(server(2)));
    }

    #[test]
    fn a_question_is_settled_when_all_have_answered_it_or_cannot() {
        let mut views = Views::new(3);
        assert!(!views.is_settled(1), "nobody was asked yet");
        views.take(0, says(1, 1), 2, None);
        views.take(1, silent(), 0, None);
        views.take(2, Says::Unknown, 1, None);
        assert!(views.is_settled(1) && !views.is_settled(2));
        assert_eq!(views.answered(1).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(views.candidates(3).count(), 0);
        assert!(!views.is_in_vain());
        views.take(0, silent(), 2, None);
        assert!(views.is_in_vain());
    }
}
