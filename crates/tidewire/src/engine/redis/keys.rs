//! The names of keys and channels, and in which slot of a cluster they are. No other file builds one.
//!
//! `prod:tenant:org-123:{pm3o}:stream:payments`: what belongs to one channel shares its hash tag, so that one script can
//! touch all of it; tenants share no prefix, so that an ACL can be given to one. Stored data is found by these names:
//! they never change.

use super::connection::Need;
use crate::name::{ChannelPath, EntryPath, GroupPath, PatternPath};

/// One hash tag for each 128 of a cluster's 16,384 slots, each in the middle of its run.
///
/// Tags by number (`{0}` to `{127}`) fall where their checksum throws them: on six nodes, between 15 and 27 of them.
/// These give 21 or 22.
const TAGS: [&str; 128] = [
    "p5fj", "p17d", "pbol", "p342", "p40c", "p0am", "p635", "pghk", "phab", "pd9t", "pjb4", "p30r", "pi7k",
    "p8l5", "p67u", "poe3", "p1jg", "p0hj", "p3i1", "pb2o", "p0xf", "pag0", "pg5h", "p6n6", "pddw", "phxi",
    "p3mq", "p7xw", "p816", "pacp", "po80", "p6jv", "p5wh", "p1bn", "p706", "p3a8", "p4ei", "p04g", "pclo",
    "p271", "ph4h", "p9o6", "p74v", "p3ex", "paky", "pm3o", "pka7", "p23q", "p96u", "p5nc", "p3x3", "p7m5",
    "p0id", "p48j", "p2j2", "pc1l", "p925", "phik", "pwt3", "p7iu", "pegt", "pa6z", "p2nr", "prs4", "pjgd",
    "pn6j", "p5gz", "p16t", "pc8u", "pvkk", "p41s", "p8ie", "p23o", "p31b", "pqkz", "p124", "p66e", "p2gk",
    "p453", "penm", "pfbq", "pbww", "p1kw", "ph91", "pg4x", "pcev", "p0yv", "p4lp", "p3la", "p7yg", "p1o7",
    "p5z1", "pg08", "p6kf", "pe3n", "p4h0", "pj2n", "pfjx", "p52p", "p9jf", "pkdg", "pgxy", "p4dy", "p05w",
    "p75f", "p3dh", "p560", "pdmn", "p6co", "p22a", "paji", "p017", "pfss", "pbfu", "p1zu", "p5os", "pgar",
    "pctt", "p0ht", "p49z", "p39k", "p7he", "pd0m", "p5k3", "p2ob", "p6zd", "p0l4", "p4y2",
];

/// A hash tag, by its number in the table. What shares one is in one slot: atomic together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Tag(u8);

impl Tag {
    /// How many there are.
    pub(super) const COUNT: usize = TAGS.len();

    /// The tag of a channel's stream and announcements.
    pub(super) fn of_channel(channel: &ChannelPath) -> Self {
        Self::of(channel.checksum())
    }

    /// The tag of an entry of the store.
    pub(super) fn of_entry(entry: &EntryPath) -> Self {
        Self::of(entry.checksum())
    }

    /// The tag of what is scheduled.
    pub(super) fn of_schedule() -> Self {
        Self(0)
    }

    fn of(checksum: u32) -> Self {
        Self(checksum.to_le_bytes()[0] & 0x7f)
    }

    /// All of them, by number.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..128).map(Self)
    }

    /// The slot of a cluster that it is in: CRC-16/XMODEM, as the Redis Cluster specification says.
    pub(super) fn slot(self) -> u16 {
        slot(self.text())
    }

    /// Its number, below [`Tag::COUNT`].
    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    fn text(self) -> &'static str {
        TAGS.get(self.index()).copied().unwrap_or_default()
    }
}

/// The stream of a channel.
pub(super) fn stream(channel: &ChannelPath) -> String {
    of_channel(channel, "}:stream:")
}

/// The hash beside the stream: epoch, newest offset, retention.
pub(super) fn meta(channel: &ChannelPath) -> String {
    of_channel(channel, "}:meta:")
}

/// The mark of a dedup id. No channel holds a bracket, so no two ids of a tenant share a mark.
pub(super) fn dedup(channel: &ChannelPath, id: &str) -> String {
    let mut key = of_channel(channel, "}:dedup:");
    key.push('[');
    key.push_str(id);
    key.push(']');
    key
}

/// What Redis calls a channel: where live events and announcements travel.
pub(super) fn channel(channel: &ChannelPath) -> String {
    channel_parts(channel, Tag::of_channel(channel)).concat()
}

