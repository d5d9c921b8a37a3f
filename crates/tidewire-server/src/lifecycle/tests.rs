//! Connect, subscribe, unsubscribe, disconnect, stand still and die, in every order that a seed gives: what is told is judged
//! by the stream alone. `TIDEWIRE_SEED` runs one seed.

mod judge;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewire::Condition;

use self::judge::{Breaks, Story};
use self::world::{Client, Ground, Site, told};
use super::notice::Kind;
use super::record::Record;

const STEPS: usize = 120;
const SITES: usize = 2;
const CLIENTS: usize = 3;
const ROOMS: [&str; 2] = ["room:a", "room:b"];

/// Two nodes, and those that come in place of dead ones.
struct Race {
    ground: Ground,
    sites: Vec<Site>,
    /// Steps for which the site stands still.
    asleep: [usize; SITES],
    random: fastrand::Rng,
    seed: u64,
    acked: BTreeMap<(String, String), usize>,
    kills: usize,
    breaks: Breaks,
    /// Of each site that there was: whether it told anew what is there.
    renewals: Vec<Arc<AtomicBool>>,
}

impl Race {
    fn new(ground: Ground, seed: u64) -> Self {
        let sites: Vec<_> = (0..SITES).map(|_| ground.site()).collect();
        let renewals = sites.iter().map(|site| site.was_renewed.clone()).collect();
        let random = fastrand::Rng::with_seed(seed);
        let (acked, asleep) = (BTreeMap::new(), [0; SITES]);
        // Every other one has nodes that stand still for longer than their lease; in real time, any may.
        let breaks = match ground {
            Ground::Memory { .. } if seed.is_multiple_of(2) => Breaks::None,
            _ => Breaks::Possible,
        };
        Self { ground, sites, asleep, random, seed, acked, kills: 0, breaks, renewals }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.asleep = [0; SITES];
        let there = self.settle();
        let rooms = there.iter().map(|(_, room)| room.clone()).filter(|room| !room.is_empty()).collect();
        self.expect("while clients are there", |story| {
            story.expect_rooms(&rooms)?;
            story.expect_there(&there)
        });
        self.sites.iter_mut().for_each(Site::disconnect_all);
        self.settle();
        self.expect("when all are gone", |story| {
            story.expect_rooms(&BTreeSet::new())?;
            story.expect_clients(&self.acked, self.breaks)?;
            match self.renewals.iter().any(|renewed| renewed.load(Ordering::Acquire)) {
                true => Ok(()),
                false => story.expect_single(),
            }
        });
    }

    fn step(&mut self) {
        let which = self.random.usize(0..SITES);
        for asleep in &mut self.asleep {
            *asleep = asleep.saturating_sub(1);
        }
        let time = Duration::from_millis(self.random.u64(0..150));
        self.pass(time);
        if self.asleep[which] > 0 {
            return;
        }
        let site = &mut self.sites[which];
        match self.random.usize(0..24) {
            0..4 if site.clients.len() < CLIENTS => site.connect(),
            0..14 => {
                if let Some(client) = self.random.choice(site.clients.iter_mut())
                    && client.is_idle()
                {
                    let room = ROOMS[self.random.usize(0..ROOMS.len())];
                    match client.rooms.get(room) {
                        Some(true) => client.unsubscribe(room),
                        _ => client.subscribe(room),
                    }
                }
            }
            14..17 if !site.clients.is_empty() => {
                let client = self.random.usize(0..site.clients.len());
                site.disconnect(client);
            }
            17 if self.kills < 3 => {
                self.kills += 1;
                if self.random.bool() {
                    // While it tells that all of its clients are gone.
                    site.disconnect_all();
                    let steps = self.random.usize(0..40);
                    self.ground.run(site, steps);
                }
                let fresh = self.ground.site();
                self.renewals.push(fresh.was_renewed.clone());
                std::mem::replace(&mut self.sites[which], fresh).kill();
            }
            18 if self.breaks == Breaks::Possible => self.asleep[which] = 40,
            19..22 => site.reap(),
            _ => {}
        }
    }

