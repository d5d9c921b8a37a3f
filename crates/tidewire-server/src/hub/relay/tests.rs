use serde_json::Value;
use tidewire::{Event, Retention, Tidewire};
use tidewire_protocol::{Encoding, FilterNode, PushBody, ReplyBody, delta};

use super::super::outbox::Next;
use super::super::recovery::Step;
use super::*;

/// A kept channel, its relay, and the offsets that a subscriber has been given.
struct Stage {
    channel: Channel,
    relay: Arc<Relay>,
}

impl Stage {
    async fn new() -> Self {
        Self::open(Tidewire::builder("memory:")).await
    }

    async fn open(node: tidewire::Builder) -> Self {
        let tidewire = node.open().await.unwrap();
        let channel = tidewire.tenant("default").unwrap().channel("orders").unwrap();
        let relay = Relay::open(channel.clone(), Mode::Kept, &Tasks::new(), Arc::default()).await.unwrap();
        Self { channel, relay }
    }

    async fn append(&self) -> Position {
        self.channel.append(Event::new("test", "1")).await.unwrap().position.unwrap()
    }

    /// Lets the relay run until it has delivered all up to `position`.
    async fn delivered(&self, position: Position) {
        while self.relay.state.lock().top != position.offset {
            tokio::task::yield_now().await;
        }
    }

    fn join(&self, key: ConnectionKey, outbox: &Arc<Outbox>, offset: u64) -> Standing {
        self.join_since(key, outbox, Some(Since { epoch: None, offset, end: None }))
    }

    /// Joins, and goes live at once where nothing has to be read first.
    fn join_since(&self, key: ConnectionKey, outbox: &Arc<Outbox>, since: Option<Since>) -> Standing {
        let standing = self.relay.join(key, outbox, Terms::default(), since).unwrap();
        if !matches!(standing, Standing::Behind(_) | Standing::Ahead) {
            assert!(self.relay.answer(key, frame("{\"reply\":1}")));
            self.relay.catch_up(key);
        }
        standing
    }
}

fn frame(text: &str) -> Frame {
    Frame::new(text.to_owned().into())
}

/// Takes what waits in an outbox: the offsets of its publications, or what else a frame is.
async fn take(outbox: &Outbox) -> Vec<String> {
    if outbox.is_empty() {
        return Vec::new();
    }
    let Next::Write(frames) = outbox.next().await else { return vec!["closed".into()] };
    outbox.written(frames.iter().map(Frame::len).sum());
    let shown = frames.iter().map(|frame| {
        let line: Value = serde_json::from_slice(frame.as_bytes()).unwrap();
        match (&line["push"]["pub"]["offset"], &line["push"]["unsubscribe"]["code"]) {
            (Value::Number(offset), _) => offset.to_string(),
            (_, Value::Number(code)) => format!("unsubscribed {code}"),
            _ => "reply".into(),
        }
    });
    shown.collect()
}

#[tokio::test]
async fn a_subscriber_that_is_behind_gets_what_comes_after_what_it_missed() {
    let stage = Stage::new().await;
    let top = stage.append().await;
    stage.delivered(top).await;
    let outbox = Arc::new(Outbox::new(10_000));
    assert_eq!(stage.join(1, &outbox, 0), Standing::Behind(top));
    stage.append().await;
    stage.delivered(stage.append().await).await;
    assert!(take(&outbox).await.is_empty(), "what comes is held until the reply is out");
    assert!(stage.relay.answer(1, frame("{\"reply\":1}")));
    stage.relay.catch_up(1);
    stage.delivered(stage.append().await).await;
    assert_eq!(take(&outbox).await, ["reply", "2", "3", "4"]);
}

#[tokio::test]
async fn a_subscriber_that_falls_back_further_than_can_be_held_is_told_to_come_again() {
    let stage = Stage::new().await;
    stage.delivered(stage.append().await).await;
    let outbox = Arc::new(Outbox::new(100));
    let (answered, unanswered) = (1, 2);
    stage.join(answered, &outbox, 0);
    assert!(stage.relay.answer(answered, frame("{\"reply\":1}")));
    let other = Arc::new(Outbox::new(100));
    stage.join(unanswered, &other, 0);
    for _ in 0..5 {
        stage.delivered(stage.append().await).await;
    }
    assert_eq!(take(&outbox).await, ["reply", "unsubscribed 2500"]);
    assert!(!stage.relay.answer(unanswered, frame("{}")), "its subscribe command fails instead");
    assert!(!stage.relay.has(answered) && !stage.relay.has(unanswered));
    stage.relay.catch_up(answered);
    assert!(take(&outbox).await.is_empty());
    assert_eq!(stage.relay.metrics.losses.of(Loss::Expelled), 2);
}

