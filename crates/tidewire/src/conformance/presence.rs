//! Presence: who is in a channel, over nodes that come, die and come back.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::scene::{Scene, patiently};
use crate::clock::Clock;
use crate::engine::{Engine, Heard, MembersChange, Setup, Sink};
use crate::error::{Error, ErrorKind};
use crate::event::NodeId;
use crate::kit::{Departing, Equipment, Home, Presence, PresenceChange, PresenceNews, PresenceStats, Roster};
use crate::limits::Limits;
use crate::name::{ChannelPath, EntryPath};
use crate::tasks::Tasks;
use crate::tidewire::Tidewire;

struct Deaf;

impl Sink for Deaf {
    fn hear(&self, _: Heard) {}
}

/// Nodes that know no others than each other.
struct Nodes<'a> {
    scene: &'a Scene,
    engine: Engine,
}

/// As much of a node as presence needs.
struct Node {
    tenant: String,
    roster: Arc<Roster>,
    tasks: Tasks,
    was_relinked: Arc<AtomicBool>,
    /// Its links, where several nodes can have their own.
    _engine: Option<Engine>,
}

impl<'a> Nodes<'a> {
    async fn new(scene: &'a Scene) -> Self {
        Self { scene, engine: open(scene).await }
    }

    async fn node(&self) -> Node {
        self.node_with(self.scene.clock()).await
    }

    /// A node that stands still whenever its clock does.
    async fn node_with(&self, clock: Clock) -> Node {
        let (tenant, tasks) = (self.scene.tenant_name(), Tasks::new());
        let engine = if self.engine.is_shared { Some(open(self.scene).await) } else { None };
        let store = engine.as_ref().unwrap_or(&self.engine).store.clone();
        let (node, lease) = (NodeId::random(), self.scene.lease());
        let (patience, was_relinked) = (Limits::default().call_time_max, Arc::<AtomicBool>::default());
        let equipment = Equipment {
            store,
            clock,
            tasks: tasks.clone(),
            node,
            lease,
            patience,
            was_relinked: was_relinked.clone(),
        };
        let roster = Roster::new(Home::of_tenant("dev", &tenant), equipment);
        Node { tenant, roster, tasks, was_relinked, _engine: engine }
    }
}

impl Node {
    fn presence(&self, channel: &str) -> Presence {
        let channel = ChannelPath::new("dev", &self.tenant, channel).expect("a valid name");
        Presence::new(self.roster.clone(), channel)
    }

    /// The node is gone, and says nothing.
    fn die(self) {
        self.tasks.stopping().cancel();
    }

    async fn reap(&self) -> Vec<PresenceChange> {
        self.roster.reap(|_| ready(Ok(()))).await.expect("reaped").changes
    }
}

async fn open(scene: &Scene) -> Engine {
    let (clock, limits, tasks) = (scene.clock(), Limits::default(), Tasks::new());
    scene.open_engine(Setup { sink: Arc::new(Deaf), clock, limits, tasks }).await
}

async fn ids(presence: &Presence) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = presence.list(after, 1_000).await.expect("listed");
        ids.extend(page.members.iter().map(|present| present.id.to_string()));
        after = page.next;
        if after.is_none() {
            ids.sort();
            return ids;
        }
    }
}

async fn stats(presence: &Presence) -> (u64, u64) {
    let PresenceStats { members, users } = presence.stats().await.expect("counted");
    (members, users)
}

/// Changes as words, in order.
fn told(changes: &[PresenceChange]) -> Vec<String> {
    let word = |change: &PresenceChange| match &change.news {
        PresenceNews::Left(present) => format!("{} left {}", present.id, change.channel),
        PresenceNews::Returned(present) => format!("{} returned to {}", present.id, change.channel),
        PresenceNews::Occupied => format!("{} occupied", change.channel),
        PresenceNews::Vacated => format!("{} vacated", change.channel),
    };
    let mut words: Vec<_> = changes.iter().map(word).collect();
    words.sort();
    words
}

