//! `file:DIR`: streams in segment files, the rest in a database beside them. Survives the end of the process at any
//! moment.
//!
//! One thread writes streams ([`writer`]), one changes the database ([`state_writer`]); both make one commit of all
//! that waits. Readers go beside them: to the tails in memory, else to the files. Groups take their turns in memory, which
//! the database confirms ([`groups`]). The formats are drawn in `docs/formats/segment.md`.

mod directory;
mod expire;
mod fault;
mod files;
mod groups;
mod log;
mod options;
mod pubsub;
mod queue;
mod record;
mod scan;
mod schedule;
mod segment;
mod state;
mod state_writer;
mod store;
mod stream;
mod streams;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::directory::Directory;
use self::groups::GroupLog;
use self::log::{FileLog, LogStreams};
pub use self::options::{FileOptions, Fsync};
use self::pubsub::FilePubSub;
use self::queue::Queue;
use self::schedule::Schedule;
use self::state_writer::StateJob;
use self::store::FileStore;
use self::writer::{Job, Writer};
use super::members::MemberSets;
use super::pubsub::LocalPubSub;
use crate::clock::Clock;
use crate::engine::finding::nothing_to_examine;
use crate::engine::{Engine, Setup};
use crate::error::Result;
use crate::tasks::Tasks;

/// Opens the engine that keeps everything in the directory `path`, and creates that if it is not there.
///
/// Blocks on the disk: call it where that is allowed. It must be called within a tokio runtime, on which its tasks
/// run. When `setup.tasks` is closed, the engine finishes what it was given, syncs, and unlocks the directory.
///
/// # Errors
/// `Conflict` if another process has the directory open. `Engine` if it cannot be written, or if it is not an
/// engine's or of a later format. The text says which and what to do.
pub fn open_file(path: &Path, options: &FileOptions, setup: &Setup) -> Result<Engine> {
    Ok(start(Arc::new(Directory::open(path, options.segment_bytes)?), options, setup))
}

fn start(directory: Arc<Directory>, options: &FileOptions, setup: &Setup) -> Engine {
    let Setup { clock, limits, tasks, .. } = setup;
    let pubsub = LocalPubSub::new(Arc::clone(&setup.sink));
    let state_queue = Arc::new(Queue::new(limits.in_flight_bytes_max, limits.call_time_max));
    let log = LogStreams {
        directory: Arc::clone(&directory),
        streams: Arc::default(),
        queue: Arc::new(Queue::new(limits.in_flight_bytes_max, limits.call_time_max)),
        clock: clock.clone(),
        call_time_max: limits.call_time_max,
    };
    let schedule = Schedule::new(Arc::clone(&state_queue));
    let groups = GroupLog { log: log.clone(), queue: Arc::clone(&state_queue), pubsub: pubsub.clone() };
    start_writers(&log, &state_queue, &pubsub, options.fsync, tasks);
    let sweep = store::sweep_for_ever(Arc::clone(&directory), Arc::clone(&state_queue), clock.clone());
    spawn(tasks, sweep);
    spawn(tasks, expire::expire_for_ever(log.clone()));
    spawn(tasks, schedule.clone().run(log.clone()));
    if let Fsync::Every(interval) = options.fsync {
        spawn(tasks, sync_every(interval, Arc::clone(&log.queue), clock.clone()));
    }
    let link = format!("log {}", directory.root().display());
    Engine {
        pubsub: Arc::new(FilePubSub { local: pubsub, queue: Arc::clone(&log.queue), link }),
        log: Arc::new(FileLog::new(log, schedule, groups)),
        store: Arc::new(FileStore {
            directory,
            queue: state_queue,
            members: MemberSets::new(clock.clone()),
            clock: clock.clone(),
        }),
        examine: nothing_to_examine(),
        name: "file",
        is_durable: true,
        is_shared: false,
        tasks: tasks.clone(),
    }
}

/// Runs a task until the engine stops.
fn spawn(tasks: &Tasks, task: impl Future<Output = ()> + Send + 'static) {
    let stop = tasks.stopping().clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(task).await;
    });
}

/// Starts the two threads that write. They end when their queues are closed: by a stop, or with the handles.
fn start_writers(
    log: &LogStreams,
    state_queue: &Arc<Queue<StateJob>>,
    pubsub: &LocalPubSub,
    fsync: Fsync,
    tasks: &Tasks,
) {
    let closing = Arc::new(Closing(Arc::clone(&log.directory)));
    let writer = Writer::new(
        Arc::clone(&log.directory),
        Arc::clone(&log.streams),
        pubsub.clone(),
        log.clock.clone(),
        fsync,
    );
    let (queue, also_closing) = (CloseOnDrop(Arc::clone(&log.queue)), Arc::clone(&closing));
    tasks.spawn_blocking(move || {
        writer.run(&queue.0);
        drop((queue, also_closing));
    });
    let (directory, clock, pubsub) = (Arc::clone(&log.directory), log.clock.clone(), pubsub.clone());
    let queue = CloseOnDrop(Arc::clone(state_queue));
    tasks.spawn_blocking(move || {
        state_writer::run(&directory, &queue.0, &clock, &pubsub);
        drop((queue, closing));
    });
    let (stop, log_queue, state_queue) =
        (tasks.stopping().clone(), Arc::clone(&log.queue), Arc::clone(state_queue));
    tasks.spawn(async move {
        stop.cancelled().await;
        log_queue.close();
        state_queue.close();
    });
}

async fn sync_every(interval: Duration, queue: Arc<Queue<Job>>, clock: Clock) {
    loop {
        clock.sleep(interval).await;
        if !queue.push(Job::Sync) {
            return;
        }
    }
}

/// Closes a queue when its thread ends, also by a panic: nobody waits for a thread that is gone.
struct CloseOnDrop<J>(Arc<Queue<J>>);

impl<J> Drop for CloseOnDrop<J> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Closes the directory when the last writer has ended.
struct Closing(Arc<Directory>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}
