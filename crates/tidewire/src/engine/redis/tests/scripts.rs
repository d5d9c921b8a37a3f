//! What the scripts do where history was lost, forged or sent twice.

use super::*;
use crate::engine::redis::keys::{self, Tag};
use crate::engine::{Appended, Effect, Fork, Interest, Kept, Range, Seen, Term, Version};
use crate::error::{ErrorKind, Result};
use crate::name::PatternPath;
use crate::position::Position;

async fn append_one(engine: &Engine, append: Append) -> Result<Appended> {
    engine.log.append(vec![append]).await?.pop().expect("an outcome")
}

async fn position(engine: &Engine, append: Append) -> Position {
    append_one(engine, append).await.expect("confirmed").position.expect("a position")
}

fn version(epoch: &str, number: u64) -> Option<Version> {
    Some(Version { epoch: epoch.into(), number })
}

#[tokio::test]
async fn a_stream_that_vanished_starts_under_a_new_epoch() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    for (channel, lost) in [("stream", keys::stream as fn(&ChannelPath) -> String), ("meta", keys::meta)] {
        let channel = path("vanished", channel);
        let first = position(&engine, append(&channel, "1")).await;
        position(&engine, append(&channel, "2")).await;
        ask(&spy, &[b"DEL".as_slice(), lost(&channel).as_bytes()]).await;
        let page = engine.log.read(&channel, Range::from(1, 10)).await.expect("a page");
        assert_ne!(page.epoch, first.epoch, "a reader is told");
        assert_eq!(
            (page.last, page.events.len()),
            (0, 0),
            "nothing of the old history is shown under the new epoch"
        );
        let next = position(&engine, append(&channel, "3")).await;
        assert_eq!((next.epoch, next.offset), (page.epoch, 1));
    }
}

#[tokio::test]
async fn a_stream_that_fell_behind_what_was_confirmed_goes_on_under_a_new_epoch() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("rewound", "c");
    let first = position(&engine, append(&channel, "1")).await;
    let (stream, meta) = (keys::stream(&channel), keys::meta(&channel));
    let backup = |key: String, spy: Connection| async move {
        ask(&spy, &[b"DUMP".as_slice(), key.as_bytes()]).await.into_bytes().expect("a dump")
    };
    let (old_stream, old_meta) =
        (backup(stream.clone(), spy.clone()).await, backup(meta.clone(), spy.clone()).await);
    position(&engine, append(&channel, "2")).await;
    // As after a failover to a replica that had not received the last append.
    for (key, dump) in [(stream, old_stream), (meta, old_meta)] {
        let restore: [&[u8]; 5] = [b"RESTORE", key.as_bytes(), b"0", &dump, b"REPLACE"];
        ask(&spy, &restore).await;
    }
    let next = position(&engine, append(&channel, "3")).await;
    assert_ne!(next.epoch, first.epoch, "offset 2 was confirmed for another event");
    assert_eq!(next.offset, 2);
    let page = engine.log.read(&channel, Range::from(1, 10)).await.expect("a page");
    let left: Vec<_> = page.events.iter().map(|stored| (stored.offset, &stored.envelope[..])).collect();
    assert_eq!(left, [(1, &b"1"[..]), (2, b"3")], "what is left of the old epoch stays");
    assert_eq!(page.forks, [Fork { epoch: first.epoch, last: 1 }]);
}

#[tokio::test]
async fn what_a_reader_has_shows_that_a_stream_fell_behind() {
    let ((engine, ears), spy) = (open(&server_url()).await, spy().await);
    let channel = path("behind", "c");
    let first = position(&engine, append(&channel, "1")).await;
    let page = engine.log.read(&channel, Range::BOUNDS).await.expect("a page");
    engine.pubsub.subscribe(vec![Interest::Channel(channel.clone())]).await.expect("subscribed");
    let with = |offset, term| Range {
        seen: Some(Seen { position: Position { offset, ..first }, term }),
        ..Range::from(1, 10)
    };
    for (seen, is_same) in [(with(1, page.term), true), (with(0, Term(1)), true), (with(2, page.term), false)]
    {
        let page = engine.log.read(&channel, seen).await.expect("a page");
        assert_eq!(page.epoch == first.epoch, is_same, "{seen:?}");
        assert_eq!(page.events.len(), 1);
    }
    engine.pubsub.probe().await.expect("probed");
    let heard = std::mem::take(&mut *ears.0.lock());
    assert!(matches!(&heard[..], [Heard::Moved(_)]), "listeners are told of the new epoch: {heard:?}");
    // A term that the stream knows nothing of: nothing can be vouched for.
    let page = engine.log.read(&channel, Range::BOUNDS).await.expect("a page");
    let unknown = Seen { position: Position { epoch: page.epoch, offset: 1 }, term: Term(7) };
    let page =
        engine.log.read(&channel, Range { seen: Some(unknown), ..Range::BOUNDS }).await.expect("a page");
    let lasts: Vec<_> = page.forks.iter().map(|fork| fork.last).collect();
    assert_eq!(lasts, [0, 0]);
    ask(&spy, &[b"DEL".as_slice(), keys::meta(&channel).as_bytes()]).await;
    let page = engine.log.read(&channel, Range::from(1, 10)).await.expect("a page");
    assert_eq!((page.last, page.forks.len()), (0, 0), "a stream that is gone goes on from nothing");
}