#[tokio::test]
async fn a_gap_ends_all_subscriptions_so_that_their_clients_recover() {
    let mut limits = tidewire::Limits::default();
    limits.subscription_events_max = 2;
    let stage = Stage::open(Tidewire::builder("memory:").limits(limits)).await;
    let outbox = Arc::new(Outbox::new(10_000));
    assert_eq!(stage.join(1, &outbox, 0), Standing::Current(stage.relay.position(0).unwrap()));
    // More than waits for the relay, and the stream keeps only the newest: what is between is gone.
    for _ in 0..10 {
        let newest = Retention { events_max: Some(1), ..Retention::default() };
        stage.channel.append(Event::new("test", "1")).retention(newest).await.unwrap();
    }
    while !stage.relay.has_ended() {
        tokio::task::yield_now().await;
    }
    assert_eq!(take(&outbox).await.last().map(String::as_str), Some("unsubscribed 2500"));
    assert!(!stage.relay.has(1));
    let again = stage.relay.join(1, &outbox, Terms::default(), None);
    assert!(matches!(again, Err(Ended)), "who comes again finds another relay");
    let count = |loss| stage.relay.metrics.losses.of(loss);
    assert_eq!((count(Loss::Trimmed), count(Loss::Expelled)), (1, 1));
}

#[tokio::test]
async fn a_subscriber_that_saw_more_on_another_node_gets_only_what_follows() {
    let stage = Stage::new().await;
    let (first, second) = (stage.append().await, stage.append().await);
    let outbox = Arc::new(Outbox::new(10_000));
    let since = |end| Some(Since { epoch: Some(first.epoch), offset: second.offset, end });
    let join = |end| stage.join_since(1, &outbox, since(end));
    assert_eq!(stage.relay.state.lock().top, 0, "nothing has arrived at the relay yet");
    assert_eq!(join(None), Standing::Ahead);
    assert!(!stage.relay.has(1));
    assert!(matches!(join(Some(first)), Standing::Lost(_)), "beyond the end of the stream");
    assert_eq!(take(&outbox).await, ["reply"]);
    assert_eq!(join(Some(second)), Standing::Current(second));
    stage.delivered(stage.append().await).await;
    assert_eq!(take(&outbox).await, ["reply", "3"]);
}

/// What a subscriber with deltas has after each of its publications.
async fn undone(outbox: &Outbox, encoding: Encoding) -> Vec<(bool, String)> {
    let Next::Write(frames) = outbox.next().await else { panic!("nothing ends") };
    let (mut base, mut seen) = (String::new(), Vec::new());
    for frame in &frames {
        for reply in encoding.decode_replies(frame.as_bytes()).unwrap() {
            let ReplyBody::Push(Push { body: PushBody::Publication(publication), .. }) = reply.body else {
                continue;
            };
            let data = match encoding {
                Encoding::Json => {
                    serde_json::from_slice::<String>(publication.data.as_bytes()).unwrap().into()
                }
                Encoding::Protobuf => publication.data.as_bytes().to_vec(),
            };
            let data = match publication.delta {
                true => delta::apply(base.as_bytes(), &data, 10_000).unwrap(),
                false => data,
            };
            base = String::from_utf8(data).unwrap();
            seen.push((publication.delta, base.clone()));
        }
    }
    seen
}

#[tokio::test]
async fn who_takes_deltas_gets_the_first_event_whole_and_then_what_has_changed() {
    let stage = Stage::new().await;
    let text =
        |n: usize| format!("{{\"title\":\"été in {n} words, and more that stays as it is\",\"n\":{n}}}");
    let append = async |n| {
        let appended = stage.channel.append(Event::new("test", text(n))).await.unwrap();
        stage.delivered(appended.position.unwrap()).await;
    };
    append(0).await;
    let sides = [(1, Encoding::Json), (2, Encoding::Protobuf)];
    let sides = sides.map(|(key, encoding)| (key, encoding, Arc::new(Outbox::new(100_000))));
    for (key, encoding, outbox) in &sides {
        let form = Form { encoding: *encoding, is_delta: true, ..Form::default() };
        stage.relay.join(*key, outbox, Terms { form, ..Terms::default() }, None).unwrap();
        stage.relay.catch_up(*key);
    }
    append(1).await;
    append(2).await;
    stage.delivered(stage.append().await).await;
    for (_, encoding, outbox) in &sides {
        let expected = [(false, text(1)), (true, text(2)), (false, "1".into())];
        assert_eq!(undone(outbox, *encoding).await, expected, "{encoding:?}");
    }
}

