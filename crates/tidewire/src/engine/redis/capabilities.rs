//! What a server offers beyond Redis 7.0, the floor: found out by the commands that it knows.

use super::command::Command;
use super::resp::Value;

/// Something that newer servers can.
#[derive(Debug)]
pub(super) struct Capability {
    pub(super) name: &'static str,
    /// Any of these commands shows it.
    commands: &'static [&'static str],
    pub(super) since: &'static str,
    /// How it is without.
    pub(super) without: &'static str,
}

/// The ladder, lowest rung first.
pub(super) const LADDER: [Capability; 7] = [
    Capability {
        name: "sharded pub/sub",
        commands: &["spublish"],
        since: "Redis 7.0",
        without: "a cluster cannot be used",
    },
    Capability {
        name: "WAITAOF",
        commands: &["waitaof"],
        since: "Redis 7.2",
        without: "Fsynced needs appendfsync always",
    },
    Capability {
        name: "HEXPIRE",
        commands: &["hexpire"],
        since: "Redis 7.4, Valkey 9.0",
        without: "nothing needs it yet",
    },
    Capability {
        name: "slot statistics",
        commands: &["cluster|slot-stats"],
        since: "Redis 8.2, Valkey 8.0",
        without: "a cluster does not tell its busy slots",
    },
    Capability {
        name: "XACKDEL",
        commands: &["xackdel"],
        since: "Redis 8.2",
        without: "nothing needs it yet",
    },
    Capability {
        name: "atomic slot moves",
        commands: &["cluster|migration", "cluster|migrateslots"],
        since: "Redis 8.4, Valkey 9.0",
        without: "new streams wait while their slot moves",
    },
    Capability {
        // Its settings came with it, and have a command of their own.
        name: "XADD IDMP",
        commands: &["xcfgset"],
        since: "Redis 8.6",
        without: "a script keeps dedup ids",
    },
];

/// Which rungs of the ladder a server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capabilities([bool; LADDER.len()]);

impl Capabilities {
    /// The question that [`Capabilities::read`] reads the answer to.
    pub(super) fn question() -> Command {
        let commands = LADDER.iter().flat_map(|rung| rung.commands);
        commands.fold(Command::new("COMMAND").arg("INFO"), |question, command| question.arg(command))
    }

    /// None if it is an answer to something else.
    pub(super) fn read(reply: Value) -> Option<Self> {
        let mut known = reply.into_array()?.into_iter();
        let mut rungs = [false; LADDER.len()];
        for (rung, has) in LADDER.iter().zip(&mut rungs) {
            for _ in rung.commands {
                *has |= known.next()? != Value::Null;
            }
        }
        Some(Self(rungs))
    }

    /// Each rung, and whether the server has it.
    pub(super) fn rungs(&self) -> impl Iterator<Item = (&'static Capability, bool)> {
        LADDER.iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_there_when_any_of_its_commands_is_known() {
        let known = |commands: &[&str]| {
            let all = LADDER.iter().flat_map(|rung| rung.commands);
            let reply = |command: &&str| match commands.contains(command) {
                true => Value::Array(vec![Value::Bulk(command.as_bytes().to_vec().into())]),
                false => Value::Null,
            };
            let capabilities = Capabilities::read(Value::Array(all.map(reply).collect())).expect("an answer");
            let there = capabilities.rungs().filter(|(_, is_there)| *is_there);
            there.map(|(rung, _)| rung.name).collect::<Vec<_>>()
        };
        assert_eq!(known(&["spublish", "waitaof"]), ["sharded pub/sub", "WAITAOF"]);
        assert_eq!(known(&["cluster|migrateslots"]), ["atomic slot moves"]);
        assert_eq!(known(&["cluster|migration", "xcfgset"]), ["atomic slot moves", "XADD IDMP"]);
        assert_eq!(Capabilities::read(Value::Array(Vec::new())), None);
    }
}
