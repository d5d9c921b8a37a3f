//! Against a server made of two pipes, under a virtual clock: what callers get, whatever the link does.

use std::collections::HashMap;

use parking_lot::Mutex as SyncMutex;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::engine::redis::command::Command;
use crate::engine::redis::tests::pipe::{HandedOut, Remote, after, in_virtual_time, pipe};

struct Rig {
    connection: Connection,
    links: mpsc::Sender<Link>,
    tasks: Tasks,
}

/// A connection, and the server's end of its first link.
fn rig() -> (Rig, Remote) {
    let ((link, remote), (links, dial), tasks) = (pipe(), HandedOut::new(), Tasks::new());
    let connection = Connection::open(link, Arc::new(dial), &tasks);
    (Rig { connection, links, tasks }, remote)
}

/// What a server does on one link.
#[derive(Clone, Debug)]
struct Script {
    /// What is written before each reply, in turn.
    noise: Vec<Noise>,
    /// The link is cut after so many bytes of replies.
    cut_after: usize,
}

#[derive(Clone, Copy, Debug)]
enum Noise {
    Nothing,
    Message,
    Unsubscribed,
    Invalidated,
    Attribute,
}

impl Noise {
    fn wire(self) -> &'static [u8] {
        match self {
            Self::Nothing => b"",
            Self::Message => b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\nliar\r\n",
            Self::Unsubscribed => b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n",
            Self::Invalidated => b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
            Self::Attribute => b"|1\r\n+ttl\r\n:9\r\n",
        }
    }
}

fn any_script() -> impl Strategy<Value = Script> {
    let noise = prop::sample::select(vec![
        Noise::Nothing,
        Noise::Message,
        Noise::Unsubscribed,
        Noise::Invalidated,
        Noise::Attribute,
    ]);
    (prop::collection::vec(noise, 1..12), 0..1_200_usize)
        .prop_map(|(noise, cut_after)| Script { noise, cut_after })
}

/// How often each request was executed, by what it asked to be echoed.
type Executed = Arc<SyncMutex<HashMap<Bytes, u32>>>;

/// Echoes commands as `script` says until the link is cut; counts what was executed.
async fn serve(mut remote: Remote, script: Script, executed: Executed) {
    let mut left = script.cut_after;
    let mut noise = script.noise.iter().cycle();
    while let Some(command) = remote.command().await {
        let echo = Bytes::from(command.rsplit(' ').next().unwrap_or_default().to_owned());
        *executed.lock().entry(echo.clone()).or_default() += 1;
        let mut reply = noise.next().unwrap().wire().to_vec();
        reply.extend_from_slice(format!("${}\r\n", echo.len()).as_bytes());
        reply.extend_from_slice(&echo);
        reply.extend_from_slice(b"\r\n");
        let whole = reply.len() <= left;
        reply.truncate(left);
        left -= reply.len();
        if !remote.send(&reply).await || !whole {
            return;
        }
    }
}

/// One caller: how it asks, and after how many polls it goes away.
#[derive(Clone, Copy, Debug)]
struct Caller {
    repeat: Repeat,
    payload_bytes: usize,
    gives_up_after: Option<u64>,
}

fn any_caller() -> impl Strategy<Value = Caller> {
    let repeat = prop::sample::select(vec![Repeat::Safe, Repeat::Never]);
    (repeat, 0..150_usize, prop::option::weighted(0.3, 0..6_u64))
        .prop_map(|(repeat, payload_bytes, gives_up_after)| Caller { repeat, payload_bytes, gives_up_after })
}

