//! Opening a stream: what its files hold, where they were cut short, and where it goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use super::appender::{Active, Appender};
use super::{Stream, View};
use crate::clock::Timestamp;
use crate::engine::embedded::dedup::DedupWindow;
use crate::engine::embedded::file::directory::Directory;
use crate::engine::embedded::file::fault::Fault;
use crate::engine::embedded::file::groups::{Groups, StreamGroups};
use crate::engine::embedded::file::record::{Body, Header};
use crate::engine::embedded::file::scan::End;
use crate::engine::embedded::file::segment::{self, RECORDS_START, Segment, SegmentHeader, VersionBefore};
use crate::engine::embedded::file::state::StreamRow;
use crate::engine::embedded::file::tail::Tail;
use crate::engine::{Dedup, Version};
use crate::limits;
use crate::name::ChannelPath;
use crate::position::Epoch;

/// A dedup id in a record: its offset and when it was appended.
type Mark = (Dedup, u64, Timestamp);

impl Stream {
    /// Opens the stream of `channel`.
    ///
    /// Cuts off what a killed process left of its last write. Where the end of the stream is damaged, so that it
    /// is not known what was confirmed there, the stream goes on under a new epoch, and the damaged bytes are
    /// kept aside.
    pub(in super::super) fn open(
        directory: &Directory,
        channel: ChannelPath,
        mut row: StreamRow,
        groups: &Groups,
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let path = directory.stream(row.id);
        let fault = |error| Fault::io("open a stream in", &path, error);
        let segments = list(directory, &path, row.id).map_err(fault)?;
        let mut end = match segments.back() {
            Some(last) => scan_last(directory, &channel, last, now).map_err(fault)?,
            None => LastSegment::default(),
        };
        if end.is_broken || end.next_offset < row.first {
            row.epoch = Some(Epoch::random());
            // Durable before the damage is gone, else a second look would find nothing wrong.
            directory.state.set_streams([(channel.as_str(), row)])?;
            tracing::warn!(
                %channel,
                directory = %path.display(),
                offset = end.next_offset,
                "events from this offset on are lost: the stream goes on under a new epoch"
            );
        }
        if let Some(active) = &end.active {
            cut(directory, active, end.is_broken).map_err(fault)?;
        }
        let mut version = find_version(directory, &segments, &mut end).map_err(fault)?;
        if end.next_offset < row.first {
            // What has that version may be lost: it may be told again.
            (end.next_offset, end.active, version) = (row.first, None, None);
        }
        let dedup = collect_marks(directory, &segments, &mut end, now).map_err(fault)?;
        let groups = groups.of_stream(directory, row.id, end.next_offset - 1)?;
        let view = view(directory, &row, segments, end.next_offset, &groups).map_err(fault)?;
        let appender = Appender {
            next_offset: end.next_offset,
            last_time: end.last_time,
            active: end.active,
            dedup,
            dedup_until: end.dedup_until,
            version,
            retention: row.retention,
            saved_retention: row.retention,
            is_directory_synced: false,
        };
        Ok(Self {
            id: row.id,
            channel,
            directory: path,
            view: RwLock::new(view),
            appender: Mutex::new(appender),
            groups,
            used: AtomicU64::default(),
        })
    }
}

/// The segments in the directory of a stream, by their bases.
fn list(directory: &Directory, path: &Path, id: u64) -> io::Result<VecDeque<Arc<Segment>>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(base) = entry.file_name().to_str().and_then(segment::base_of) {
            let length = entry.metadata()?.len();
            segments.push(Arc::new(Segment::existing(id, path, base, length, directory.salt)));
        }
    }
    segments.sort_unstable_by_key(|segment| segment.base());
    Ok(segments.into())
}

/// What the last segment says of the end of the stream.
struct LastSegment {
    next_offset: u64,
    last_time: Timestamp,
    active: Option<Active>,
    /// Bytes at its end are no records and no torn write.
    is_broken: bool,
    marks: VecDeque<Mark>,
    dedup_until: Timestamp,
    /// That of its newest record that has one.
    version: Option<Version>,
}

impl Default for LastSegment {
    fn default() -> Self {
        Self {
            next_offset: 1,
            last_time: Timestamp::default(),
            active: None,
            is_broken: false,
            marks: VecDeque::new(),
            dedup_until: Timestamp::default(),
            version: None,
        }
    }
}

fn scan_last(
    directory: &Directory,
    channel: &ChannelPath,
    segment: &Arc<Segment>,
    now: Timestamp,
) -> io::Result<LastSegment> {
    let files = &directory.files;
    if segment.open(files)?.metadata()?.len() < RECORDS_START {
        // The process was killed while it created the segment: it has no records.
        let header = SegmentHeader {
            channel: channel.as_str().into(),
            base: segment.base(),
            epoch: directory.epoch,
            salt: directory.salt,
            created: now,
            dedup_until: Timestamp::from_millis(u64::MAX),
            version: VersionBefore::NotKnown,
        };
        segment.write_header(files, &header)?;
    }
    let created = segment.header(files)?.map(|header| header.created).unwrap_or_default();
    let mut end = LastSegment { last_time: created, ..LastSegment::default() };
    let (index, reached) = segment.scan(files, |header, body| {
        end.last_time = end.last_time.max(header.time);
        end.mark(header, body, now);
        end.version = version_of(body).or(end.version.take());
    })?;
    end.next_offset = index.next_offset;
    end.is_broken = reached == End::Broken;
    let block_start = index.blocks.last().map(|block| block.position);
    let segment = Arc::clone(segment);
    end.active = Some(Active { segment: Arc::clone(&segment), created, end: index.end, block_start });
    segment.set_index(index);
    Ok(end)
}