    /// Lets all that do not stand still go on, in small steps.
    fn pass(&mut self, time: Duration) {
        if let Ground::Memory { clock, .. } = &self.ground {
            clock.advance(time);
        }
        for which in 0..SITES {
            if self.asleep[which] == 0 {
                let steps = self.random.usize(0..30);
                self.ground.run(&self.sites[which], steps);
                self.sites[which].progress(&mut self.acked);
                let are_served = self.sites[which].clients.iter().all(|client| client.refused.is_none());
                assert!(are_served, "seed {}: a command was refused", self.seed);
            }
        }
    }

    /// Waits until nothing changes any more: dead nodes are found, and everything is told. The clients that are there then, and
    /// with each the rooms that it is in.
    fn settle(&mut self) -> BTreeSet<(String, String)> {
        let (mut last, mut quiet) = (0, 0);
        for _ in 0..100_000 {
            for _ in 0..4 {
                for site in &mut self.sites {
                    site.reap();
                    site.progress(&mut self.acked);
                }
                self.ground.pass(Duration::from_millis(125), &self.sites);
            }
            let count = told(&self.sites[0]).len();
            quiet = if count == last { quiet + 1 } else { 0 };
            last = count;
            // Longer than a lease, a claim of one who died too, and the longest pause between two tries.
            if quiet > self.ground.quiet_rounds() {
                return self.sites.iter().flat_map(|site| &site.clients).flat_map(Client::there).collect();
            }
        }
        panic!("seed {}: does not settle", self.seed);
    }