#[tokio::test]
async fn a_filter_lets_through_what_it_admits() {
    let stage = Stage::new().await;
    let node =
        FilterNode { key: "kind".into(), cmp: "eq".into(), val: "goal".into(), ..FilterNode::default() };
    let filter = Some(Arc::new(Filter::new(&node).unwrap()));
    let outbox = Arc::new(Outbox::new(10_000));
    stage.relay.join(1, &outbox, Terms { filter, ..Terms::default() }, None).unwrap();
    stage.relay.catch_up(1);
    for tags in [r#"{"kind":"goal"}"#, r#"{"kind":"foul"}"#, "no tags", r#"{"kind":"goal","more":"1"}"#] {
        let event = Event::new("test", "1").with_extension("tags", tags);
        stage.delivered(stage.channel.append(event).await.unwrap().position.unwrap()).await;
    }
    assert_eq!(take(&outbox).await, ["1", "4"]);
}

/// Subscribers join at random positions while events are appended, and every step of theirs may come before or after
/// any delivery of the relay: each gets every event after its position once and in order.
#[tokio::test]
async fn every_interleaving_of_recovery_and_deliveries_is_without_a_hole() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let stage = Stage::new().await;
        let mut top = Position::default();
        for _ in 0..random.u64(1..10) {
            top = stage.append().await;
        }
        let mut followers: Vec<Follower> =
            (0..4).map(|key| Follower::new(key, random.u64(0..=top.offset))).collect();
        for _ in 0..60 {
            match random.usize(0..6) {
                0 => top = stage.append().await,
                1 => tokio::task::yield_now().await,
                which => {
                    if let Some(follower) = followers.get_mut(which - 2) {
                        follower.step(&stage).await;
                    }
                }
            }
        }
        stage.delivered(top).await;
        for follower in &mut followers {
            while follower.doing != Doing::Live {
                follower.step(&stage).await;
            }
            follower.seen.extend(take(&follower.outbox).await);
            let expected = (follower.from + 1..=top.offset).map(|offset| offset.to_string());
            assert_eq!(follower.seen, expected.collect::<Vec<_>>(), "seed {seed}, from {}", follower.from);
        }
    }
}

/// A subscriber that recovers, one step at a time.
struct Follower {
    key: ConnectionKey,
    from: u64,
    outbox: Arc<Outbox>,
    doing: Doing,
    seen: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Joining,
    Reading { after: Position, top: Position },
    CatchingUp,
    Live,
}

impl Follower {
    fn new(key: ConnectionKey, from: u64) -> Self {
        Self { key, from, outbox: Arc::new(Outbox::new(100_000)), doing: Doing::Joining, seen: Vec::new() }
    }

    async fn step(&mut self, stage: &Stage) {
        self.doing = match self.doing {
            Doing::Joining => match stage.join(self.key, &self.outbox, self.from) {
                Standing::Ahead => {
                    tokio::task::yield_now().await;
                    Doing::Joining
                }
                Standing::Behind(top) => Doing::Reading { after: Position { offset: self.from, ..top }, top },
                Standing::Current(_) => {
                    assert_eq!(take(&self.outbox).await, ["reply"]);
                    Doing::Live
                }
                standing => panic!("{standing:?}"),
            },
            Doing::Reading { after, top } => {
                let Step::Events(missed) = stage.relay.recovery().step(after, top.offset).await.unwrap()
                else {
                    panic!("nothing is lost")
                };
                self.seen.extend(missed.iter().map(|event| event.position.unwrap().offset.to_string()));
                match missed.end().unwrap() {
                    end if end == top => Doing::CatchingUp,
                    after => Doing::Reading { after, top },
                }
            }
            Doing::CatchingUp => {
                stage.relay.catch_up(self.key);
                Doing::Live
            }
            Doing::Live => {
                self.seen.extend(take(&self.outbox).await);
                Doing::Live
            }
        };
    }
}