/// Where those are told who wait for work of the groups of a channel's stream.
pub(super) fn work(channel: &ChannelPath) -> String {
    of_channel(channel, "}:work:")
}

/// What the groups of a channel's stream need of it.
pub(super) fn floors(channel: &ChannelPath) -> String {
    of_channel(channel, "}:floors:")
}

/// What a group's scripts touch, in the order of `group.lua`: stream, meta, floors; group, sessions, free records, items and
/// their index. No channel holds a bracket, so no two groups of a tenant share a key.
pub(super) fn group(group: &GroupPath) -> [String; 8] {
    let channel = group.channel();
    let of_group = |kind| {
        let mut key = of_channel(channel, kind);
        ["[", group.group(), "]"].iter().for_each(|part| key.push_str(part));
        key
    };
    [
        stream(channel),
        meta(channel),
        floors(channel),
        of_group("}:group:"),
        of_group("}:sessions:"),
        of_group("}:free:"),
        of_group("}:items:"),
        of_group("}:index:"),
    ]
}

/// The mark of an id that a group has handled.
pub(super) fn mark(group: &GroupPath, id: &str) -> String {
    let mut key = of_channel(group.channel(), "}:mark:");
    ["[", group.group(), "][", id, "]"].iter().for_each(|part| key.push_str(part));
    key
}

/// [`channel`] in parts, for who writes it without putting it together.
pub(super) fn channel_parts(channel: &ChannelPath, tag: Tag) -> [&str; 5] {
    parts(channel, tag, "}:channel:")
}

/// The glob that matches the channels of a pattern, and of one tenant only: no name holds a brace.
pub(super) fn pattern(pattern: &PatternPath) -> String {
    let (environment, tenant, local) = (pattern.environment(), pattern.tenant(), pattern.pattern());
    format!("{environment}:tenant:{tenant}:{{*}}:channel:{local}")
}

/// Where, on a cluster, those with patterns hear all channels of a tenant in one slot.
pub(super) fn patterns(environment: &str, tenant: &str, tag: Tag) -> String {
    format!("{environment}:tenant:{tenant}:{{{}}}:patterns", tag.text())
}

/// What the names of a tenant start with.
pub(super) fn tenant(environment: &str, tenant: &str) -> String {
    format!("{environment}:tenant:{tenant}:")
}

/// The text of the tag in a name.
pub(super) fn tag_text(name: &[u8]) -> Option<&[u8]> {
    let start = name.iter().position(|&byte| byte == b'{')? + 1;
    let end = start + name.get(start..)?.iter().position(|&byte| byte == b'}')?;
    name.get(start..end)
}

/// The tag in a name.
pub(super) fn tag_of(name: &[u8]) -> Option<Tag> {
    let tag = tag_text(name)?;
    let number = TAGS.iter().position(|text| text.as_bytes() == tag)?;
    u8::try_from(number).ok().map(Tag)
}

/// The channel that a Redis channel stands for.
pub(super) fn channel_of(key: &[u8]) -> Option<ChannelPath> {
    let key = std::str::from_utf8(key).ok()?;
    let (environment, rest) = key.split_once(":tenant:")?;
    let (tenant, rest) = rest.split_once(":{")?;
    let (_, local) = rest.split_once("}:channel:")?;
    ChannelPath::new(environment, tenant, local).ok()
}

/// An entry of the store.
pub(super) fn entry(entry: &EntryPath) -> String {
    [entry.prefix(), "{", Tag::of_entry(entry).text(), "}:entry:", entry.key()].concat()
}

/// What the scripts of a set of members touch: the members, their names in order, and whose they are.
pub(super) fn members(set: &EntryPath) -> [String; 3] {
    let tag = Tag::of_entry(set).text();
    ["}:members:", "}:order:", "}:owners:"].map(|kind| [set.prefix(), "{", tag, kind, set.key()].concat())
}

/// The answer to one of a node's last batches of appends in one slot that need the same.
pub(super) fn answer(node: &str, tag: Tag, need: Need, number: u64) -> String {
    let Need { copies, is_fsynced } = need;
    let kind = match (copies, is_fsynced) {
        (0, false) => String::new(),
        (copies, false) => format!("{copies}r:"),
        (copies, true) => format!("{copies}rs:"),
    };
    format!("tidewire:node:{node}:{{{}}}:answer:{kind}{number}", tag.text())
}

/// When what is scheduled is due, and what it is. One pair for all: the streams are in other slots.
pub(super) fn schedule() -> (String, String) {
    let tag = Tag::of_schedule().text();
    (format!("tidewire:{{{tag}}}:schedule:times"), format!("tidewire:{{{tag}}}:schedule:appends"))
}