pub(super) async fn presence_lists_who_has_joined_until_it_leaves(scene: Scene) {
    let node = scene.open().await;
    let lobby = scene.tenant(&node).presence("lobby").expect("a valid name");
    assert_eq!(stats(&lobby).await, (0, 0));
    assert!(!lobby.leave("tab-1").await.expect("left").was_there);
    let joined = lobby.join("tab-1", "ann", "{}").await.expect("joined");
    assert!(joined.is_new && joined.is_occupied);
    let joined = lobby.join("tab-2", "ann", "{}").await.expect("joined");
    assert!(joined.is_new && !joined.is_occupied);
    let joined = lobby.join("tab-1", "ann", r#"{"mood":"fine"}"#).await.expect("joined");
    assert!(!joined.is_new && !joined.is_occupied);
    lobby.join("tab-3", "", "").await.expect("joined");
    assert_eq!(stats(&lobby).await, (3, 2));
    let page = lobby.list(None, 1).await.expect("listed");
    let first = page.members.first().expect("a member");
    assert_eq!((&*first.id, &*first.user, first.node), ("tab-1", "ann", node.node()));
    assert_eq!(first.info, r#"{"mood":"fine"}"#);
    let page = lobby.list(page.next, 10).await.expect("listed");
    assert_eq!((page.members.len(), page.next), (2, None));
    for (id, is_vacated) in [("tab-3", false), ("tab-1", false), ("tab-2", true)] {
        let departed = lobby.leave(id).await.expect("left");
        assert_eq!((departed.was_there, departed.is_vacated), (true, is_vacated));
    }
    assert_eq!((ids(&lobby).await.len(), stats(&lobby).await), (0, (0, 0)));
    assert!(lobby.join("", "ann", "").await.is_err() && lobby.join(&"x".repeat(256), "", "").await.is_err());
    assert!(lobby.join("tab-1", "ann", "").await.expect("joined").is_occupied);
}

pub(super) async fn presence_is_listed_page_by_page_while_others_come_and_go(scene: Scene) {
    const STAYING: usize = 3_000;
    let nodes = Nodes::new(&scene).await;
    let (one, other) = (nodes.node().await, nodes.node().await);
    let (here, there) = (one.presence("stadium"), other.presence("stadium"));
    let joins = (0..STAYING).map(|n| {
        let presence = if n % 3 == 0 { &there } else { &here };
        async move { presence.join(&format!("stays-{n}"), &format!("user-{}", n % 1_000), "{}").await }
    });
    let joined = join_all(joins).await.into_iter().map(|joined| joined.expect("joined"));
    assert_eq!(joined.filter(|joined| joined.is_occupied && joined.is_new).count(), 1);
    assert_eq!(stats(&here).await, (3_000, 1_000));
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = here.list(after, 200).await.expect("listed");
        assert!(page.members.len() <= 200);
        seen.extend(page.members.into_iter().map(|present| present.id));
        after = page.next;
        pages += 1;
        if after.is_none() {
            break;
        }
        // Before, between and after those who stay.
        let moves = ["a", "stays-1x", "stays-2x", "z"].map(|id| {
            let there = &there;
            async move {
                let id = format!("{id}{}", pages / 2);
                match pages % 2 {
                    0 => there.join(&id, "", "").await.map(|_| ()),
                    _ => there.leave(&id).await.map(|_| ()),
                }
            }
        });
        join_all(moves).await.into_iter().for_each(|outcome| outcome.expect("done"));
    }
    assert!(pages >= 15, "{pages}");
    let staying = |id: &&str| id.starts_with("stays-") && !id.contains('x');
    let staying: Vec<&str> = seen.iter().map(|id| &**id).filter(staying).collect();
    assert_eq!(staying.len(), STAYING);
    assert_eq!(staying.into_iter().collect::<BTreeSet<_>>().len(), STAYING);
}

pub(super) async fn presence_tells_the_first_and_the_last_once(scene: Scene) {
    let nodes = Nodes::new(&scene).await;
    let (one, other) = (nodes.node().await, nodes.node().await);
    let (here, there) = (one.presence("door"), other.presence("door"));
    let either = |n: u32| if n.is_multiple_of(2) { &here } else { &there };
    for round in 0..5 {
        let joins = (0..40).map(|n| {
            let presence = either(n);
            async move { presence.join(&n.to_string(), "", "").await }
        });
        let joined = join_all(joins).await.into_iter().map(|joined| joined.expect("joined"));
        assert_eq!(joined.filter(|joined| joined.is_occupied).count(), 1, "round {round}");
        let leaves = (0..40).map(|n| {
            let presence = either(n);
            async move { presence.leave(&n.to_string()).await }
        });
        let left = join_all(leaves).await.into_iter().map(|left| left.expect("left"));
        assert_eq!(left.filter(|left| left.was_there && left.is_vacated).count(), 1, "round {round}");
    }
    // One member after the other, each for itself alone.
    for n in 0..3 {
        assert!(here.join(&n.to_string(), "", "").await.expect("joined").is_occupied);
        assert!(here.leave(&n.to_string()).await.expect("left").is_vacated);
    }
}

pub(super) async fn presence_of_a_dead_node_ends_with_its_lease_and_is_told_once(scene: Scene) {
    let nodes = Nodes::new(&scene).await;
    let (dead, one, other) = (nodes.node().await, nodes.node().await, nodes.node().await);
    for (node, channel, id) in
        [(&dead, "a", "1"), (&dead, "a", "2"), (&dead, "b", "3"), (&one, "a", "4"), (&other, "c", "5")]
    {
        node.presence(channel).join(id, &format!("user-{id}"), "").await.expect("joined");
    }
    let (here, alone) = (one.presence("a"), other.presence("b"));
    assert_eq!((ids(&here).await, stats(&alone).await), (vec!["1".into(), "2".into(), "4".into()], (1, 1)));
    let died = scene.now();
    dead.die();
    let are_unlisted = || async { ids(&here).await == ["4"] && ids(&alone).await.is_empty() };
    scene.until("the members of a dead node to be over", are_unlisted).await;
    let took = scene.now().since(died);
    assert!(took <= scene.lease() + scene.late(), "{took:?}");
    assert_eq!((stats(&here).await, stats(&alone).await), ((1, 1), (0, 0)), "not removed, and not counted");
    let changes = Mutex::new(Vec::new());
    let all = ["1 left a", "2 left a", "3 left b", "b vacated"];
    let reap_all = || async {
        let (one, other) = tokio::join!(one.reap(), other.reap());
        let mut changes = changes.lock();
        changes.extend(one.into_iter().chain(other));
        changes.len() >= all.len()
    };
    scene.until("the members of a dead node to be told", reap_all).await;
    assert_eq!(told(&changes.lock()), all);
    reap_all().await;
    assert_eq!(told(&changes.lock()), all, "and not again");
    assert_eq!((stats(&here).await, ids(&other.presence("c")).await), ((1, 1), vec!["5".to_owned()]));
    assert!(alone.join("6", "", "").await.expect("joined").is_occupied);
}

pub(super) async fn presence_of_a_dead_node_is_seen_off_before_it_is_removed(scene: Scene) {
    let nodes = Nodes::new(&scene).await;
    let (dead, other) = (nodes.node().await, nodes.node().await);
    for (channel, id) in [("a", "1"), ("a", "2"), ("b", "3")] {
        dead.presence(channel).join(id, "ann", "info").await.expect("joined");
    }
    other.presence("c").join("4", "", "").await.expect("joined");
    dead.die();
    let seen = Mutex::new(Vec::new());
    let note = |departing: Departing| {
        let ids = departing.members.iter().map(|present| format!("{} of {}", present.id, departing.channel));
        seen.lock().extend(ids);
    };
    let (here, there) = (other.presence("a"), other.presence("b"));
    // Whoever sees them off fails: nobody is removed.
    let fail = |departing: Departing| {
        note(departing);
        ready(Err(Error::new(ErrorKind::Unavailable, "not told")))
    };
    let is_seen = || async { other.roster.reap(fail).await.is_err() && !seen.lock().is_empty() };
    scene.until("the members of a dead node to be seen off", is_seen).await;
    assert_eq!(std::mem::take(&mut *seen.lock()), ["1 of a", "2 of a"]);
    assert!(here.is_kept().await.expect("read") && there.is_kept().await.expect("read"));
    assert!(ids(&here).await.is_empty(), "kept, and not listed");
    // It dies before it has removed them: another one is given all of it again.
    other.die();
    let heir = nodes.node().await;
    seen.lock().clear();
    let tell = |departing: Departing| {
        note(departing);
        ready(Ok(()))
    };
    let changes = Mutex::new(Vec::new());
    let are_gone = || async {
        let reaped = heir.roster.reap(tell).await.expect("reaped");
        changes.lock().extend(reaped.changes);
        let (here, there) = (heir.presence("a"), heir.presence("b"));
        let is_dead_one_gone = changes.lock().len() >= 7;
        is_dead_one_gone && !here.is_kept().await.expect("read") && !there.is_kept().await.expect("read")
    };
    scene.until("the heir to remove all", are_gone).await;
    let mut seen = seen.into_inner();
    seen.sort();
    assert_eq!(seen, ["1 of a", "2 of a", "3 of b", "4 of c"]);
    let all = ["1 left a", "2 left a", "3 left b", "4 left c", "a vacated", "b vacated", "c vacated"];
    assert_eq!(told(&changes.lock()), all);
}

pub(super) async fn presence_of_a_node_that_stood_still_comes_back(scene: Scene) {
    let nodes = Nodes::new(&scene).await;
    let still = Clock::virtual_at(scene.now());
    let (sleeper, other) = (nodes.node_with(still.clone()).await, nodes.node().await);
    let (asleep, awake) = (sleeper.presence("a"), other.presence("a"));
    for id in ["1", "2"] {
        asleep.join(id, "ann", id).await.expect("joined");
    }
    awake.join("3", "bob", "").await.expect("joined");
    let is_over = || async { ids(&awake).await == ["3"] };
    scene.until("the lease to be over", is_over).await;
    // Renewed before anybody has looked: nothing has happened.
    let wake = || still.advance(scene.lease() / 3);
    wake();
    scene.until("the lease to be renewed", || async { ids(&awake).await.len() == 3 }).await;
    scene.until("the lease to be over again", is_over).await;
    let changes = Mutex::new(Vec::new());
    let reap = || async {
        let reaped = other.reap().await;
        let mut changes = changes.lock();
        changes.extend(reaped);
        changes.len() >= 2
    };
    scene.until("the sleeper to be reaped", reap).await;
    assert_eq!(told(&changes.lock()), ["1 left a", "2 left a"]);
    // It does not know yet, and one leaves and one joins.
    assert!(!asleep.leave("2").await.expect("left").was_there, "that was told before");
    assert!(asleep.join("4", "ann", "").await.expect("joined").is_new);
    wake();
    scene.until("all to be back", || async { ids(&awake).await == ["1", "3", "4"] }).await;
    scene.until("what was written too late to be gone", || async { stats(&awake).await == (3, 2) }).await;
    // The one who joined meanwhile was told then.
    assert_eq!(told(&sleeper.reap().await), ["1 returned to a"]);
    for (presence, id) in [(&asleep, "4"), (&awake, "3")] {
        assert!(presence.leave(id).await.expect("left").was_there);
    }
    assert!(patiently("the last one", asleep.leave("1")).await.expect("left").is_vacated);
}

pub(super) async fn presence_that_a_takeover_has_lost_is_written_again(scene: Scene) {
    let nodes = Nodes::new(&scene).await;
    let (one, other) = (nodes.node().await, nodes.node().await);
    let (here, there) = (one.presence("a"), other.presence("a"));
    let set = EntryPath::new("dev", &scene.tenant_name(), "present:a").expect("a valid key");
    for id in ["stays", "leaves"] {
        here.join(id, "ann", "").await.expect("joined");
    }
    let page = nodes.engine.store.members_page(&set, None, 10).await.expect("read");
    let [(leaving, _), (staying, _)] = &page.members[..] else { panic!("{page:?}") };
    assert!(here.leave("leaves").await.expect("left").was_there);
    // As a replica has it that had not received the join of one, and the leave of the other.
    let (removes, puts) = (vec![staying.name.clone()], vec![leaving.clone()]);
    let change = MembersChange { removes, puts, ..MembersChange::default() };
    nodes.engine.store.members_change(&set, change).await.expect("changed");
    assert_eq!(ids(&there).await, ["leaves"]);
    one.was_relinked.store(true, Ordering::Release);
    let is_right = || async {
        one.reap().await;
        other.reap().await;
        let kept = nodes.engine.store.members_page(&set, None, 0).await.expect("read").count;
        ids(&there).await == ["stays"] && stats(&there).await == (1, 1) && kept == 1
    };
    scene.until("those who are there, and no others", is_right).await;
    assert!(here.leave("stays").await.expect("left").is_vacated);
}

pub(super) async fn presence_goes_on_while_links_are_cut(scene: Scene) {
    let node = scene.open().await;
    let lobby = scene.tenant(&node).presence("lobby").expect("a valid name");
    for round in 0..5 {
        let joins = join_all((0..500).map(|n| {
            let lobby = &lobby;
            async move { lobby.join(&n.to_string(), "", "").await }
        }));
        let (joined, ()) =
            patiently("joins over cut links", async { tokio::join!(joins, scene.cut_links()) }).await;
        let joined: Vec<_> = joined.into_iter().map(|joined| joined.expect("joined")).collect();
        assert!(joined.iter().all(|joined| joined.is_new), "round {round}");
        assert_eq!(joined.iter().filter(|joined| joined.is_occupied).count(), 1, "round {round}");
        assert_eq!(ids(&lobby).await.len(), 500, "round {round}");
        let leaves = join_all((0..500).map(|n| {
            let lobby = &lobby;
            async move { lobby.leave(&n.to_string()).await }
        }));
        let (left, ()) =
            patiently("leaves over cut links", async { tokio::join!(leaves, scene.cut_links()) }).await;
        let left: Vec<_> = left.into_iter().map(|left| left.expect("left")).collect();
        assert!(left.iter().all(|left| left.was_there), "round {round}");
        assert_eq!(left.iter().filter(|left| left.is_vacated).count(), 1, "round {round}");
        assert!(ids(&lobby).await.is_empty(), "round {round}");
    }
}

pub(super) async fn presence_in_two_tenants_is_apart(scene: Scene) {
    let node = scene.open().await;
    let one = scene.tenant(&node).presence("lobby").expect("a valid name");
    let other = node.tenant(&format!("{}-p", std::process::id())).expect("valid");
    let other = other.presence("lobby").expect("a valid name");
    assert!(one.join("tab-1", "ann", "").await.expect("joined").is_occupied);
    assert!(other.join("tab-1", "bob", "").await.expect("joined").is_occupied);
    assert!(!other.leave("tab-2").await.expect("left").was_there);
    assert_eq!((ids(&one).await.len(), stats(&other).await), (1, (1, 1)));
    assert!(other.leave("tab-1").await.expect("left").is_vacated);
    assert_eq!(ids(&one).await, ["tab-1"]);
    // Sessions and their channels lie where no tenant can look.
    assert!(node.tenant("").is_err());
}

pub(super) async fn presence_is_shared_by_nodes(scene: Scene) {
    let node = async || {
        let limits = Limits { presence_lease: scene.lease(), ..Limits::default() };
        scene.builder().limits(limits).open().await.expect("the engine opens")
    };
    let (one, other): (Tidewire, Tidewire) = (node().await, node().await);
    let [here, there] =
        [&one, &other].map(|node| scene.tenant(node).presence("lobby").expect("a valid name"));
    assert!(here.join("tab-1", "ann", "").await.expect("joined").is_occupied);
    assert!(!there.join("tab-1", "ann", "").await.expect("joined").is_occupied, "a member is a node's own");
    assert_eq!((ids(&here).await.len(), stats(&there).await), (2, (2, 1)));
    one.close(std::time::Duration::from_secs(10)).await.expect("closed");
    assert!(here.join("tab-2", "ann", "").await.is_err());
    scene.until("a closed node's members to be gone", || async { ids(&there).await.len() == 1 }).await;
    let changes = Mutex::new(Vec::new());
    let reap = || async {
        // Nodes of other cases may be dead as well.
        let reaped = other.reap_members(|_| ready(Ok(()))).await.expect("reaped");
        let ours = reaped.changes.into_iter().filter(|change| *change.tenant == *scene.tenant_name());
        changes.lock().extend(ours);
        !changes.lock().is_empty()
    };
    scene.until("a closed node's members to be told", reap).await;
    assert_eq!(told(&changes.lock()), ["tab-1 left lobby"]);
    assert!(there.leave("tab-1").await.expect("left").is_vacated);
}
