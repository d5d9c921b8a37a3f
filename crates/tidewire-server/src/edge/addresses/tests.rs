use super::*;

const NOW: Duration = Duration::from_secs(10);

fn limits(change: impl FnOnce(&mut EdgeConfig)) -> EdgeConfig {
    let mut config = EdgeConfig { unauthenticated_max: 0, failures_per_minute: 0, ..EdgeConfig::default() };
    change(&mut config);
    config
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nth(number: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + number).into())
}

#[test]
fn so_many_connections_of_an_address_may_be_unauthenticated() {
    let addresses = Addresses::new(&limits(|edge| edge.unauthenticated_max = 2));
    let first = addresses.enter(ip("192.0.2.1"), NOW).unwrap();
    let second = addresses.enter(ip("192.0.2.1"), NOW).unwrap().unwrap();
    assert_eq!(addresses.enter(ip("192.0.2.1"), NOW).err(), Some(TooMany::Unauthenticated));
    assert!(addresses.enter(ip("192.0.2.2"), NOW).is_ok(), "others may");
    drop(first);
    let third = addresses.enter(ip("192.0.2.1"), NOW).unwrap();
    assert!(addresses.enter(ip("192.0.2.1"), NOW).is_err());
    // One that has authenticated is not counted, and gives its place back once.
    second.leave();
    second.leave();
    let fourth = addresses.enter(ip("192.0.2.1"), NOW).unwrap();
    drop(second);
    assert!(addresses.enter(ip("192.0.2.1"), NOW).is_err());
    drop((third, fourth));
}

#[test]
fn addresses_of_one_network_of_a_home_are_one() {
    let addresses = Addresses::new(&limits(|edge| edge.unauthenticated_max = 1));
    let _first = addresses.enter(ip("2001:db8::1"), NOW).unwrap();
    assert!(addresses.enter(ip("2001:db8::ffff:1"), NOW).is_err(), "the same /64");
    let _second = addresses.enter(ip("2001:db8:0:1::1"), NOW).unwrap();
    let _third = addresses.enter(ip("192.0.2.1"), NOW).unwrap();
    assert!(addresses.enter(ip("::ffff:192.0.2.1"), NOW).is_err(), "the same IPv4 address");
}

#[test]
fn connections_come_as_fast_as_they_may() {
    let config = limits(|edge| (edge.connections_per_second, edge.connections_burst) = (50, 3));
    let addresses = Addresses::new(&config);
    let entered = |now| (0..1_000).take_while(|_| addresses.enter(ip("192.0.2.1"), now).is_ok()).count();
    assert_eq!(entered(NOW), 3);
    let wait = Duration::from_millis(20);
    assert_eq!(addresses.enter(ip("192.0.2.1"), NOW).err(), Some(TooMany::Arrivals(wait)));
    let in_a_second: usize = (1..=1_000).map(|millis| entered(NOW + Duration::from_millis(millis))).sum();
    assert_eq!(in_a_second, 50);
    assert!(addresses.enter(ip("192.0.2.2"), NOW).is_ok());
}

#[test]
fn who_fails_too_often_may_not_try_for_a_while() {
    let addresses = Addresses::new(&limits(|edge| {
        (edge.failures_per_minute, edge.refuse_for) = (3, Duration::from_secs(30));
    }));
    let is_refused = |now| addresses.refused_for(ip("192.0.2.1"), now);
    for _ in 0..3 {
        addresses.failed(ip("192.0.2.1"), NOW);
        assert_eq!(is_refused(NOW), None);
    }
    addresses.failed(ip("192.0.2.1"), NOW);
    assert_eq!(is_refused(NOW), Some(Duration::from_secs(30)));
    assert_eq!(addresses.refused_for(ip("192.0.2.2"), NOW), None);
    assert_eq!(is_refused(NOW + Duration::from_secs(29)), Some(SECOND));
    assert_eq!(is_refused(NOW + Duration::from_secs(30)), None);
    // By then a part of them has come back.
    addresses.failed(ip("192.0.2.1"), NOW + Duration::from_secs(30));
    assert_eq!(is_refused(NOW + Duration::from_secs(30)), None);
}

#[test]
fn nothing_is_counted_where_nothing_is_bounded() {
    let addresses = Addresses::new(&limits(|_| {}));
    for _ in 0..100 {
        assert!(addresses.enter(ip("192.0.2.1"), NOW).unwrap().is_none());
        addresses.failed(ip("192.0.2.1"), NOW);
    }
    assert_eq!(addresses.refused_for(ip("192.0.2.1"), NOW), None);
    assert!(addresses.table.lock().records.is_empty());
}

#[test]
fn an_address_cannot_be_made_forgotten_by_many_others() {
    let config = limits(|edge| {
        (edge.connections_per_second, edge.connections_burst, edge.failures_per_minute) = (10, 100, 5);
        edge.unauthenticated_max = 1_000;
    });
    let addresses = Addresses::with_room(&config, 64);
    let (bad, busy) = (ip("192.0.2.1"), ip("192.0.2.2"));
    (0..6).for_each(|_| addresses.failed(bad, NOW));
    let held: Vec<_> = (0..3).map(|_| addresses.enter(busy, NOW).unwrap()).collect();
    for number in 0..10_000 {
        drop(addresses.enter(nth(number), NOW).unwrap());
        addresses.failed(nth(number), NOW);
    }
    assert!(addresses.refused_for(bad, NOW).is_some());
    {
        let table = addresses.table.lock();
        assert_eq!((table.records.len(), table.places.len()), (64, 64));
        let (_, record) = table.records[table.places[&Key::of(busy)]];
        assert_eq!(record.unauthenticated, 3);
    }
    drop(held);
    let later = NOW + MINUTE;
    assert_eq!(addresses.refused_for(bad, later), None);
    // Whoever owes nothing makes room.
    for number in 0..200 {
        drop(addresses.enter(nth(number), later).unwrap());
    }
    assert_eq!(addresses.table.lock().places.get(&Key::of(busy)), None);
}

#[test]
fn a_new_address_has_to_wait_while_all_others_are_in_use() {
    let addresses = Addresses::with_room(&limits(|edge| edge.unauthenticated_max = 1), 8);
    let held: Vec<_> = (0..8).map(|number| addresses.enter(nth(number), NOW).unwrap()).collect();
    assert_eq!(addresses.enter(nth(8), NOW).err(), Some(TooMany::Unauthenticated));
    drop(held);
    assert!(addresses.enter(nth(8), NOW).is_ok());
}