fn of_channel(channel: &ChannelPath, kind: &'static str) -> String {
    parts(channel, Tag::of_channel(channel), kind).concat()
}

fn parts<'a>(channel: &'a ChannelPath, tag: Tag, kind: &'static str) -> [&'a str; 5] {
    [channel.prefix(), "{", tag.text(), kind, channel.channel()]
}

fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(channel: &str) -> ChannelPath {
        ChannelPath::new("prod", "org-123", channel).unwrap()
    }

    #[test]
    fn each_tag_is_in_the_middle_of_its_run_of_slots() {
        assert_eq!(slot("123456789"), 0x31c3);
        for (run, tag) in TAGS.iter().enumerate() {
            let middle = u16::try_from(run).unwrap() * 128 + 64;
            assert!(slot(tag).abs_diff(middle) <= 1, "{tag} is in slot {}", slot(tag));
        }
    }

    #[test]
    fn channels_spread_over_the_tags() {
        let mut counts = [0; Tag::COUNT];
        (0..128_000).for_each(|n| counts[Tag::of_channel(&path(&format!("match:{n}"))).index()] += 1);
        assert!(counts.iter().all(|count| (850..=1_150).contains(count)), "{counts:?}");
    }

    /// Data is stored under these names. If this test fails, the change loses every stream there is.
    #[test]
    fn names_never_change() {
        let payments = path("payments");
        assert_eq!(stream(&payments), "prod:tenant:org-123:{pm3o}:stream:payments");
        assert_eq!(meta(&payments), "prod:tenant:org-123:{pm3o}:meta:payments");
        assert_eq!(dedup(&payments, "order-7"), "prod:tenant:org-123:{pm3o}:dedup:payments[order-7]");
        assert_eq!(channel(&payments), "prod:tenant:org-123:{pm3o}:channel:payments");
        assert_eq!(work(&payments), "prod:tenant:org-123:{pm3o}:work:payments");
        let mailers = GroupPath::new(payments.clone(), "mailers").unwrap();
        let kinds = ["group", "sessions", "free", "items", "index"];
        let of_group = kinds.map(|kind| format!("prod:tenant:org-123:{{pm3o}}:{kind}:payments[mailers]"));
        assert_eq!(group(&mailers)[3..], of_group);
        assert_eq!(group(&mailers)[2], "prod:tenant:org-123:{pm3o}:floors:payments");
        assert_eq!(mark(&mailers, "order-7"), "prod:tenant:org-123:{pm3o}:mark:payments[mailers][order-7]");
        let matches = PatternPath::new("prod", "org-123", "match:*").unwrap();
        assert_eq!(pattern(&matches), "prod:tenant:org-123:{*}:channel:match:*");
        assert_eq!(
            patterns("prod", "org-123", Tag::of_channel(&payments)),
            "prod:tenant:org-123:{pm3o}:patterns"
        );
        assert_eq!(tag_of(channel(&payments).as_bytes()), Some(Tag::of_channel(&payments)));
        let key = EntryPath::new("prod", "org-123", "session:9").unwrap();
        assert_eq!(entry(&key), "prod:tenant:org-123:{p6jv}:entry:session:9");
        let kinds = ["members", "order", "owners"];
        assert_eq!(members(&key), kinds.map(|kind| format!("prod:tenant:org-123:{{p6jv}}:{kind}:session:9")));
        let nodes = EntryPath::of_environment("prod", "presence:nodes").unwrap();
        assert_eq!(members(&nodes)[0], "prod:tenant::{p1zu}:members:presence:nodes");
        let answer = |need| answer("n1", Tag::of_channel(&payments), need, 3);
        assert_eq!(answer(Need::default()), "tidewire:node:n1:{pm3o}:answer:3");
        let need = Need { copies: 2, is_fsynced: true };
        assert_eq!(answer(need), "tidewire:node:n1:{pm3o}:answer:2rs:3");
        assert_eq!(schedule().0, "tidewire:{p5fj}:schedule:times");
        assert_eq!(schedule().1, "tidewire:{p5fj}:schedule:appends");
        let tags: String = (0..8).map(|n| Tag::of_channel(&path(&n.to_string())).text()).collect();
        assert_eq!(tags, "p48jp3a8phxipoe3pakypwt3p5fjpg5h");
        assert_eq!(crc32fast::hash(TAGS.concat().as_bytes()), 714262903);
    }

    #[test]
    fn a_redis_channel_gives_back_its_channel() {
        for name in ["payments", "a:channel:b", ":tenant:"] {
            assert_eq!(channel_of(channel(&path(name)).as_bytes()), Some(path(name)));
        }
        assert_eq!(channel_of(b"somebody else's"), None);
    }
}
