//! `state.redb`: which streams there are, the entries of the store, what waits for its time, and groups.

use std::ops::Bound;
use std::path::PathBuf;

use parking_lot::RwLock;
use redb::WriteTransaction;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use super::fault::Fault;
use super::groups::rows;
use super::record::Salt;
use crate::clock::Timestamp;
use crate::engine::{AtBound, Retention};
use crate::name::ChannelPath;
use crate::position::Epoch;

/// Numbers of the directory by name.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Streams by channel path: id, epoch (0: the directory's), first offset, and what is kept (`u64::MAX`: all):
/// events, age in milliseconds, bytes.
const STREAMS: TableDefinition<'_, &str, (u64, u64, u64, u64, u64, u64)> = TableDefinition::new("streams");
/// Entries by path: when they expire in milliseconds (`u64::MAX`: never), and their value.
pub(super) const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// Paths of the entries that expire, by when.
pub(super) const EXPIRIES: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("expiries");
/// Appends that wait for their time: by that time in milliseconds and then in the order of the calls.
pub(super) const SCHEDULE: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("schedule");

/// What streams do at a bound, by channel path: see [`at_bound_number`]. A stream that is not here blocks.
const AT_BOUNDS: TableDefinition<'_, &str, u8> = TableDefinition::new("at_bounds");

/// Pages of the database kept in memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

const EPOCH: &str = "epoch";
const SALT: &str = "salt";
const LAST_STREAM: &str = "last_stream";
const LAST_GROUP: &str = "last_group";
const BOOT: &str = "boot";
const UNSYNCED_SINCE: &str = "unsynced_since";

/// The open database. After a fault of the disk it is opened again: redb refuses to go on with it.
pub(super) struct State {
    path: PathBuf,
    database: RwLock<Option<Database>>,
    #[cfg(test)]
    pub(super) fails: std::sync::atomic::AtomicBool,
}

/// What the database says of a directory when it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub(super) epoch: Epoch,
    pub(super) salt: Salt,
    /// The device may not have what was confirmed from then on, by the clock of the file system.
    pub(super) unsynced_since: Option<Timestamp>,
}

/// What the database knows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamRow {
    pub(super) id: u64,
    /// Its own epoch, after damage.
    pub(super) epoch: Option<Epoch>,
    /// Events before this offset are trimmed.
    pub(super) first: u64,
    pub(super) retention: Retention,
}

impl State {
    /// Creates the database.
    pub(super) fn create(path: PathBuf) -> Result<(), Fault> {
        let database =
            builder().create(&path).map_err(|error| Fault::state("create", &path, error.into()))?;
        let state = Self::with(path, database);
        state.write(|transaction| {
            transaction.open_table(STREAMS)?;
            transaction.open_table(ENTRIES)?;
            transaction.open_table(EXPIRIES)?;
            transaction.open_table(SCHEDULE)?;
            open_later_tables(transaction)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert(EPOCH, Epoch::random().as_u64())?;
            meta.insert(SALT, u64::from(fastrand::u32(..)))?;
            Ok(())
        })
    }

    /// Opens the database that is there.
    pub(super) fn open(path: PathBuf) -> Result<Self, Fault> {
        let database = builder().open(&path).map_err(|error| Fault::state("open", &path, error.into()))?;
        Ok(Self::with(path, database))
    }

    fn with(path: PathBuf, database: Database) -> Self {
        Self {
            path,
            database: RwLock::new(Some(database)),
            #[cfg(test)]
            fails: Default::default(),
        }
    }

    /// Adds what format 1 did not have.
    pub(super) fn upgrade(&self) -> Result<(), Fault> {
        self.write(open_later_tables)
    }

    /// Closes the database: every later call fails.
    pub(super) fn close(&self) {
        *self.database.write() = None;
    }

