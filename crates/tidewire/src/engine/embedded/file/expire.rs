//! Gives back the disk of streams whose events are all too old, though nobody appends to them any more.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::directory::Directory;
use super::fault::Fault;
use super::files;
use super::log::LogStreams;
use super::segment::{self, HEADER_BYTES, SegmentHeader};
use super::state::{StreamRow, channel_of};
use super::stream::segment_age_max;
use super::writer::Job;
use crate::clock::Timestamp;
use crate::error::ErrorKind;

/// Time between looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Streams looked at in one look, each for some 20 microseconds.
const LOOK_STREAMS_MAX: usize = 1_000;

/// Looks at some streams after the others, for as long as the engine is open.
pub(super) async fn expire_for_ever(log: LogStreams) {
    let mut after = String::new();
    loop {
        log.clock.sleep(LOOK_EVERY).await;
        let (directory, now) = (log.directory.clone(), log.clock.now());
        let look = tokio::task::spawn_blocking(move || {
            let rows = directory.state.streams_after(&after, LOOK_STREAMS_MAX)?;
            // After the last stream it begins again with the first.
            let last = rows.last().filter(|_| rows.len() == LOOK_STREAMS_MAX);
            let next = last.map(|(channel, _)| channel.clone()).unwrap_or_default();
            let expired = rows.into_iter().filter(|(_, row)| may_be_expired(&directory, row, now));
            Ok::<_, Fault>((expired.map(|(channel, _)| channel).collect::<Vec<_>>(), next))
        });
        let Ok(look) = look.await else { return };
        after = match look.map_err(crate::Error::from) {
            Ok((expired, next)) => {
                for channel in expired.iter().filter_map(|channel| channel_of(channel)) {
                    log.queue.push(Job::Expire(channel));
                }
                next
            }
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => {
                tracing::warn!(%error, "expired streams stay");
                String::new()
            }
        };
    }
}

/// Whether the newest event of the stream, if it has one, is too old by all that can be told without opening it.
fn may_be_expired(directory: &Directory, row: &StreamRow, now: Timestamp) -> bool {
    let Some(age_max) = row.retention.age_max else { return false };
    match created(directory, row.id) {
        Ok(Some(created)) => now.since(created) > age_max.saturating_add(segment_age_max(age_max)),
        Ok(None) => false,
        // Whoever opens it tells what is wrong.
        Err(_) => true,
    }
}

/// When the last segment of the stream was created, if it has records.
fn created(directory: &Directory, stream: u64) -> io::Result<Option<Timestamp>> {
    let path = directory.stream(stream);
    let mut last = None;
    for entry in std::fs::read_dir(&path)? {
        let entry = entry?;
        last = last.max(entry.file_name().to_str().and_then(segment::base_of));
    }
    let Some(base) = last else { return Ok(None) };
    // Not through the open files of the engine: they are those in use.
    let file = File::open(path.join(segment::file_name(base)))?;
    if file.metadata()?.len() <= HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    files::read_exact_at(&file, &mut bytes, 0)?;
    let header = SegmentHeader::decode(&bytes)?;
    Ok(Some(header.map(|header| header.created).unwrap_or_default()))
}