#[tokio::test]
async fn a_dedup_id_of_a_lost_event_is_free_again() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("lost-mark", "c");
    let once = || Append { dedup: dedup("order-7"), ..append(&channel, "1") };
    let first = position(&engine, once()).await;
    assert_eq!(append_one(&engine, once()).await.expect("confirmed").effect, Effect::Duplicate);
    ask(&spy, &[b"DEL".as_slice(), keys::stream(&channel).as_bytes()]).await;
    let again = append_one(&engine, once()).await.expect("confirmed");
    assert_eq!(again.effect, Effect::New, "the event is not there any more");
    assert_ne!(again.position.expect("a position").epoch, first.epoch);
}

#[tokio::test]
async fn the_version_of_a_lost_event_may_be_told_again() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("lost-version", "c");
    let versioned = || Append { version: version("", 7), ..append(&channel, "1") };
    let first = position(&engine, versioned()).await;
    assert_eq!(append_one(&engine, versioned()).await.expect("confirmed").effect, Effect::Stale);
    ask(&spy, &[b"DEL".as_slice(), keys::stream(&channel).as_bytes()]).await;
    let again = append_one(&engine, versioned()).await.expect("confirmed");
    assert_eq!(again.effect, Effect::New, "the event is not there any more");
    assert_ne!(again.position.expect("a position").epoch, first.epoch);
    assert_eq!(append_one(&engine, versioned()).await.expect("confirmed").effect, Effect::Stale);
}

#[tokio::test]
async fn an_epoch_of_versions_is_any_text() {
    let (engine, _) = open(&server_url()).await;
    let channel = path("version-epoch", "c");
    for epoch in ["", "two\nlines", "9 \0\u{fc}", "h 0 0 x\n00000000000000000009"] {
        let versioned =
            || Append { version: version(epoch, 7), announce: Announce::Quiet, ..append(&channel, "1") };
        assert_eq!(
            append_one(&engine, versioned()).await.expect("confirmed").effect,
            Effect::New,
            "{epoch:?}"
        );
        assert_eq!(
            append_one(&engine, versioned()).await.expect("confirmed").effect,
            Effect::Stale,
            "{epoch:?}"
        );
    }
}

#[tokio::test]
async fn a_dedup_id_outlives_the_epoch_of_its_event_where_the_event_does() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("kept-mark", "c");
    position(&engine, append(&channel, "1")).await;
    let once = || Append { dedup: dedup("order-7"), ..append(&channel, "2") };
    let first = position(&engine, once()).await;
    // As if another server had taken over after the first event, and the second one was appended there.
    let page = engine.log.read(&channel, Range::BOUNDS).await.expect("bounds");
    let terms = format!("{:016x}:1 00000000000000aa:0", page.term.0);
    ask(&spy, &[b"HSET".as_slice(), keys::meta(&channel).as_bytes(), b"s", terms.as_bytes()]).await;
    // Somebody had more from the one before.
    let seen = Seen { position: Position { offset: 9, ..first }, term: Term(0xaa) };
    let range = Range { seen: Some(seen), ..Range::BOUNDS };
    let page = engine.log.read(&channel, range).await.expect("bounds");
    assert_eq!((page.epoch == first.epoch, page.last), (false, 2));
    let again = append_one(&engine, once()).await.expect("confirmed");
    assert_eq!(again.effect, Effect::Duplicate, "the event is there");
    assert_eq!(again.position, Some(Position { epoch: page.epoch, offset: 2 }));
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("flushed", "c");
    for offset in 1..=3 {
        ask(&spy, &[b"SCRIPT".as_slice(), b"FLUSH"]).await;
        assert_eq!(position(&engine, append(&channel, "x")).await.offset, offset);
        ask(&spy, &[b"SCRIPT".as_slice(), b"FLUSH"]).await;
        assert_eq!(engine.log.stats(&channel).await.expect("stats").last, offset);
    }
}

#[tokio::test]
async fn a_key_of_another_type_spoils_its_own_stream_only() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let good = path("spoiled", "good");
    // Of the same slot, so that both are in one batch.
    let bad = (0..)
        .map(|n| path("spoiled", &format!("bad-{n}")))
        .find(|bad| Tag::of_channel(bad) == Tag::of_channel(&good))
        .expect("one in 128");
    ask(&spy, &[b"SET".as_slice(), keys::meta(&bad).as_bytes(), b"not a hash"]).await;
    let batch = vec![append(&good, "1"), append(&bad, "1"), append(&good, "2"), append(&bad, "2")];
    let outcomes = engine.log.append(batch).await.expect("answered");
    let offsets: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.map(|appended| appended.position.expect("a position").offset))
        .map(|outcome| outcome.map_err(|error| error.kind()))
        .collect();
    assert_eq!(offsets, [Ok(1), Err(ErrorKind::Engine), Ok(2), Err(ErrorKind::Engine)]);
}

