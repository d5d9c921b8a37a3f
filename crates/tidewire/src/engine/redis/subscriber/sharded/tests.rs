//! Against a primary made of two pipes: what it says unasked is never taken for an answer, and is never overheard.

use futures_util::FutureExt as _;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::Subscriber;
use super::*;
use crate::engine::redis::link::Link;
use crate::engine::redis::tests::pipe::{HandedOut, Remote, after, in_virtual_time, pipe};
use crate::name::{ChannelPath, PatternPath};
use crate::tasks::Tasks;

#[derive(Default)]
struct Ears(Mutex<Vec<String>>);

impl Sink for Ears {
    fn hear(&self, heard: Heard) {
        self.0.lock().push(match heard {
            Heard::Relinked => "relinked".to_owned(),
            Heard::Work(channel) => format!("work {}", channel.channel()),
            Heard::Moved(interests) => format!("moved {}", interests.len()),
            Heard::Event { interest: Interest::Pattern(pattern), channel, envelope, .. } => {
                let envelope = String::from_utf8_lossy(&envelope).into_owned();
                format!("{} {} {envelope}", pattern.pattern(), channel.channel())
            }
            Heard::Event { channel, envelope, .. } => {
                format!("{} {}", channel.channel(), String::from_utf8_lossy(&envelope))
            }
        });
    }
}

struct Rig {
    sharded: Arc<Sharded>,
    subscriber: Subscriber,
    ears: Arc<Ears>,
    links: mpsc::Sender<Link>,
}

/// What a node listens with, and the primary's end of its first link.
async fn rig() -> (Rig, Remote) {
    let ((link, remote), (links, dial)) = (pipe(), HandedOut::new());
    let ears = Arc::new(Ears::default());
    let sharded = Arc::new(Sharded::new(ears.clone(), Arc::default()));
    let subscriber = Subscriber::sharded(Arc::new(dial), sharded.clone(), &Tasks::new());
    links.send(link).await.unwrap();
    (Rig { sharded, subscriber, ears, links }, remote)
}

impl Rig {
    fn want(&self, interest: Interest) -> Vec<Name> {
        self.sharded.want(&[interest]).into_iter().flat_map(|(_, names)| names).collect()
    }
}

fn path(channel: &str) -> ChannelPath {
    ChannelPath::new("dev", "default", channel).unwrap()
}

fn push(kind: &str, name: &str, last: &str) -> String {
    format!(">3\r\n${}\r\n{kind}\r\n${}\r\n{name}\r\n{last}", kind.len(), name.len())
}

fn message(name: &str, payload: &str) -> String {
    push("smessage", name, &format!("${}\r\n{payload}\r\n", payload.len()))
}

/// Answers commands as a primary does that serves every slot but `moved`, up to and with the next `PING`.
async fn serve(remote: &mut Remote, moved: Option<Tag>) -> Vec<String> {
    let mut commands = Vec::new();
    while let Some(command) = remote.command().await {
        if let Some(number) = command.strip_prefix("PING ") {
            remote.send(format!("${}\r\n{number}\r\n", number.len())).await;
            return commands;
        }
        let (verb, names) = command.split_once(' ').unwrap();
        if moved.is_some() && keys::tag_of(names.as_bytes()) == moved {
            remote.send("-MOVED 5 10.0.0.1:7000\r\n").await;
        } else {
            for name in names.split(' ') {
                remote.send(push(&verb.to_ascii_lowercase(), name, ":1\r\n")).await;
            }
        }
        commands.push(command);
    }
    commands
}

#[test]
fn a_slot_that_moves_is_noticed_and_its_push_is_nobodys_answer() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        serve(&mut remote, None).await;
        let names = rig.want(Interest::Channel(path("a")));
        let key = keys::channel(&path("a"));
        let (heard, commands) = tokio::join!(rig.subscriber.hear(&names, after(5)), serve(&mut remote, None));
        heard.unwrap();
        assert_eq!(commands, [format!("SSUBSCRIBE {key}")]);
        let pinged = async {
            remote.command().await;
            // The push comes where the answer is waited for.
            remote.send(push("sunsubscribe", &key, ":0\r\n")).await;
            remote.send("$1\r\n3\r\n").await;
        };
        let (answer, ()) = tokio::join!(rig.subscriber.ping(Duration::from_secs(5)), pinged);
        answer.unwrap();
        rig.sharded.lost().await;
        // Asked for again, it is heard again.
        let (heard, commands) = tokio::join!(rig.subscriber.hear(&names, after(5)), serve(&mut remote, None));
        heard.unwrap();
        assert_eq!(commands, [format!("SSUBSCRIBE {key}")]);
        remote.send(message(&key, "pnews")).await;
        let (answer, _) = tokio::join!(rig.subscriber.ping(Duration::from_secs(5)), serve(&mut remote, None));
        answer.unwrap();
        assert_eq!(*rig.ears.0.lock(), ["a news"]);
    });
}

