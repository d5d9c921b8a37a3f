//! Error replies by name: what a caller can do about each, and what an operator has to change.
//!
//! A script passes on the error of the command inside it with the same name in front and ` script: DIGEST, on LINE` behind.

use std::fmt;

use crate::error::ErrorKind;

/// An error that servers answer with, by how its text begins.
struct Known {
    start: &'static str,
    kind: ErrorKind,
    /// Whether it may pass while a call waits; nothing was executed.
    is_passing: bool,
    fix: &'static str,
}

const fn passing(start: &'static str, fix: &'static str) -> Known {
    Known { start, kind: ErrorKind::Unavailable, is_passing: true, fix }
}

const fn lasting(start: &'static str, kind: ErrorKind, fix: &'static str) -> Known {
    Known { start, kind, is_passing: false, fix }
}

const ACL: &str = "allow it to the ACL user of the engine's URL; docs/redis-layout.md has the rule";

const KNOWN: [Known; 19] = [
    passing("LOADING ", "the server reads its data; it answers when it has it"),
    passing("MASTERDOWN ", "the server is a replica without its primary; give the address of the primary"),
    passing("READONLY ", "the server is a replica; give the address of the primary, or its sentinels"),
    passing(
        "UNBLOCKED ",
        "the server has become a replica; give the address of the primary, or its sentinels",
    ),
    passing("CLUSTERDOWN ", "no primary serves some slots; see CLUSTER INFO, CLUSTER NODES"),
    passing("TRYAGAIN ", "the slot is being moved; it passes when that is done"),
    passing("BUSY ", "a script of somebody else takes long; SCRIPT KILL ends it"),
    passing(
        "NOREPLICAS ",
        "fewer replicas are in step than min-replicas-to-write says; bring them back, or lower it",
    ),
    passing("ERR max number of clients", "raise maxclients of the server, or close connections"),
    lasting(
        "OOM ",
        ErrorKind::Backpressure,
        "the server is full: raise its maxmemory, or let streams keep less",
    ),
    lasting(
        "MISCONF ",
        ErrorKind::Unavailable,
        "the server cannot write to its disk; mend that, or set stop-writes-on-bgsave-error no",
    ),
    lasting("NOAUTH ", ErrorKind::Engine, "give user and password in the engine's URL"),
    lasting("WRONGPASS ", ErrorKind::Engine, "correct user and password in the engine's URL"),
    lasting("NOPERM ", ErrorKind::Engine, ACL),
    lasting("ERR The user executing the script", ErrorKind::Engine, ACL),
    lasting(
        "WRONGTYPE ",
        ErrorKind::Engine,
        "somebody else keeps something under a key of ours: remove that",
    ),
    lasting(
        "MOVED ",
        ErrorKind::Engine,
        "the server is a node of a cluster: write redis-cluster in place of redis",
    ),
    lasting("EXECABORT ", ErrorKind::Engine, "see the server's log"),
    lasting("CROSSSLOT ", ErrorKind::Engine, "this is a fault of ours: report it"),
];

fn known(text: &[u8]) -> Option<&'static Known> {
    KNOWN.iter().find(|known| text.starts_with(known.start.as_bytes()))
}

/// What a caller can do about an error reply.
pub(super) fn kind_of(text: &[u8]) -> ErrorKind {
    known(text).map_or(ErrorKind::Engine, |known| known.kind)
}

/// Whether waiting may help; nothing was executed.
pub(super) fn is_passing(text: &[u8]) -> bool {
    known(text).is_some_and(|known| known.is_passing)
}

/// Whether the server is not a primary any more: another link may lead to one.
pub(super) fn is_demotion(text: &[u8]) -> bool {
    ["READONLY ", "MASTERDOWN ", "UNBLOCKED "].iter().any(|start| text.starts_with(start.as_bytes()))
}

/// An error reply for people: what the server said, and what to change.
pub(super) struct Explained<'a>(pub(super) &'a [u8]);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0);
        // Which line of which script it was says nothing to a caller.
        let said = text.split(" script: ").next().unwrap_or_default().trim_end_matches('.');
        match known(self.0) {
            Some(known) => write!(f, "{said} ({})", known.fix),
            None => f.write_str(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_inside_and_outside_of_a_script() {
        let inside =
            "OOM command not allowed when used memory > 'maxmemory'. script: 0a9f, on @user_script:1.";
        let outside = "OOM command not allowed when used memory > 'maxmemory'.";
        for text in [inside, outside] {
            assert_eq!(kind_of(text.as_bytes()), ErrorKind::Backpressure);
            assert!(!is_passing(text.as_bytes()), "waiting frees no memory");
            let shown = Explained(text.as_bytes()).to_string();
            assert!(
                shown.starts_with(
                    "OOM command not allowed when used memory > 'maxmemory' (the server is full"
                )
            );
        }
    }

    #[test]
    fn what_passes_was_not_executed_and_may_be_tried_again() {
        for text in [
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "READONLY You can't write against a read only replica.",
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            "CLUSTERDOWN Hash slot not served",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR max number of clients reached",
        ] {
            assert_eq!(kind_of(text.as_bytes()), ErrorKind::Unavailable, "{text}");
            assert!(is_passing(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_a_person_has_to_change_is_not_waited_out() {
        for text in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOPERM this user has no permissions to run the 'set' command",
            "ERR The user executing the script can't publish to the channel mentioned in the command",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "MOVED 866 127.0.0.1:7001",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "EXECABORT Transaction discarded because of previous errors.",
            "ERR something new",
        ] {
            assert_eq!(kind_of(text.as_bytes()), ErrorKind::Engine, "{text}");
            assert!(!is_passing(text.as_bytes()), "{text}");
        }
    }
}
