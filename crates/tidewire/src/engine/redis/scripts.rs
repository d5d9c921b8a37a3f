//! The scripts: one file per atomic step, loaded into each server once and then called by their digest.

use std::sync::OnceLock;

use tokio::time::Instant;

use super::command::Command;
use super::connection::{Connection, Repeat, RequestError};
use super::keys::{self, Tag};
use crate::name::ChannelPath;

/// A script of this engine. What it does, takes and returns is said at the head of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Append,
    Read,
    Seek,
    Trim,
    Stats,
    PutIfEqual,
    MembersChange,
    MembersPage,
    Schedule,
    Due,
    Cancel,
    GroupOpen,
    GroupTurn,
    GroupStats,
    GroupItems,
    GroupChange,
}

const SCRIPTS: [Script; 16] = [
    Script::Append,
    Script::Read,
    Script::Seek,
    Script::Trim,
    Script::Stats,
    Script::PutIfEqual,
    Script::MembersChange,
    Script::MembersPage,
    Script::Schedule,
    Script::Due,
    Script::Cancel,
    Script::GroupOpen,
    Script::GroupTurn,
    Script::GroupStats,
    Script::GroupItems,
    Script::GroupChange,
];

macro_rules! stream_script {
    ($name:literal) => {
        concat!(include_str!("scripts/stream.lua"), include_str!(concat!("scripts/", $name, ".lua")))
    };
}

macro_rules! members_script {
    ($name:literal) => {
        concat!(include_str!("scripts/members.lua"), include_str!(concat!("scripts/", $name, ".lua")))
    };
}

macro_rules! group_script {
    ($name:literal) => {
        concat!(
            include_str!("scripts/stream.lua"),
            include_str!("scripts/group.lua"),
            include_str!(concat!("scripts/", $name, ".lua"))
        )
    };
}

impl Script {
    const fn source(self) -> &'static str {
        match self {
            Self::Append => stream_script!("append"),
            Self::Read => stream_script!("read"),
            Self::Seek => stream_script!("seek"),
            Self::Trim => stream_script!("trim"),
            Self::Stats => stream_script!("stats"),
            Self::PutIfEqual => include_str!("scripts/put_if_equal.lua"),
            Self::MembersChange => members_script!("members_change"),
            Self::MembersPage => members_script!("members_page"),
            Self::Schedule => include_str!("scripts/schedule.lua"),
            Self::Due => include_str!("scripts/due.lua"),
            Self::Cancel => include_str!("scripts/cancel.lua"),
            Self::GroupOpen => group_script!("group_open"),
            Self::GroupTurn => group_script!("group_turn"),
            Self::GroupStats => group_script!("group_stats"),
            Self::GroupItems => group_script!("group_items"),
            Self::GroupChange => group_script!("group_change"),
        }
    }

    pub(super) fn load(self, publish: Publish) -> Command {
        let mut text = format!("local PUBLISH = '{}'\n", publish.command());
        // Without what only people read, a third, where each line stays the line that it is.
        for line in self.source().lines() {
            let line = line.trim_start();
            text.push_str(if line.starts_with("--") { "" } else { line });
            text.push('\n');
        }
        Command::new("SCRIPT").arg("LOAD").arg(text)
    }

    /// Whether a link brings it along. Those of groups would be most of it, and are loaded where they are missing, as are those
    /// of sets of members.
    fn is_in_prelude(self) -> bool {
        let is_of_members = matches!(self, Self::MembersChange | Self::MembersPage);
        !is_of_members
            && !matches!(
                self,
                Self::GroupOpen | Self::GroupTurn | Self::GroupStats | Self::GroupItems | Self::GroupChange
            )
    }
}

/// With which command scripts and publishers reach the listeners of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    /// On one server.
    Classic,
    /// On a cluster, where a classic publish goes to every node.
    Sharded,
}

impl Publish {
    /// The command's name.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Classic => "PUBLISH",
            Self::Sharded => "SPUBLISH",
        }
    }

    /// Where those with patterns hear a channel; empty where the server matches them.
    pub(super) fn patterns(self, channel: &ChannelPath) -> String {
        match self {
            Self::Classic => String::new(),
            Self::Sharded => {
                keys::patterns(channel.environment(), channel.tenant(), Tag::of_channel(channel))
            }
        }
    }
}

/// Commands that load scripts; they open each link, so that a restarted server has them before it is asked.
pub(super) fn prelude(publish: Publish) -> Vec<Command> {
    SCRIPTS.iter().filter(|script| script.is_in_prelude()).map(|script| script.load(publish)).collect()
}

/// The digests of the scripts, as the server computes them from their text.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) publish: Publish,
    digests: [OnceLock<Vec<u8>>; SCRIPTS.len()],
}

impl Scripts {
    /// Loads every script and learns its digest.
    pub(super) async fn load(
        publish: Publish,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<Self, RequestError> {
        let scripts = Self { publish, digests: Default::default() };
        for script in SCRIPTS {
            scripts.reload(script, connection, deadline).await?;
        }
        Ok(scripts)
    }

    /// Loads a script again, after somebody flushed those of the server.
    pub(super) async fn reload(
        &self,
        script: Script,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<(), RequestError> {
        let digest = connection.request(&script.load(self.publish), Repeat::Safe, deadline).await?;
        let cell = self.digests.get(script as usize);
        if let (Some(cell), Some(digest)) = (cell, digest.as_bytes()) {
            cell.get_or_init(|| digest.to_vec());
        }
        Ok(())
    }

    /// A call of a script, to which `keys` keys and then the arguments are to be added.
    pub(super) fn call(&self, script: Script, keys: usize, bytes: usize) -> Command {
        let digest = self.digests.get(script as usize).and_then(OnceLock::get);
        let mut command = Command::with_capacity("EVALSHA", bytes + 64);
        command.push(digest.map(Vec::as_slice).unwrap_or_default());
        command.push_int(i64::try_from(keys).unwrap_or(i64::MAX));
        command
    }
}