#[tokio::test]
async fn a_stream_changed_behind_the_engines_back_heals_under_a_new_epoch() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("forged", "c");
    let first = position(&engine, append(&channel, "1")).await;
    let forged: [&[u8]; 5] = [b"XADD", &keys::stream(&channel).into_bytes(), b"9-9", b"e", b"forged"];
    ask(&spy, &forged).await;
    assert_eq!(
        append_one(&engine, append(&channel, "2")).await.expect_err("refused").kind(),
        ErrorKind::Engine
    );
    let next = position(&engine, append(&channel, "3")).await;
    assert_ne!(next.epoch, first.epoch);
    assert_eq!(next.offset, 1);
}

#[tokio::test]
async fn a_batch_is_announced_with_the_offsets_that_its_events_got() {
    let (engine, ears) = open(&server_url()).await;
    let (channel, other) = (path("announced", "c"), path("announced", "other"));
    let interests = [&channel, &other].map(|channel| Interest::Channel(channel.clone()));
    engine.pubsub.subscribe(interests.to_vec()).await.expect("subscribed");
    let with = |text: &'static str, announce, id: Option<&str>| Append {
        announce,
        dedup: id.and_then(dedup),
        ..append(&channel, text)
    };
    let also = || Announce::AlsoOn(other.clone());
    let batch = vec![
        with("1", Announce::Here, None),
        with("2", Announce::Here, Some("a")),
        with("again", Announce::Here, Some("a")),
        with("3", Announce::Quiet, None),
        with("4", also(), None),
        with("5", also(), Some("b")),
        with("6", Announce::Here, None),
    ];
    let outcomes = engine.log.append(batch).await.expect("answered");
    let offsets: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("confirmed").position.expect("kept").offset)
        .collect();
    assert_eq!(offsets, [1, 2, 2, 3, 4, 5, 6]);
    // Confirmations on the listening link come after what was published before.
    engine.pubsub.probe().await.expect("probed");
    let heard = std::mem::take(&mut *ears.0.lock());
    let heard = heard.into_iter().map(|heard| match heard {
        Heard::Event { channel, kept: Some(Kept { position, stream, .. }), envelope, .. } => {
            let is_elsewhere = stream.is_some();
            (channel.channel().to_owned(), position.offset, is_elsewhere, envelope)
        }
        heard => panic!("{heard:?}"),
    });
    let here =
        |offset, text: &'static str| ("c".to_owned(), offset, false, Bytes::from_static(text.as_bytes()));
    let there =
        |offset, text: &'static str| ("other".to_owned(), offset, true, Bytes::from_static(text.as_bytes()));
    let expected =
        [here(1, "1"), here(2, "2"), here(4, "4"), here(5, "5"), there(4, "4"), there(5, "5"), here(6, "6")];
    assert_eq!(heard.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn plain_events_of_a_large_batch_are_announced_in_order_to_whoever_listens() {
    let channel = path("plain", "c");
    let pattern = PatternPath::new("dev", channel.tenant(), "c*").expect("a valid pattern");
    let writer = open(&server_url()).await.0;
    for (round, interest) in
        (0..).zip([None, Some(Interest::Channel(channel.clone())), Some(Interest::Pattern(pattern))])
    {
        let (engine, ears) = open(&server_url()).await;
        engine.pubsub.subscribe(interest.iter().cloned().collect()).await.expect("subscribed");
        // More than one announcement carries.
        let batch = (0..200).map(|_| append(&channel, vec![0; 1_000])).collect();
        let outcomes = writer.log.append(batch).await.expect("answered");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        engine.pubsub.probe().await.expect("probed");
        let heard = std::mem::take(&mut *ears.0.lock());
        let offsets = heard.into_iter().map(|heard| match heard {
            Heard::Event { kept: Some(Kept { position, .. }), .. } => position.offset,
            heard => panic!("{heard:?}"),
        });
        let expected: Vec<u64> = match interest {
            Some(_) => (round * 200 + 1..=round * 200 + 200).collect(),
            None => Vec::new(),
        };
        assert_eq!(offsets.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn retention_by_bytes_is_kept_to_roughly() {
    let (engine, _) = open(&server_url()).await;
    let channel = path("bytes", "c");
    let retention = Retention { bytes_max: Some(200_000), ..Retention::default() };
    for _ in 0..20 {
        let batch = (0..100).map(|_| Append { retention, ..append(&channel, vec![0; 1_000]) }).collect();
        engine.log.append(batch).await.expect("answered");
    }
    let stats = engine.log.stats(&channel).await.expect("stats");
    assert_eq!((stats.last, stats.length + stats.removed), (2_000, 2_000));
    assert!((100..=400).contains(&stats.length), "{stats:?}");
}