async fn drive(callers: Vec<Caller>, scripts: Vec<Script>) {
    let (rig, first) = rig();
    let executed = Executed::default();
    let server = async {
        let mut remote = first;
        for script in &scripts {
            serve(remote, script.clone(), executed.clone()).await;
            let (link, next) = pipe();
            assert!(rig.links.send(link).await.is_ok());
            remote = next;
        }
        // The last link holds: whoever may ask again is answered.
        serve(remote, Script { noise: vec![Noise::Message], cut_after: usize::MAX }, executed.clone()).await;
    };
    let ask = |(id, caller): (usize, Caller)| {
        let (connection, executed) = (rig.connection.clone(), executed.clone());
        async move {
            let payload = Bytes::from(format!("{id}:{}", "x".repeat(caller.payload_bytes)));
            let command: [&[u8]; 2] = [b"ECHO", &payload];
            let request = connection.request(&command, caller.repeat, after(60));
            let outcome = match caller.gives_up_after {
                Some(millis) => tokio::time::timeout(Duration::from_millis(millis), request).await,
                None => Ok(request.await),
            };
            match outcome {
                Ok(Ok(value)) => assert_eq!(value.into_bytes().unwrap(), payload, "a reply crossed callers"),
                Ok(Err(RequestError::Unknown(_))) => assert_eq!(caller.repeat, Repeat::Never),
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => {}
            }
            if caller.repeat == Repeat::Never {
                let times = executed.lock().get(&payload).copied().unwrap_or(0);
                assert!(times <= 1, "executed {times} times");
            }
        }
    };
    let asked = futures_util::future::join_all(callers.into_iter().enumerate().map(ask));
    tokio::select! {
        _ = asked => {}
        () = server => panic!("the server ended before the callers"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn replies_never_cross_callers_whatever_the_link_does(
        callers in prop::collection::vec(any_caller(), 1..40),
        scripts in prop::collection::vec(any_script(), 0..4),
    ) {
        in_virtual_time(drive(callers, scripts));
    }
}

#[test]
fn a_request_of_which_nothing_left_is_sent_on_the_next_link() {
    in_virtual_time(async {
        let (rig, first) = rig();
        drop(first);
        let (link, remote) = pipe();
        assert!(rig.links.send(link).await.is_ok());
        let executed = Arc::default();
        let script = Script { noise: vec![Noise::Nothing], cut_after: usize::MAX };
        let command: [&[u8]; 2] = [b"ECHO", b"a"];
        tokio::select! {
            () = serve(remote, script, executed) => unreachable!(),
            reply = rig.connection.request(&command, Repeat::Never, after(5)) => {
                assert_eq!(reply.unwrap().as_bytes(), Some(&b"a"[..]));
            }
        }
    });
}

#[test]
fn a_request_that_was_written_is_not_repeated_unless_that_is_safe() {
    in_virtual_time(async {
        let (rig, mut remote) = rig();
        let command: [&[u8]; 2] = [b"INCR", b"a"];
        let request = rig.connection.request(&command, Repeat::Never, after(5));
        let cut = async {
            assert_eq!(remote.command().await.as_deref(), Some("INCR a"));
            drop(remote);
        };
        let (outcome, ()) = tokio::join!(request, cut);
        assert!(matches!(outcome, Err(RequestError::Unknown(_))), "{outcome:?}");
    });
}

#[test]
fn without_a_link_a_request_waits_until_its_deadline() {
    in_virtual_time(async {
        let (rig, remote) = rig();
        drop(remote);
        let start = Instant::now();
        let outcome = rig.connection.request(&[b"PING".as_slice()], Repeat::Safe, after(2)).await;
        assert!(matches!(outcome, Err(RequestError::NotSent(_))), "{outcome:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    });
}

#[test]
fn a_silent_server_is_noticed_in_three_seconds_and_a_deadline_is_kept_meanwhile() {
    in_virtual_time(async {
        let (rig, _remote) = rig();
        let start = Instant::now();
        let outcome = rig.connection.request(&[b"PING".as_slice()], Repeat::Safe, after(1)).await;
        assert_eq!(outcome, Err(RequestError::TimedOut));
        assert!(start.elapsed() <= Duration::from_millis(1_100));
        let mut state = rig.connection.shared.state.subscribe();
        state.wait_for(|state| matches!(state, LinkState::Down(_))).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    });
}

#[test]
fn an_idle_link_is_kept_alive_by_a_ping_now_and_then() {
    in_virtual_time(async {
        let (rig, remote) = rig();
        let executed = Executed::default();
        let script = Script { noise: vec![Noise::Nothing], cut_after: usize::MAX };
        let served = tokio::time::timeout(Duration::from_secs(60), serve(remote, script, executed.clone()));
        assert!(served.await.is_err());
        assert!(matches!(rig.connection.state(), LinkState::Up(1)));
        assert_eq!(rig.connection.openings().open_for(), Some(Duration::from_secs(60)));
        let pings = executed.lock().get(&b"PING"[..]).copied().unwrap();
        assert!((35..=45).contains(&pings), "{pings} pings in 60 s");
    });
}

#[test]
fn past_the_byte_budget_callers_wait_in_order() {
    in_virtual_time(async {
        let (rig, remote) = rig();
        let payload = vec![b'x'; IN_FLIGHT_BYTES_MAX / 3];
        let order = Arc::new(SyncMutex::new(Vec::new()));
        let callers = (0..6_usize).map(|id| {
            let command = Command::new("ECHO").arg(&payload).int(i64::try_from(id).unwrap());
            let (connection, order) = (rig.connection.clone(), order.clone());
            async move {
                connection.request(&command, Repeat::Never, after(60)).await.unwrap();
                order.lock().push(id);
            }
        });
        let all = futures_util::future::join_all(callers);
        let script = Script { noise: vec![Noise::Nothing], cut_after: usize::MAX };
        tokio::select! {
            () = serve(remote, script, Arc::default()) => unreachable!(),
            _ = all => {}
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_full_queue_and_a_request_larger_than_it_are_told_apart() {
    in_virtual_time(async {
        let (rig, _remote) = rig();
        let large = Command::new("SET").arg(vec![0; IN_FLIGHT_BYTES_MAX]);
        let outcome = rig.connection.request(&large, Repeat::Safe, after(1)).await;
        assert!(matches!(outcome, Err(RequestError::TooLarge { .. })), "{outcome:?}");
        let half = Command::new("SET").arg(vec![0; IN_FLIGHT_BYTES_MAX * 2 / 3]);
        let first = rig.connection.request(&half, Repeat::Safe, after(2));
        let second = rig.connection.request(&half, Repeat::Safe, after(1));
        let (first, second) = tokio::join!(first, second);
        assert_eq!(first, Err(RequestError::TimedOut));
        assert_eq!(second, Err(RequestError::Full));
    });
}

#[test]
fn a_reply_that_nobody_asked_for_breaks_the_link() {
    in_virtual_time(async {
        let (rig, mut remote) = rig();
        assert!(remote.send("+OK\r\n").await);
        let mut state = rig.connection.shared.state.subscribe();
        let down = state.wait_for(|state| matches!(state, LinkState::Down(_))).await.unwrap();
        assert!(format!("{down:?}").contains("nobody asked for"));
    });
}

#[test]
fn a_server_that_became_a_replica_is_left_after_it_said_so() {
    in_virtual_time(async {
        let (rig, mut remote) = rig();
        let command: [&[u8]; 3] = [b"SET", b"a", b"1"];
        let refused = rig.connection.request(&command, Repeat::Safe, after(5));
        let demoted = async {
            remote.command().await.unwrap();
            remote.send("-READONLY You can't write against a read only replica.\r\n").await;
            assert_eq!(remote.command().await, None, "the link is given up");
        };
        let (outcome, ()) = tokio::join!(refused, demoted);
        assert_eq!(Error::from(outcome.unwrap_err()).kind(), ErrorKind::Unavailable);
        assert!(format!("{:?}", rig.connection.state()).contains("replica"));
    });
}

#[test]
fn a_closed_connection_answers_what_was_asked_and_refuses_the_rest() {
    in_virtual_time(async {
        let (rig, remote) = rig();
        let command: [&[u8]; 2] = [b"ECHO", b"a"];
        let asked = rig.connection.request(&command, Repeat::Never, after(5));
        let script = Script { noise: vec![Noise::Nothing], cut_after: usize::MAX };
        let close = async {
            tokio::task::yield_now().await;
            assert!(rig.tasks.close(Duration::from_secs(6)).await);
        };
        let (reply, (), ()) = tokio::join!(asked, close, serve(remote, script, Arc::default()));
        assert!(reply.is_ok(), "{reply:?}");
        let late = rig.connection.request(&[b"PING".as_slice()], Repeat::Safe, after(5)).await;
        assert_eq!(late, Err(RequestError::Closed));
    });
}

#[test]
fn an_error_reply_is_an_error_named_by_what_the_caller_can_do() {
    for (text, kind) in [
        ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
        ("READONLY You can't write against a read only replica", ErrorKind::Unavailable),
        ("OOM command not allowed when used memory > 'maxmemory'", ErrorKind::Backpressure),
        ("NOAUTH Authentication required", ErrorKind::Engine),
    ] {
        let error = Error::from(RequestError::Refused(Bytes::from_static(text.as_bytes())));
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(text), "{error}");
    }
}