    fn expect(&self, when: &str, check: impl FnOnce(&Story) -> Result<(), String>) {
        if let Err(wrong) = check(&Story::of(&told(&self.sites[0]))) {
            panic!("seed {}, {when}: {wrong}", self.seed);
        }
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test, as the fault runner has it")]
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.map_or(0..count, |seed| seed..seed + 1)
}

#[test]
fn a_thousand_schedules_over_two_nodes_that_die_are_told_exactly_once() {
    for seed in seeds(1_000) {
        Race::new(Ground::memory(), seed).run();
    }
}

#[test]
fn schedules_over_two_nodes_that_die_on_redis_are_told_exactly_once() {
    #[expect(clippy::disallowed_methods, reason = "where the tests' server is")]
    let url = std::env::var("TIDEWIRE_TEST_REDIS_URL").expect("run `cargo xtask test`, which starts Redis");
    // Dead nodes are found after seconds: the schedules run side by side.
    let seeds: Vec<u64> = seeds(50).collect();
    std::thread::scope(|scope| {
        for some in seeds.chunks(4) {
            let url = &url;
            scope.spawn(move || {
                for seed in some {
                    let environment = format!("told-{}-{seed}", std::process::id());
                    Race::new(Ground::Server { url: url.clone(), environment }, *seed).run();
                }
            });
        }
    });
}

#[test]
fn what_a_dead_node_had_begun_to_tell_of_a_channel_is_told_by_the_next() {
    let ground = Ground::memory();
    // It died before it was told, or before that was noted.
    for has_told in [false, true] {
        let mut sites = [ground.site()];
        let room = format!("room:{has_told}");
        let tenant = sites[0].node.tenants.named("default").unwrap().clone();
        let lifecycle = tenant.lifecycle.clone().unwrap();
        let begun = Record::default().next();
        sites[0].runtime.block_on(async {
            if has_told {
                lifecycle.tell(lifecycle.notice_of(&room, begun)).await.unwrap();
            }
            let key = format!("occupancy:{room}");
            tenant.handle.put(&key, begun.kept(), None, Condition::Always).await.unwrap();
            lifecycle.reconcile(&room).await.unwrap();
        });
        let story = story_of(&ground, &mut sites);
        story.expect_rooms(&BTreeSet::new()).unwrap();
        assert_eq!(story.rooms[&room], [Kind::Occupied, Kind::Vacated]);
    }
}

#[test]
fn who_comes_late_with_what_it_has_found_of_a_channel_changes_nothing() {
    let ground = Ground::memory();
    let mut sites = [ground.site()];
    let tenant = sites[0].node.tenants.named("default").unwrap().clone();
    let lifecycle = tenant.lifecycle.clone().unwrap();
    let (runtime, set) = (&sites[0].runtime, lifecycle.attendance("room:a").unwrap());
    runtime.block_on(async {
        set.join("other", "", "").await.unwrap();
        let (next, condition) = lifecycle.look("room:a").await.unwrap().unwrap();
        for _ in 0..2 {
            lifecycle.reconcile("room:a").await.unwrap();
            set.leave("other").await.unwrap();
            lifecycle.reconcile("room:a").await.unwrap();
            set.join("other", "", "").await.unwrap();
        }
        assert!(!lifecycle.note_record("room:a", next, condition).await.unwrap());
        lifecycle.reconcile("room:a").await.unwrap();
    });
    let story = story_of(&ground, &mut sites);
    story.expect_rooms(&BTreeSet::from(["room:a".to_owned()])).unwrap();
    assert_eq!(story.rooms["room:a"].len(), 5);
}

/// A site, and what it was told until nothing more is to come.
fn story_of(ground: &Ground, sites: &mut [Site]) -> Story {
    let (mut acked, mut last, mut quiet) = (BTreeMap::new(), 0, 0);
    while quiet < 40 {
        for site in &mut *sites {
            site.reap();
            ground.run(site, 20_000);
            site.progress(&mut acked);
        }
        ground.pass(Duration::from_millis(250), sites);
        let count = told(&sites[0]).len();
        quiet = if count == last { quiet + 1 } else { 0 };
        last = count;
    }
    Story::of(&told(&sites[0]))
}

#[test]
fn a_tenant_that_asks_for_nothing_is_told_nothing_and_pays_nothing() {
    let ground = Ground::memory();
    let mut sites = [ground.site_with(crate::Config::dev())];
    sites[0].connect();
    story_of(&ground, &mut sites);
    let client = &mut sites[0].clients[0];
    client.subscribe("room:a");
    story_of(&ground, &mut sites);
    assert!(sites[0].clients[0].rooms["room:a"]);
    let home = sites[0].node.tidewire.tenant("_nodes").unwrap();
    for kind in ["told", "held"] {
        let rows = home.presence(&format!("{kind}:default:{}", sites[0].node.id)).unwrap();
        assert!(!sites[0].runtime.block_on(rows.is_kept()).unwrap(), "{kind}");
    }
    assert!(told(&sites[0]).is_empty());
}

#[test]
fn who_cannot_be_told_of_is_refused_for_now() {
    let ground = Ground::memory();
    let mut sites = [ground.site(), ground.site()];
    let tidewire = sites[1].node.tidewire.clone();
    // What it shares with the other one cannot end, as nobody runs that.
    let _abandoned = sites[1].runtime.block_on(tidewire.close(Duration::ZERO)).is_err();
    sites[1].connect();
    for _ in 0..2 {
        sites[1].progress(&mut BTreeMap::new());
        ground.run(&sites[1], 500);
    }
    let client = &sites[1].clients[0];
    assert_eq!((client.refused, client.is_over, &*client.id), (Some(100), false, ""));
    assert!(told(&sites[0]).is_empty());
}

#[test]
fn ten_thousand_that_are_cut_at_once_are_told_by_who_finds_them() {
    const MANY: usize = 10_000;
    let ground = Ground::memory();
    let mut sites = vec![ground.site(), ground.site()];
    for _ in 0..MANY {
        sites[0].connect();
    }
    story_of(&ground, &mut sites);
    assert!(sites[0].clients.iter().all(|client| client.is_idle()));
    let dead = sites.remove(0);
    dead.kill();
    let story = story_of(&ground, &mut sites);
    story.expect_clients(&BTreeMap::new(), Breaks::None).unwrap();
    assert_eq!(story.client_count(), MANY);
}