#[test]
fn what_we_end_ourselves_is_not_lost() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        serve(&mut remote, None).await;
        let names = rig.want(Interest::Channel(path("a")));
        let (heard, _) = tokio::join!(rig.subscriber.hear(&names, after(5)), serve(&mut remote, None));
        heard.unwrap();
        // Ended and begun again before the server has said anything of the end.
        rig.subscriber.leave(&names);
        let (heard, commands) = tokio::join!(rig.subscriber.hear(&names, after(5)), serve(&mut remote, None));
        heard.unwrap();
        assert_eq!(commands.len(), 2, "{commands:?}");
        assert!(rig.sharded.lost().now_or_never().is_none());
    });
}

#[test]
fn a_slot_that_moved_is_refused_and_the_others_are_heard() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        serve(&mut remote, None).await;
        let (here, gone) = (path("a"), path("b"));
        assert_ne!(Tag::of_channel(&here), Tag::of_channel(&gone));
        let names =
            [rig.want(Interest::Channel(here.clone())), rig.want(Interest::Channel(gone.clone()))].concat();
        let moved = Some(Tag::of_channel(&gone));
        let (heard, commands) =
            tokio::join!(rig.subscriber.hear(&names, after(5)), serve(&mut remote, moved));
        assert!(heard.unwrap_err().to_string().contains("MOVED"));
        assert_eq!(commands.len(), 2, "one command per slot");
        // The one is confirmed already, and not asked for again.
        rig.subscriber.hear(&names[..1], after(5)).await.unwrap();
    });
}

#[test]
fn a_new_link_restores_what_its_primary_serves_and_tells_whose_it_was() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        serve(&mut remote, None).await;
        let (here, gone) = (path("a"), path("b"));
        let names =
            [rig.want(Interest::Channel(here.clone())), rig.want(Interest::Channel(gone.clone()))].concat();
        let (heard, _) = tokio::join!(rig.subscriber.hear(&names, after(5)), serve(&mut remote, None));
        heard.unwrap();
        drop(remote);
        let (link, mut remote) = pipe();
        rig.links.send(link).await.unwrap();
        serve(&mut remote, Some(Tag::of_channel(&gone))).await;
        rig.sharded.lost().await;
        assert_eq!(*rig.ears.0.lock(), ["moved 2"]);
    });
}

#[test]
fn a_pattern_hears_its_tenant_slot_by_slot_and_matches_here() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        serve(&mut remote, None).await;
        let pattern = |text| Interest::Pattern(PatternPath::new("dev", "default", text).unwrap());
        let names = rig.want(pattern("match:*"));
        assert_eq!(names.len(), Tag::COUNT);
        let (heard, commands) = tokio::join!(rig.subscriber.hear(&names, after(5)), serve(&mut remote, None));
        heard.unwrap();
        assert_eq!(commands.len(), Tag::COUNT);
        rig.want(pattern("match:7*"));
        for channel in ["match:7", "other", "match:8"] {
            let (tag, key) = (Tag::of_channel(&path(channel)), keys::channel(&path(channel)));
            remote.send(message(&keys::patterns("dev", "default", tag), &format!("{key}\npnews"))).await;
        }
        let (answer, _) = tokio::join!(rig.subscriber.ping(Duration::from_secs(5)), serve(&mut remote, None));
        answer.unwrap();
        let expected = ["match:* match:7 news", "match:7* match:7 news", "match:* match:8 news"];
        assert_eq!(*rig.ears.0.lock(), expected);
        // The names are given up with the last pattern.
        assert!(rig.sharded.give_up(&[pattern("match:*")]).is_empty());
        assert_eq!(rig.sharded.give_up(&[pattern("match:7*")]).len(), Tag::COUNT);
    });
}
