//! Sets of members at the seam: one step per change, in order of their names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::scene::Scene;
use crate::engine::{
    Engine, Heard, Member, MembersChange, MembersChanged, MembersCondition, MembersPage, Setup, Sink,
};
use crate::limits::{self, Limits};
use crate::name::EntryPath;
use crate::tasks::Tasks;

struct Deaf;

impl Sink for Deaf {
    fn hear(&self, _: Heard) {}
}

/// An engine, and one set on it.
struct Members {
    engine: Engine,
    set: EntryPath,
}

impl Members {
    async fn open(scene: &Scene) -> Self {
        let (clock, limits, tasks) = (scene.clock(), Limits::default(), Tasks::new());
        let engine = scene.open_engine(Setup { sink: Arc::new(Deaf), clock, limits, tasks }).await;
        let set = EntryPath::new("dev", &scene.tenant_name(), "set").expect("a valid key");
        Self { engine, set }
    }

    async fn change(&self, change: MembersChange) -> MembersChanged {
        self.engine.store.members_change(&self.set, change).await.expect("changed")
    }

    async fn page(&self, after: Option<Bytes>, limit: usize) -> MembersPage {
        self.engine.store.members_page(&self.set, after, limit).await.expect("a page")
    }
}

fn member(name: impl Into<Bytes>, owner: &'static str, value: impl Into<Bytes>) -> Member {
    Member { name: name.into(), owner: owner.into(), value: value.into() }
}

fn put(puts: impl Into<Vec<Member>>) -> MembersChange {
    MembersChange { puts: puts.into(), ..MembersChange::default() }
}

fn remove(names: &[&'static str]) -> MembersChange {
    let removes = names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect();
    MembersChange { removes, ..MembersChange::default() }
}

pub(super) async fn a_change_of_members_says_what_was_there(scene: Scene) {
    let members = Members::open(&scene).await;
    let changed = members.change(put([member("b", "ann", "1"), member("a", "ann", "2")])).await;
    let expected = MembersChanged { is_done: true, after: 2, are_new: vec![true; 2], ..Default::default() };
    assert_eq!(changed, expected);
    // Bytes of any kind, and an owner that changes.
    let odd = member(&b"\0\xff \r\n"[..], "", &b"7 \0\xff"[..]);
    let mixed = MembersChange {
        removes: vec!["a".into(), "nobody".into()],
        ..put([odd.clone(), member("b", "bob", "3"), member("c", "bob", "")])
    };
    let changed = members.change(mixed).await;
    assert_eq!((changed.before, changed.after), (2, 3));
    assert_eq!((changed.were_there, changed.are_new), (vec![true, false], vec![true, false, true]));
    let listed = vec![(odd, false), (member("b", "bob", "3"), false), (member("c", "bob", ""), false)];
    let page = members.page(None, 10).await;
    assert_eq!(page, MembersPage { members: listed, count: 3, owners: 2, next: None });
    // A condition about somebody who is not there.
    let absent = MembersChange { condition: MembersCondition::There("a".into()), ..remove(&["b"]) };
    let changed = members.change(absent).await;
    assert_eq!(changed, MembersChanged { before: 3, after: 3, ..Default::default() });
    let there = MembersChange { condition: MembersCondition::There("b".into()), ..remove(&["b", "c"]) };
    assert_eq!(members.change(there).await.after, 1);
    let changed = members.change(remove(&["\0\u{ff}"])).await;
    assert_eq!((changed.after, changed.were_there), (1, vec![false]));
    let last = MembersChange { removes: vec![Bytes::from_static(b"\0\xff \r\n")], ..Default::default() };
    assert_eq!(members.change(last).await.after, 0);
    assert_eq!(members.page(None, 10).await, MembersPage::default());
}

pub(super) async fn a_member_past_its_time_is_listed_as_such(scene: Scene) {
    let members = Members::open(&scene).await;
    let lease = scene.ticks(4);
    let short = || MembersChange { ttl: Some(lease), ..put([member("short", "", "")]) };
    members.change(put([member("long", "", "")])).await;
    members.change(short()).await;
    let over = |name: &'static str| MembersCondition::Expired(name.into());
    let changed = members.change(MembersChange { condition: over("short"), ..remove(&["short"]) }).await;
    assert!(!changed.is_done, "its time is not over");
    scene.pass(lease).await;
    let page = members.page(None, 10).await;
    let listed: Vec<_> = page.members.iter().map(|(member, is_over)| (&member.name[..], *is_over)).collect();
    assert_eq!(listed, [(&b"long"[..], false), (b"short", true)]);
    assert!(!members.change(MembersChange { condition: over("long"), ..remove(&["long"]) }).await.is_done);
    // Whoever is there can renew until somebody else has removed it.
    let renewed = MembersChange { condition: MembersCondition::There("short".into()), ..short() };
    assert!(members.change(renewed.clone()).await.is_done);
    assert!(members.page(None, 10).await.members.iter().all(|(_, is_over)| !is_over));
    scene.pass(lease).await;
    let claims = (0..8).map(|_| MembersChange { condition: over("short"), ..remove(&["short"]) });
    let claims = join_all(claims.map(|claim| members.change(claim))).await;
    assert_eq!(claims.iter().filter(|changed| changed.is_done).count(), 1);
    assert!(!members.change(renewed).await.is_done);
}

pub(super) async fn one_of_many_concurrent_changes_finds_the_set_empty(scene: Scene) {
    let members = Members::open(&scene).await;
    let puts = (0..64).map(|n| members.change(put([member(n.to_string(), "", "")])));
    let firsts = join_all(puts).await.iter().filter(|changed| changed.before == 0).count();
    let removes =
        (0..64).map(|n: u32| MembersChange { removes: vec![n.to_string().into()], ..Default::default() });
    let removes = join_all(removes.map(|change| members.change(change))).await;
    let lasts = removes.iter().filter(|changed| changed.after == 0).count();
    assert_eq!((firsts, lasts), (1, 1));
}

pub(super) async fn a_page_of_members_is_bounded(scene: Scene) {
    let members = Members::open(&scene).await;
    let large = vec![b'x'; limits::BATCH_BYTES_MAX / 3];
    for n in 0..4 {
        members.change(put([member(n.to_string(), "", large.clone())])).await;
    }
    let page = members.page(None, 10).await;
    assert_eq!((page.members.len(), page.count, page.next), (2, 4, Some("1".into())));
    let page = members.page(Some("1".into()), 10).await;
    assert_eq!((page.members.len(), page.next), (2, None));
    assert_eq!(members.page(None, 0).await.count, 4);
    let names = |count: usize| (0..count).map(|n| member(format!("n{n:04}"), "", "")).collect::<Vec<_>>();
    members.change(put(names(limits::BATCH_EVENTS_MAX))).await;
    let page = members.page(Some("n".into()), usize::MAX).await;
    assert_eq!((page.members.len(), page.next), (limits::BATCH_EVENTS_MAX, None));
    let page = members.page(Some("n".into()), limits::BATCH_EVENTS_MAX - 1).await;
    assert_eq!(page.next, Some("n0998".into()));
    let refused = members.engine.store.members_change(&members.set, put(names(limits::BATCH_EVENTS_MAX + 1)));
    assert_eq!(refused.await.expect_err("too many").kind(), crate::ErrorKind::TooLarge);
    assert!(members.engine.tasks.close(Duration::from_secs(10)).await, "the engine closes");
}