impl LastSegment {
    /// Takes note of the dedup id of a record, if it is still remembered at `now`.
    fn mark(&mut self, header: &Header, body: &Body<'_>, now: Timestamp) {
        let Some((id, window)) = body.dedup else { return };
        let until = header.time.saturating_add(window);
        if until > now {
            self.dedup_until = self.dedup_until.max(until);
            self.marks.push_back((Dedup { id: id.into(), window }, header.offset, header.time));
            if self.marks.len() > limits::DEDUP_IDS_MAX {
                self.marks.pop_front();
            }
        }
    }
}

/// Cuts the active segment's file off after its last record. Damaged bytes are kept in a file beside it.
fn cut(directory: &Directory, active: &Active, is_broken: bool) -> io::Result<()> {
    let file = active.segment.open(&directory.files)?;
    let torn_bytes = file.metadata()?.len() - active.end;
    if torn_bytes == 0 {
        return Ok(());
    }
    let path = active.segment.path();
    if is_broken {
        let aside = path.with_extension(format!("{}.damaged", active.end));
        let mut damaged = File::open(path)?;
        damaged.seek(io::SeekFrom::Start(active.end))?;
        let mut copy = File::create(&aside)?;
        io::copy(&mut damaged.take(torn_bytes), &mut copy)?;
        copy.sync_all()?;
        tracing::warn!(file = %path.display(), byte = active.end, kept_in = %aside.display(), "damage was set aside");
    } else {
        tracing::info!(file = %path.display(), byte = active.end, torn_bytes, "unconfirmed write was cut off");
    }
    file.set_len(active.end)
}

/// The dedup ids that are remembered at `now`: those of the last segment, and of the ones before it for as long
/// as they have any.
fn collect_marks(
    directory: &Directory,
    segments: &VecDeque<Arc<Segment>>,
    end: &mut LastSegment,
    now: Timestamp,
) -> io::Result<DedupWindow> {
    let files = &directory.files;
    let mut newest_first = vec![std::mem::take(&mut end.marks)];
    let mut count = 0;
    let mut later: Option<&Segment> = None;
    for segment in segments.iter().rev() {
        if let Some(later) = later {
            let until = later.header(files)?.map(|header| header.dedup_until);
            if until.is_some_and(|until| until <= now) || count >= limits::DEDUP_IDS_MAX {
                break;
            }
            segment.scan(files, |header, body| end.mark(header, body, now))?;
            newest_first.push(std::mem::take(&mut end.marks));
        }
        count += newest_first.last().map_or(0, VecDeque::len);
        later = Some(segment);
    }
    let mut window = DedupWindow::default();
    for (dedup, offset, time) in newest_first.into_iter().rev().flatten() {
        window.insert(&dedup, offset, time);
    }
    Ok(window)
}

fn version_of(body: &Body<'_>) -> Option<Version> {
    body.version.map(|(epoch, number)| Version { epoch: epoch.into(), number })
}

/// The stream's version: that of its newest record that has one. The last segment has it or tells it; where its header is
/// damaged, the segments before it do.
fn find_version(
    directory: &Directory,
    segments: &VecDeque<Arc<Segment>>,
    end: &mut LastSegment,
) -> io::Result<Option<Version>> {
    let mut newest = end.version.take();
    for (age, segment) in segments.iter().rev().enumerate() {
        if age > 0 {
            segment.scan(&directory.files, |_, body| newest = version_of(body).or(newest.take()))?;
        }
        if newest.is_some() {
            break;
        }
        let header = segment.header(&directory.files)?;
        if let Some(VersionBefore::Is(version)) = header.map(|header| &header.version) {
            return Ok(version.clone());
        }
    }
    Ok(newest)
}

fn view(
    directory: &Directory,
    row: &StreamRow,
    segments: VecDeque<Arc<Segment>>,
    next_offset: u64,
    groups: &Arc<StreamGroups>,
) -> io::Result<View> {
    let known_age = match segments.front() {
        Some(oldest) => {
            let next_base = segments.get(1).map(|next| next.base());
            (oldest.base(), oldest.created(&directory.files, next_base)?)
        }
        None => (next_offset, Timestamp::default()),
    };
    let oldest = segments.front().map_or(next_offset, |oldest| oldest.base());
    let mut view = View {
        epoch: row.epoch.unwrap_or(directory.epoch),
        first: row.first.max(oldest).min(next_offset),
        last: next_offset - 1,
        retention: row.retention,
        segments,
        tail: Tail::default(),
        groups: Arc::clone(groups),
        known_age,
    };
    view.first = view.first.max(view.first_by_count().min(view.floor()));
    Ok(view)
}
