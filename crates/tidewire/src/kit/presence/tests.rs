use std::future::ready;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::yield_now;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::engine::embedded::open_memory;
use crate::engine::{Engine, Heard, Setup, Sink};
use crate::tasks::Tasks;
use crate::{Limits, Tidewire};

const LEASE: Duration = Duration::from_millis(1_500);

struct Deaf;

impl Sink for Deaf {
    fn hear(&self, _: Heard) {}
}

fn engine(clock: &Clock) -> Engine {
    let setup =
        Setup { sink: Arc::new(Deaf), clock: clock.clone(), limits: Limits::default(), tasks: Tasks::new() };
    open_memory(&setup)
}

fn roster(engine: &Engine, clock: &Clock) -> Arc<Roster> {
    let equipment = Equipment {
        store: engine.store.clone(),
        clock: clock.clone(),
        tasks: Tasks::new(),
        node: NodeId::random(),
        lease: LEASE,
        patience: LEASE,
        was_relinked: Arc::<AtomicBool>::default(),
    };
    Roster::new(Home::of_environment("dev"), equipment)
}

fn presence(roster: &Arc<Roster>, channel: &str) -> Presence {
    Presence::new(roster.clone(), ChannelPath::new("dev", "t", channel).unwrap())
}

async fn reap(roster: &Arc<Roster>) -> Vec<PresenceChange> {
    roster.reap(|_| ready(Ok(()))).await.unwrap().changes
}

/// Lets time pass in steps in which whoever runs renews its lease.
async fn pass(clock: &Clock, leases: u32) {
    for _ in 0..leases * 6 {
        clock.advance(LEASE / 6);
        for _ in 0..20 {
            yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_time_without_the_engine_ends_nobody() {
    let clock = Clock::virtual_at(Timestamp::from_millis(1_000_000));
    let engine = engine(&clock);
    let (one, other) = (roster(&engine, &clock), roster(&engine, &clock));
    presence(&one, "a").join("1", "", "").await.unwrap();
    presence(&other, "a").join("2", "", "").await.unwrap();
    pass(&clock, 2).await;
    // Nobody can renew, for longer than any lease. Then whoever comes first looks.
    clock.advance(LEASE * 10);
    assert_eq!(reap(&other).await, []);
    for _ in 0..20 {
        pass(&clock, 1).await;
        assert_eq!(reap(&other).await, []);
        assert_eq!(reap(&one).await, []);
    }
    assert_eq!(presence(&one, "a").stats().await.unwrap().members, 2);
    drop(one);
    pass(&clock, 2).await;
    let told = reap(&other).await;
    assert!(matches!(&told[..], [PresenceChange { news: PresenceNews::Left(_), .. }]), "{told:?}");
}

#[tokio::test]
async fn members_of_a_dead_node_are_removed_in_bounded_steps_and_from_every_channel() {
    let clock = Clock::virtual_at(Timestamp::from_millis(1_000_000));
    let engine = engine(&clock);
    let (dead, other) = (roster(&engine, &clock), roster(&engine, &clock));
    let count = limits::REAPED_MEMBERS_MAX + 1_500;
    let joins = (0..count).map(|n| {
        let presence = presence(&dead, &format!("c{}", n % 1_200));
        async move { presence.join(&n.to_string(), "", "").await }
    });
    futures_util::future::join_all(joins)
        .await
        .into_iter()
        .for_each(|joined| assert!(joined.unwrap().is_new));
    reap(&other).await;
    drop(dead);
    pass(&clock, 2).await;
    let mut told = Vec::new();
    for call in 0..3 {
        let changes = reap(&other).await;
        assert!(changes.len() < limits::REAPED_MEMBERS_MAX + 1_100, "call {call}: {}", changes.len());
        told.extend(changes);
    }
    let vacated = told.iter().filter(|change| change.news == PresenceNews::Vacated).count();
    assert_eq!((told.len() - vacated, vacated), (count, 1_200));
    let sessions = other.home.sessions().unwrap();
    assert_eq!(
        engine.store.members_page(&sessions, None, 0).await.unwrap().count,
        1,
        "only the reaper's own"
    );
}

#[tokio::test]
async fn a_channel_without_members_leaves_nothing_behind() {
    let clock = Clock::virtual_at(Timestamp::from_millis(1_000_000));
    let engine = engine(&clock);
    let roster = roster(&engine, &clock);
    for round in 0..3 {
        let lobby = presence(&roster, "lobby");
        assert!(lobby.join("1", "", "").await.unwrap().is_occupied, "round {round}");
        let index = roster.home.index(roster.lease.session()).unwrap();
        assert_eq!(engine.store.members_page(&index, None, 0).await.unwrap().count, 1);
        assert!(lobby.leave("1").await.unwrap().is_vacated);
        pass(&clock, 1).await;
        assert_eq!(engine.store.members_page(&index, None, 0).await.unwrap().count, 0);
        assert!(roster.is_idle());
    }
}

#[tokio::test]
async fn a_closed_node_refuses() {
    let node = Tidewire::open("memory:").await.unwrap();
    let lobby = node.tenant("t").unwrap().presence("lobby").unwrap();
    lobby.join("1", "", "").await.unwrap();
    node.close(Duration::from_secs(5)).await.unwrap();
    assert_eq!(lobby.join("2", "", "").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(lobby.leave("1").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_with_its_name() {
    let node = Tidewire::open("memory:").await.unwrap();
    let lobby = node.tenant("t").unwrap().presence("lobby").unwrap();
    let long = "x".repeat(limits::MEMBER_ID_BYTES_MAX + 1);
    let large = vec![0; limits::MEMBER_INFO_BYTES_MAX + 1];
    for (outcome, setting) in [
        (lobby.join(&long, "", "").await, "MEMBER_ID_BYTES_MAX"),
        (lobby.join("1", &long, "").await, "MEMBER_ID_BYTES_MAX"),
        (lobby.join("1", "", large).await, "MEMBER_INFO_BYTES_MAX"),
        (lobby.join("", "", "").await, "empty"),
    ] {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(setting), "{error}");
    }
}
