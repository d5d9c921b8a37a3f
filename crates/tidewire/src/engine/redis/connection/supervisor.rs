//! Keeps a connection's link up: reads, writes, watches for silence, dials again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::LinkState;
use super::queue::{Enqueue, Shared};
use crate::engine::redis::backoff::Backoff;
use crate::engine::redis::command::Encode as _;
use crate::engine::redis::link::{DEAD_TICKS, Dial, Link, PING_TICKS, Reader, TICK, Writer, describe};
use crate::engine::redis::refusal;
use crate::engine::redis::resp::{Decoder, Value};
use crate::tasks::Tasks;

/// How long close waits for the replies to requests that were made before it.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Runs links one after the other until told to stop.
pub(super) async fn keep_up(
    shared: Arc<Shared>,
    mut first: Option<Link>,
    dial: Arc<dyn Dial>,
    stop: CancellationToken,
    tasks: Tasks,
) {
    let mut backoff = Backoff::new();
    loop {
        let link = match first.take() {
            Some(link) => link,
            None => {
                let Some(link) = stop.run_until_cancelled(redial(&shared, &*dial, &mut backoff)).await else {
                    shared.state.send_replace(LinkState::Closed);
                    return;
                };
                shared.open_link();
                link
            }
        };
        let opened = Instant::now();
        let why = run(&shared, link, &stop, &tasks).await;
        let why: Arc<str> = why.to_string().into();
        if stop.is_cancelled() {
            shared.close_link(&why, LinkState::Closed);
            return;
        }
        shared.close_link(&why, LinkState::Down(why.clone()));
        tracing::warn!(%why, "link to redis lost");
        // A server that accepts links and breaks them at once is dialed ever more slowly too.
        if opened.elapsed() > Duration::from_secs(5) {
            backoff.reset();
        }
        if stop.run_until_cancelled(tokio::time::sleep(backoff.wait())).await.is_none() {
            shared.state.send_replace(LinkState::Closed);
            return;
        }
    }
}

async fn redial(shared: &Shared, dial: &dyn Dial, backoff: &mut Backoff) -> Link {
    loop {
        match dial.dial().await {
            Ok(link) => {
                tracing::info!("link to redis open");
                return link;
            }
            Err(error) => {
                let why: Arc<str> = describe(&error).into();
                tracing::debug!(%why, "redis cannot be reached");
                shared.state.send_replace(LinkState::Down(why));
            }
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

/// Runs one link until it breaks or the connection is closed; says why it ended.
async fn run(shared: &Arc<Shared>, link: Link, stop: &CancellationToken, tasks: &Tasks) -> io::Error {
    let (writer_ended, mut writer_end) = oneshot::channel();
    let writer_stop = CancellationToken::new();
    let (writer_shared, writer_stopping) = (shared.clone(), writer_stop.clone());
    // A task of its own: the system calls of writing and reading run on two cores.
    tasks.spawn(async move {
        let end = writer_stopping.run_until_cancelled(write(&writer_shared, link.writer)).await;
        // Without a receiver the connection itself was dropped.
        drop(writer_ended.send(end));
    });
    let (why, is_writer_done) = tokio::select! {
        why = read(shared, link.reader, link.decoder) => (why, false),
        end = &mut writer_end => (end.ok().flatten().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()), true),
        why = watch_silence(shared) => (why, false),
        () = drained(shared, stop) => (io::Error::other("closed"), false),
    };
    if !is_writer_done {
        // It must be gone before the next link opens, and what it wrote must be counted before requests end.
        writer_stop.cancel();
        drop(writer_end.await);
    }
    why
}

async fn write(shared: &Shared, mut writer: Writer) -> io::Error {
    let mut out = BytesMut::new();
    loop {
        out = shared.take_encoded(out).await;
        while out.has_remaining() {
            match writer.write_buf(&mut out).await {
                Ok(0) => return io::ErrorKind::WriteZero.into(),
                Ok(bytes) => shared.count_written(bytes),
                Err(error) => return error,
            }
        }
        // An encrypted link takes bytes before it has sent them.
        if let Err(error) = writer.flush().await {
            return error;
        }
    }
}

async fn read(shared: &Shared, mut reader: Reader, mut decoder: Decoder) -> io::Error {
    let mut values = Vec::new();
    let mut slots = Vec::new();
    loop {
        match reader.read_buf(decoder.buffer()).await {
            Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the link"),
            Ok(_) => shared.quiet_ticks.store(0, Ordering::Relaxed),
            Err(error) => return error,
        }
        let decoded = decoder.decode(&mut values);
        // Out of band, whatever its kind: never the reply to anything.
        values.retain(|value| !matches!(value, Value::Push(_)));
        // The dialer looks for a primary anew, and says so when there is none.
        let is_demoted =
            values.iter().any(|reply| matches!(reply, Value::Error(text) if refusal::is_demotion(text)));
        let is_paired = shared.answer(&mut values, &mut slots);
        if let Err(error) = decoded {
            return io::Error::new(io::ErrorKind::InvalidData, error);
        }
        if is_demoted {
            return io::Error::other("the server has become a read-only replica");
        }
        if !is_paired {
            return io::Error::new(
                io::ErrorKind::InvalidData,
                "the server sent a reply that nobody asked for",
            );
        }
    }
}

/// Ends deadlines, asks a silent link whether it lives, and says when it does not.
///
/// Silence is counted in ticks, not in time: a process that was paused finds its links alive.
async fn watch_silence(shared: &Shared) -> io::Error {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        shared.expire(now);
        let quiet = shared.quiet_ticks.fetch_add(1, Ordering::Relaxed) + 1;
        if quiet >= DEAD_TICKS {
            return io::Error::new(io::ErrorKind::TimedOut, "the server was silent for 2.8 s");
        }
        if quiet == PING_TICKS && !shared.has_waiting() {
            let ping: &[&[u8]] = &[b"PING"];
            // Only the fact that something comes back matters. Without room there is traffic to be answered.
            match shared.enqueue(ping, ping.wire_bytes_max(), now + DRAIN_TIME_MAX, None, None) {
                Enqueue::Queued(_) | Enqueue::NoRoom | Enqueue::NoLink | Enqueue::TooLarge => {}
            }
        }
    }
}

/// Ends when the connection is told to stop and what was asked before is answered.
async fn drained(shared: &Shared, stop: &CancellationToken) {
    stop.cancelled().await;
    let deadline = Instant::now() + DRAIN_TIME_MAX;
    while shared.has_waiting() && Instant::now() < deadline {
        tokio::time::sleep(TICK / 10).await;
    }
}
