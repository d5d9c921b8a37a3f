//! Against a server made of two pipes, under a virtual clock: what is confirmed, heard and told, whatever it sends.

use tokio::sync::mpsc;

use super::*;
use crate::engine::Heard;
use crate::engine::redis::keys;
use crate::engine::redis::tests::pipe::{HandedOut, Remote, after, in_virtual_time, pipe};
use crate::error::ErrorKind;
use crate::name::{ChannelPath, PatternPath};

#[derive(Default)]
struct Ears(Mutex<Vec<String>>);

impl Ears {
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Sink for Ears {
    fn hear(&self, heard: Heard) {
        self.0.lock().push(match heard {
            Heard::Relinked => "relinked".to_owned(),
            Heard::Work(channel) => format!("work {}", channel.channel()),
            Heard::Moved(interests) => format!("moved {}", interests.len()),
            Heard::Event { channel, envelope, .. } => {
                format!("{} {}", channel.channel(), String::from_utf8_lossy(&envelope))
            }
        });
    }
}

struct Rig {
    subscriber: Subscriber,
    ears: Arc<Ears>,
    links: mpsc::Sender<Link>,
    tasks: Tasks,
}

/// A subscriber, and the server's end of its first link, which has greeted.
async fn rig() -> (Rig, Remote) {
    let ((link, mut remote), (links, dial)) = (pipe(), HandedOut::new());
    let (ears, tasks) = (Arc::new(Ears::default()), Tasks::new());
    let subscriber = Subscriber::open(link, Arc::new(dial), ears.clone(), &tasks);
    serve(&mut remote).await;
    (Rig { subscriber, ears, links, tasks }, remote)
}

fn path(channel: &str) -> ChannelPath {
    ChannelPath::new("dev", "default", channel).unwrap()
}

fn interest(channel: &str) -> Vec<Interest> {
    vec![Interest::Channel(path(channel))]
}

fn message(channel: &str, payload: &str) -> String {
    let name = keys::channel(&path(channel));
    format!(">3\r\n$7\r\nmessage\r\n${}\r\n{name}\r\n${}\r\n{payload}\r\n", name.len(), payload.len())
}

/// Answers commands as a server does, up to and with the next `PING`; gives those before it.
async fn serve(remote: &mut Remote) -> Vec<String> {
    let mut commands = Vec::new();
    while let Some(command) = remote.command().await {
        if let Some(number) = command.strip_prefix("PING ") {
            remote.send(format!("${}\r\n{number}\r\n", number.len())).await;
            return commands;
        }
        for name in command.split(' ').skip(1) {
            remote.send(format!(">3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len())).await;
        }
        commands.push(command);
    }
    commands
}

#[test]
fn a_subscription_is_confirmed_once_the_server_hears_and_asked_for_once() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        let subscribed = rig.subscriber.subscribe(interest("a"), after(5));
        let served = async {
            let first = remote.command().await.unwrap();
            assert_eq!(first, format!("SUBSCRIBE {}", keys::channel(&path("a"))));
            // Not confirmed by this, nor by a push that looks like it.
            remote.send(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await;
            remote.send(message("a", "p1")).await;
            serve(&mut remote).await;
        };
        let (outcome, ()) = tokio::join!(subscribed, served);
        outcome.unwrap();
        assert_eq!(rig.ears.heard(), ["a 1"]);
        rig.subscriber.subscribe(interest("a"), after(5)).await.unwrap();
    });
}

#[test]
fn a_refused_subscription_is_an_error_and_others_go_on() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        let refused = rig.subscriber.subscribe(interest("secret"), after(5));
        let served = async {
            assert!(remote.command().await.unwrap().starts_with("SUBSCRIBE"));
            remote.send("-NOPERM no permissions to access this channel\r\n").await;
            serve(&mut remote).await;
        };
        let (outcome, ()) = tokio::join!(refused, served);
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Engine);
        assert!(error.to_string().contains("NOPERM"), "{error}");
        let (outcome, commands) =
            tokio::join!(rig.subscriber.subscribe(interest("a"), after(5)), serve(&mut remote));
        outcome.unwrap();
        assert_eq!(commands, [format!("SUBSCRIBE {}", keys::channel(&path("a")))]);
    });
}

