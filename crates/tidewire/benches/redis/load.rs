//! A load of concurrent tasks, beside what `redis-benchmark` reaches at the same depth in turns.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::server::{Server, Work, work_of};

pub(crate) const DATA_BYTES: usize = 128;

pub(crate) const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1_200);
/// Concurrent tasks, and the clients and depth of `redis-benchmark` that they are measured against.
pub(crate) const DEPTHS: [(usize, &str, &str); 3] = [(1, "1", "1"), (64, "1", "64"), (1_024, "50", "64")];

/// What a load took.
pub(crate) struct Taken {
    operations: u64,
    elapsed: Duration,
    /// Processor time of this process.
    cpu: Duration,
    server: Work,
}

impl Taken {
    pub(crate) fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of this process per operation.
    pub(crate) fn our_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations as f64
    }

    /// Microseconds of the servers per operation.
    pub(crate) fn server_micros(&self) -> f64 {
        self.server.cpu.as_secs_f64() * 1e6 / self.operations as f64
    }

    fn per_read(&self) -> f64 {
        self.operations as f64 / self.server.reads as f64
    }
}

pub(crate) fn print_head() {
    println!("{DATA_BYTES} bytes of data, median of {ROUNDS} rounds of {ROUND:?}, thousands per second");
    println!(
        "{:<22}{:>7}{:>10}{:>17}{:>7}{:>13}{:>15}{:>10}",
        "", "tasks", "rate", "redis-benchmark", "ratio", "our us/op", "server us/op", "op/read"
    );
}

/// What one task has done. Each has its own, so that counting costs nothing that a service would not pay.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    done: Arc<Padded>,
    stop: Arc<AtomicBool>,
}

/// Alone on its lines of the processors' caches.
#[derive(Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Meter {
    /// Whether the task is to do one more operation.
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// One operation is done.
    pub(crate) fn count(&self) {
        self.done.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Measures ours and the limit in turns and prints the medians; `operate` is one task.
pub(crate) async fn compare<F, Fut>(
    what: &str,
    depth: (usize, &str, &str),
    server: &Server,
    limit: &[&str],
    operate: F,
) where
    F: Fn(Meter) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (tasks, clients, pipeline) = depth;
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(tokio::task::block_in_place(|| server.limit(clients, pipeline, limit)));
        ours.push(round(tasks, std::slice::from_ref(server), &operate).await);
    }
    let (rate, limit) = (median_of(&ours, Taken::rate), median(limits));
    println!(
        "{what:<22}{tasks:>7}{:>10.1}{:>17.1}{:>7.2}{:>13.2}{:>15.2}{:>10.1}",
        rate / 1e3,
        limit / 1e3,
        rate / limit,
        median_of(&ours, Taken::our_micros),
        median_of(&ours, Taken::server_micros),
        median_of(&ours, Taken::per_read),
    );
}

/// So many tasks at once, from when all run.
pub(crate) async fn round<F, Fut>(tasks: usize, servers: &[Server], operate: &F) -> Taken
where
    F: Fn(Meter) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let stop = Arc::new(AtomicBool::new(false));
    let meters: Vec<_> = (0..tasks).map(|_| Meter { stop: stop.clone(), ..Meter::default() }).collect();
    let running: Vec<_> = meters.iter().map(|meter| tokio::spawn(operate(meter.clone()))).collect();
    let done = || meters.iter().map(|meter| meter.done.0.load(Ordering::Relaxed)).sum::<u64>();
    let (work, cpu) = (work_of(servers), cpu());
    let (start, before) = (Instant::now(), done());
    tokio::time::sleep(ROUND).await; // tidy: a rate is measured over time
    let (operations, elapsed) = (done() - before, start.elapsed());
    let (cpu, server) = (self::cpu().saturating_sub(cpu), work_of(servers).since(&work));
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await.expect("no operation failed");
    }
    Taken { operations, elapsed, cpu, server }
}

/// Processor time of the threads of this process so far, to the nanosecond.
pub(crate) fn cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("Linux lists the threads of a process");
    // A thread that ends in between counts as nothing.
    let times = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok());
    let nanos = times.filter_map(|times| times.split(' ').next()?.parse::<u64>().ok());
    Duration::from_nanos(nanos.sum())
}

pub(crate) fn median_of(rounds: &[Taken], value: impl Fn(&Taken) -> f64) -> f64 {
    median(rounds.iter().map(value).collect())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
