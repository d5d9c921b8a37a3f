//! The worker processes of a schedule: started, killed, stopped, and started again when they have ended.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use super::notes::{Note, Notes, Sort};
use super::worker::Orders;

const POLL: Duration = Duration::from_millis(5);

/// Where a worker runs, one process after the other.
struct Berth {
    url: String,
    running: Mutex<Option<Running>>,
    /// It has done all that there is to do.
    is_done: AtomicBool,
    /// Nobody is started here for now.
    is_held: AtomicBool,
}

struct Running {
    process: u32,
    child: Child,
}

struct Shared {
    berths: Vec<Berth>,
    orders: Orders,
    notes: Arc<Notes>,
    /// Workers publish too.
    is_publishing: bool,
    next_process: AtomicU32,
    is_draining: AtomicBool,
    is_over: AtomicBool,
}

/// The workers. Dropping it kills them.
pub(crate) struct Crew {
    shared: Arc<Shared>,
    keepers: Vec<std::thread::JoinHandle<Result<()>>>,
}

impl Crew {
    /// Starts a worker for each URL; `orders` are those of the first.
    pub(crate) fn start(urls: &[String], orders: Orders, notes: Arc<Notes>) -> Self {
        let berths = urls.iter().map(|url| Berth {
            url: url.clone(),
            running: Mutex::default(),
            is_done: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
        });
        let shared = Arc::new(Shared {
            berths: berths.collect(),
            is_publishing: orders.publish_from.is_some(),
            next_process: AtomicU32::new(orders.process),
            orders,
            notes,
            is_draining: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let keepers = (0..urls.len()).map(|place| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.keep(place))
        });
        Self { keepers: keepers.collect(), shared }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shared.berths.len()
    }

    /// Kills the worker at a place; another one is started there after `pause`.
    pub(crate) fn kill(&self, place: usize, what: &str, pause: Duration) {
        let berth = &self.shared.berths[place];
        berth.is_held.store(true, Ordering::Relaxed);
        if let Some(running) = &mut *berth.running.lock() {
            self.shared.notes.add(&Note::Fault { what: what.to_owned(), process: Some(running.process) });
            // It may have ended by itself just now.
            drop(running.child.kill());
        }
        std::thread::sleep(pause); // tidy: a fault lasts for a time
        berth.is_held.store(false, Ordering::Relaxed);
    }

    /// Stops the worker at a place where it stands, and lets it go on after `pause`.
    pub(crate) fn pause(&self, place: usize, pause: Duration) -> Result<()> {
        let signal = |name: &str| -> Result<()> {
            let running = self.shared.berths[place].running.lock();
            let Some(running) = &*running else { return Ok(()) };
            if name == "STOP" {
                let what = "SIGSTOP of a worker".to_owned();
                self.shared.notes.add(&Note::Fault { what, process: Some(running.process) });
            }
            let status =
                Command::new("kill").args([&format!("-{name}"), &running.child.id().to_string()]).status()?;
            if !status.success() {
                bail!("kill -{name}: {status}");
            }
            Ok(())
        };
        signal("STOP")?;
        std::thread::sleep(pause); // tidy: a fault lasts for a time
        signal("CONT")
    }

    /// Has the workers end when all is handled.
    pub(crate) fn drain(&self) {
        self.shared.is_draining.store(true, Ordering::Relaxed);
        for berth in &self.shared.berths {
            if let Some(running) = &mut *berth.running.lock() {
                tell_to_drain(&mut running.child);
            }
        }
    }

    /// Whether all have ended as they should.
    pub(crate) fn is_done(&self) -> bool {
        self.shared.berths.iter().all(|berth| berth.is_done.load(Ordering::Relaxed))
    }

    /// Whether one could not be kept running.
    pub(crate) fn failed(&self) -> bool {
        let mut berths = self.shared.berths.iter().zip(&self.keepers);
        berths.any(|(berth, keeper)| keeper.is_finished() && !berth.is_done.load(Ordering::Relaxed))
    }

    /// Kills those that are left, and says what went wrong.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for keeper in self.keepers.drain(..) {
            keeper.join().ok().context("a keeper panicked")??;
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("a worker could not be kept running: {error:#}");
        }
    }
}

impl Shared {
    /// Keeps a worker running at a place.
    fn keep(&self, place: usize) -> Result<()> {
        let berth = &self.berths[place];
        while !self.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(POLL); // tidy: processes are looked at
            let mut running = berth.running.lock();
            let Some(current) = &mut *running else {
                if !berth.is_held.load(Ordering::Relaxed) {
                    *running = Some(self.start(berth)?);
                }
                continue;
            };
            let Some(status) = current.child.try_wait()? else { continue };
            self.notes.add(&Note::Ended { process: current.process });
            *running = None;
            match status.code() {
                Some(0) => {
                    berth.is_done.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                // Killed, or by an event that ends processes.
                None => {}
                Some(_) => bail!("a worker ended by itself: {status}"),
            }
        }
        if let Some(running) = &mut *berth.running.lock() {
            drop(running.child.kill());
            running.child.wait()?;
        }
        Ok(())
    }

    fn start(&self, berth: &Berth) -> Result<Running> {
        let process = self.next_process.fetch_add(1, Ordering::Relaxed);
        let publish_from = if self.is_publishing { Some(self.next_number()?) } else { None };
        let orders = Orders { url: berth.url.clone(), process, publish_from, ..self.orders.clone() };
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(orders.to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("a worker starts")?;
        if self.is_draining.load(Ordering::Relaxed) {
            tell_to_drain(&mut child);
        }
        Ok(Running { process, child })
    }

    /// What workers print when they fail.
    fn log(&self) -> PathBuf {
        Path::new(&self.orders.notes).with_extension("log")
    }

    /// After all that is known to be published.
    fn next_number(&self) -> Result<u64> {
        let published =
            Notes::read(Path::new(&self.orders.notes))?.into_iter().filter_map(|note| match note {
                Note::Published { sort: Sort::Event, number, .. } => Some(number),
                _ => None,
            });
        Ok(published.max().unwrap_or(0) + 1)
    }
}

fn tell_to_drain(child: &mut Child) {
    if let Some(orders) = &mut child.stdin {
        // It may have ended.
        drop(orders.write_all(b"drain\n"));
    }
}