#[test]
fn a_lost_link_is_replaced_and_told_after_every_interest_is_restored() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        let pattern = Interest::Pattern(PatternPath::new("dev", "default", "match:*").unwrap());
        let interests = vec![interest("a").remove(0), interest("b").remove(0), pattern];
        let (outcome, _) = tokio::join!(rig.subscriber.subscribe(interests, after(5)), serve(&mut remote));
        outcome.unwrap();
        rig.subscriber.unsubscribe(&interest("b"));
        serve(&mut remote).await;
        drop(remote);
        let (link, mut remote) = pipe();
        rig.links.send(link).await.unwrap();
        let mut restored = vec![remote.command().await.unwrap(), remote.command().await.unwrap()];
        restored.sort();
        let channel = format!("SUBSCRIBE {}", keys::channel(&path("a")));
        assert_eq!(restored, ["PSUBSCRIBE dev:tenant:default:{*}:channel:match:*".to_owned(), channel]);
        assert!(rig.ears.heard().is_empty(), "not told before the server has confirmed");
        serve(&mut remote).await;
        remote.send(message("a", "pafter")).await;
        let (pinged, _) = tokio::join!(rig.subscriber.ping(Duration::from_secs(5)), serve(&mut remote));
        pinged.unwrap();
        assert_eq!(rig.ears.heard(), ["relinked", "a after"]);
        assert_eq!(
            (rig.subscriber.openings().count(), rig.subscriber.openings().open_for()),
            (2, Some(Duration::ZERO))
        );
        drop(remote);
        while rig.subscriber.openings().open_for().is_some() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn who_waits_when_the_link_breaks_is_answered_by_the_next_one() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        let subscribed = rig.subscriber.subscribe(interest("a"), after(5));
        let served = async {
            assert!(remote.command().await.unwrap().starts_with("SUBSCRIBE"));
            drop(remote);
            let (link, mut remote) = pipe();
            rig.links.send(link).await.unwrap();
            assert_eq!(serve(&mut remote).await.len(), 1);
            remote
        };
        let (outcome, _remote) = tokio::join!(subscribed, served);
        outcome.unwrap();
    });
}

#[test]
fn what_a_server_sends_unasked_changes_nothing() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        let (outcome, _) =
            tokio::join!(rig.subscriber.subscribe(interest("a"), after(5)), serve(&mut remote));
        outcome.unwrap();
        remote.send(">3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n").await;
        remote.send(">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n").await;
        remote.send(">2\r\n$10\r\ninvalidate\r\n_\r\n").await;
        remote.send(message("a", "not one of ours")).await;
        remote.send(message("nobody-asked", "p1")).await;
        remote.send(message("a", "p2")).await;
        let (pinged, _) = tokio::join!(rig.subscriber.ping(Duration::from_secs(5)), serve(&mut remote));
        pinged.unwrap();
        assert_eq!(rig.ears.heard(), ["a 2"]);
    });
}

#[test]
fn a_silent_server_is_noticed_in_three_seconds() {
    in_virtual_time(async {
        let (rig, mut remote) = rig().await;
        let start = Instant::now();
        assert!(
            remote.command().await.unwrap().starts_with("PING"),
            "a quiet link is asked whether it lives"
        );
        assert!(remote.command().await.is_none(), "the link is given up");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        let error = rig.subscriber.ping(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("silent"), "{error}");
    });
}

#[test]
fn who_waits_at_the_close_is_told() {
    in_virtual_time(async {
        let (rig, _remote) = rig().await;
        let subscribed = rig.subscriber.subscribe(interest("a"), after(5));
        let close = async {
            tokio::task::yield_now().await;
            assert!(rig.tasks.close(Duration::from_secs(1)).await);
        };
        let (outcome, ()) = tokio::join!(subscribed, close);
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Closed);
        let late = rig.subscriber.subscribe(interest("b"), after(5)).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
    });
}