    /// Reads from one state of the database.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Fault> {
        self.on(|database| work(&database.begin_read()?)).map_err(|error| self.fault("read", error))
    }

    /// Changes the database in one step that the device has when this returns.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Fault> {
        let outcome = self.on(|database| {
            let transaction = database.begin_write()?;
            let answer = work(&transaction)?;
            #[cfg(test)]
            if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(redb::Error::Io(std::io::ErrorKind::StorageFull.into()));
            }
            transaction.commit()?;
            Ok(answer)
        });
        outcome.map_err(|error| self.fault("write", error))
    }

    fn on<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database.read();
        work(database.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    /// Tells of `error`, and opens the database again if it is one that redb does not go on after.
    fn fault(&self, what: &str, error: redb::Error) -> Fault {
        if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            let mut database = self.database.write();
            // Closed first: two cannot be open.
            *database = None;
            match builder().open(&self.path) {
                Ok(opened) => *database = Some(opened),
                Err(error) => tracing::error!(file = %self.path.display(), %error, "cannot open again"),
            }
        }
        Fault::state(what, &self.path, error)
    }

    /// Begins a session in the running system `boot`. If the system ended since confirmed appends were only in
    /// its memory, they may be gone: history goes on under a new epoch.
    pub(super) fn begin_session(&self, boot: u64) -> Result<Session, Fault> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let mut unsynced_since = Some(number(&meta, UNSYNCED_SINCE)?).filter(|since| *since != 0);
            let mut epoch = Epoch::from_u64(number(&meta, EPOCH)?);
            let salt = Salt(u32::try_from(number(&meta, SALT)?).unwrap_or_default());
            if unsynced_since.is_some() && number(&meta, BOOT)? != boot {
                epoch = Epoch::random();
                unsynced_since = None;
                tracing::warn!(
                    file = %self.path.display(),
                    %epoch,
                    "the system stopped before all events were on the device: streams go on under a new epoch"
                );
                meta.insert(EPOCH, epoch.as_u64())?;
                meta.insert(UNSYNCED_SINCE, 0)?;
                forget_epochs(transaction)?;
            }
            meta.insert(BOOT, boot)?;
            Ok(Session { epoch, salt, unsynced_since: unsynced_since.map(Timestamp::from_millis) })
        })
    }

    /// Notes since when the device may not have what is confirmed; `None`: it has all.
    pub(super) fn set_unsynced_since(&self, since: Option<Timestamp>) -> Result<(), Fault> {
        self.write(|transaction| {
            let since = since.map_or(0, |since| since.as_millis().max(1));
            transaction.open_table(META)?.insert(UNSYNCED_SINCE, since)?;
            Ok(())
        })
    }

    /// Notes that what was confirmed cannot be relied on: the next session begins a new epoch.
    pub(super) fn distrust(&self) -> Result<(), Fault> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert(UNSYNCED_SINCE, 1)?;
            meta.remove(BOOT)?;
            Ok(())
        })
    }

    /// The stream of a channel, if there is one.
    pub(super) fn stream(&self, channel: &str) -> Result<Option<StreamRow>, Fault> {
        self.read(|transaction| {
            let Some(row) = transaction.open_table(STREAMS)?.get(channel)? else { return Ok(None) };
            let mut row = StreamRow::from_columns(row.value());
            let at_bound = transaction.open_table(AT_BOUNDS)?.get(channel)?;
            row.retention.at_bound = at_bound_of(at_bound.map_or(0, |at_bound| at_bound.value()));
            Ok(Some(row))
        })
    }

    /// Creates the streams of channels that have none.
    pub(super) fn create_streams(&self, channels: &[(&str, Retention)]) -> Result<(), Fault> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let mut streams = transaction.open_table(STREAMS)?;
            let mut last = number(&meta, LAST_STREAM)?;
            for &(channel, retention) in channels {
                // Others may have created it meanwhile.
                if streams.get(channel)?.is_some() {
                    continue;
                }
                last += 1;
                let row = StreamRow { id: last, epoch: None, first: 1, retention };
                streams.insert(channel, row.columns())?;
                set_at_bound(transaction, channel, retention.at_bound)?;
            }
            meta.insert(LAST_STREAM, last)?;
            Ok(())
        })
    }

    /// Sets what is known of streams that exist.
    pub(super) fn set_streams<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a str, StreamRow)>,
    ) -> Result<(), Fault> {
        self.write(|transaction| {
            let mut streams = transaction.open_table(STREAMS)?;
            for (channel, row) in rows {
                streams.insert(channel, row.columns())?;
                set_at_bound(transaction, channel, row.retention.at_bound)?;
            }
            Ok(())
        })
    }

    /// The last id that was given to a group.
    pub(super) fn last_group(&self) -> Result<u64, Fault> {
        self.read(|transaction| number(&transaction.open_table(META)?, LAST_GROUP))
    }

    /// Up to `count_max` streams after the channel `after`, by their paths; what they do at a bound apart.
    pub(super) fn streams_after(
        &self,
        after: &str,
        count_max: usize,
    ) -> Result<Vec<(String, StreamRow)>, Fault> {
        self.read(|transaction| {
            let mut rows = Vec::new();
            let range = (Bound::Excluded(after), Bound::Unbounded);
            for row in transaction.open_table(STREAMS)?.range::<&str>(range)?.take(count_max) {
                let (channel, row) = row?;
                rows.push((channel.value().to_owned(), StreamRow::from_columns(row.value())));
            }
            Ok(rows)
        })
    }
}

