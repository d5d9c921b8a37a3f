//! Groups whose primary is replaced, by a replica that lacks their last turns, or by another primary.

use tidewire_fleet::{Cluster, server_program};

use super::*;

const CHANNELS: usize = 8;
const EVENTS: u64 = 1_000;
const LEASE: Duration = Duration::from_secs(1);

fn is_over(offsets: &[u64]) -> bool {
    let handled: std::collections::BTreeSet<_> = offsets.iter().collect();
    handled.len() as u64 == EVENTS
}

/// A record of a session, and what of it is handled and not committed yet.
#[derive(Default)]
struct Holding {
    records: Vec<Box<str>>,
    handled: Vec<u64>,
}

/// Handles what it claims and what others let go of, and begins again when it is told that it is over.
async fn consume(engine: Arc<Engine>, group: GroupPath, name: String, settled: Arc<Mutex<Vec<u64>>>) {
    for life in 0.. {
        let session = format!("{name}.{life}");
        let mut holding = Holding::default();
        for number in 1.. {
            if is_over(&settled.lock()) {
                return;
            }
            let commits = holding.records.drain(..).map(|record| {
                let state = (*record == *session).then(Bytes::new);
                Commit { record, state, floor: u64::MAX, is_released: false }
            });
            let turn = Turn {
                lease: LEASE,
                commits: commits.collect(),
                claim: 5,
                adopt: 3,
                ..super::turn(&session, number)
            };
            let taken = loop {
                match engine.log.group_turn(&group, turn.clone()).await {
                    Err(error) if error.is_retryable() => {}
                    outcome => break outcome,
                }
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LockLost, "{error}");
                    break;
                }
            };
            settled.lock().append(&mut holding.handled);
            let claimed = taken.claimed.map(|claim| (Box::from(&*session), vec![claim]));
            let adopted = taken.adopted.into_iter().map(|adopted| (adopted.name, adopted.claims));
            for (record, claims) in claimed.into_iter().chain(adopted) {
                holding.records.push(record);
                holding.handled.extend(claims.into_iter().flat_map(|(first, last)| first..=last));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "consumers go on while the test does the takeover")]
async fn what_was_claimed_when_a_replica_took_over_is_settled_by_somebody() {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    let cluster = Cluster::start(&program).expect("a cluster");
    let (engine, _) = open(&cluster.url()).await;
    let engine = Arc::new(engine);
    let (mut work, mut groups) = (Vec::new(), Vec::new());
    for number in 0..CHANNELS {
        let channel = path("failover", &format!("c{number}"));
        let batch = (0..EVENTS)
            .map(|_| Append { durability: Durability::Replicated(1), ..append(&channel, "event") })
            .collect();
        let outcomes = engine.log.append(batch).await.expect("answered");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let group = opened(&engine, &channel, Start::Earliest, 0).await;
        let settled = Arc::new(Mutex::new(Vec::new()));
        groups.push(settled.clone());
        for name in ["a", "b"] {
            work.push(tokio::spawn(consume(engine.clone(), group.clone(), name.to_owned(), settled.clone())));
        }
    }
    let is_under_way = || groups.iter().all(|settled| settled.lock().len() > 100);
    while !is_under_way() {
        tokio::task::yield_now().await;
    }
    // Without asking the primary, which takes turns for a while that the replica never hears of.
    for primary in cluster.primaries() {
        let replica = cluster.replica_of(primary).expect("each has one");
        replica.admin.tell(&["CLUSTER", "FAILOVER", "TAKEOVER"]).expect("taken over");
    }
    let all = futures_util::future::join_all(work);
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await.expect("all is settled in time");
    ended.into_iter().for_each(|outcome| outcome.expect("no consumer panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "consumers go on while the test moves the slot")]
async fn a_group_is_consumed_while_its_slot_is_moved() {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    let cluster = Cluster::start(&program).expect("a cluster");
    let (engine, _) = open(&cluster.url()).await;
    let engine = Arc::new(engine);
    let channel = path("moved", "c");
    append_many(&engine, &channel, 1_000).await;
    let group = opened(&engine, &channel, Start::Earliest, 0).await;
    let settled = Arc::new(Mutex::new(Vec::new()));
    let work = ["a", "b"]
        .map(|name| tokio::spawn(consume(engine.clone(), group.clone(), name.to_owned(), settled.clone())));
    let slot = keys::Tag::of_channel(&channel).slot().into();
    let from = cluster.owner(slot).expect("an owner");
    let from = cluster.servers.get(from).expect("a server");
    let primaries = cluster.primaries();
    let to = primaries.iter().find(|primary| primary.port() != from.port()).expect("another one");
    cluster.migrate(slot, from, to, || {}).expect("moved");
    let all = futures_util::future::join_all(work);
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await.expect("all is settled in time");
    ended.into_iter().for_each(|outcome| outcome.expect("no consumer panicked"));
    let stats = engine.log.group_stats(&group).await.expect("stats");
    assert_eq!((stats.next, stats.floor), (EVENTS + 1, EVENTS + 1));
}