/// The channel of a path that was stored; `None` if it is none.
pub(super) fn channel_of(path: &str) -> Option<ChannelPath> {
    // Environment and tenant have no colon.
    let mut parts = path.splitn(4, ':');
    let (environment, _tenant_word, tenant) = (parts.next()?, parts.next()?, parts.next()?);
    ChannelPath::new(environment, tenant, parts.next()?).ok()
}

/// Notes that a group has this id.
pub(super) fn note_group(transaction: &WriteTransaction, id: u64) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let last = number(&meta, LAST_GROUP)?;
    meta.insert(LAST_GROUP, last.max(id))?;
    Ok(())
}

/// Opens the tables that format 1 did not have, which creates them.
fn open_later_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(AT_BOUNDS)?;
    rows::open_tables(transaction)
}

fn set_at_bound(transaction: &WriteTransaction, channel: &str, at_bound: AtBound) -> Result<(), redb::Error> {
    let mut at_bounds = transaction.open_table(AT_BOUNDS)?;
    match at_bound_number(at_bound) {
        0 => at_bounds.remove(channel)?,
        number => at_bounds.insert(channel, number)?,
    };
    Ok(())
}

/// How it is stored what a stream does at a bound.
pub(super) fn at_bound_number(at_bound: AtBound) -> u8 {
    match at_bound {
        AtBound::Block => 0,
        AtBound::Reject => 1,
        AtBound::DropOldest => 2,
    }
}

/// What a stored number says that a stream does at a bound. One that is not known keeps events.
pub(super) fn at_bound_of(number: u8) -> AtBound {
    match number {
        1 => AtBound::Reject,
        2 => AtBound::DropOldest,
        _ => AtBound::Block,
    }
}

fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, redb::Error> {
    Ok(meta.get(name)?.map_or(0, |number| number.value()))
}

/// All streams go on under the epoch of the directory.
fn forget_epochs(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut streams = transaction.open_table(STREAMS)?;
    let mut own = Vec::new();
    for row in streams.iter()? {
        let (channel, row) = row?;
        let row = StreamRow::from_columns(row.value());
        if row.epoch.is_some() {
            own.push((channel.value().to_owned(), StreamRow { epoch: None, ..row }));
        }
    }
    for (channel, row) in own {
        streams.insert(channel.as_str(), row.columns())?;
    }
    Ok(())
}

impl StreamRow {
    fn from_columns(columns: (u64, u64, u64, u64, u64, u64)) -> Self {
        let (id, epoch, first, events, age, bytes) = columns;
        let bound = |number: u64| Some(number).filter(|number| *number != u64::MAX);
        Self {
            id,
            epoch: Some(Epoch::from_u64(epoch)).filter(|epoch| *epoch != Epoch::default()),
            first,
            retention: Retention {
                events_max: bound(events),
                age_max: bound(age).map(std::time::Duration::from_millis),
                bytes_max: bound(bytes),
                ..Retention::default()
            },
        }
    }

    fn columns(self) -> (u64, u64, u64, u64, u64, u64) {
        let Retention { events_max, age_max, bytes_max, .. } = self.retention;
        (
            self.id,
            self.epoch.unwrap_or_default().as_u64(),
            self.first,
            events_max.unwrap_or(u64::MAX),
            age_max.map_or(u64::MAX, crate::clock::millis),
            bytes_max.unwrap_or(u64::MAX),
        )
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}
