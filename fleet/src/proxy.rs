//! A link with faults: stands before a server and forwards, and does worse when it is told to.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

/// What one read takes.
const CHUNK_BYTES: usize = 16 * 1024;

/// A direction, as seen from the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What clients send.
    Out,
    /// What clients receive.
    In,
}

/// Forwards connections to a server, and has their faults. Dropping it cuts them all.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    /// Links cut by [`Proxy::cut_next`].
    cuts: AtomicU64,
}

struct State {
    mode: Mode,
    /// The links that are open; forgotten as they end.
    links: Vec<Weak<Link>>,
    /// Links still to be cut, each after at most so many bytes in one direction.
    cuts_left: u64,
    cut_bytes_max: u64,
    /// After so many chunks in a direction nothing passes any more.
    hold_after: Option<(Way, u64)>,
    random: fastrand::Rng,
    is_closed: bool,
}

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Delay(Duration),
    Hold,
    Swallow(Way),
}

/// The two connections of a link.
struct Link {
    near: TcpStream,
    far: TcpStream,
    is_frozen: AtomicBool,
    is_reset: AtomicBool,
}

impl Link {
    /// Ends both in good order.
    fn end(&self) {
        if !self.is_reset.load(Ordering::Relaxed) {
            self.shut(Shutdown::Both);
        }
    }

    /// Has both threads let go of it, so that it is closed, and makes that a reset rather than an orderly end.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::Relaxed);
        for stream in [&self.near, &self.far] {
            // The other side may have closed it already.
            drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
        }
        // An orderly end would tell the client first; who waits to read is woken by this one too.
        self.shut(Shutdown::Read);
    }

    fn shut(&self, near: Shutdown) {
        // Either may be shut already.
        drop(self.near.shutdown(near));
        drop(self.far.shutdown(Shutdown::Both));
    }
}

impl Proxy {
    /// Listens on a free port for `server`; what is random follows from `seed`.
    ///
    /// # Errors
    /// If there is no port.
    pub fn open(server: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a proxy")?;
        let address = listener.local_addr()?;
        let state = State {
            mode: Mode::Pass,
            links: Vec::new(),
            cuts_left: 0,
            cut_bytes_max: 0,
            hold_after: None,
            random: fastrand::Rng::with_seed(seed),
            is_closed: false,
        };
        let shared = Arc::new(Shared {
            server,
            state: Mutex::new(state),
            changed: Condvar::new(),
            cuts: AtomicU64::new(0),
        });
        let of_accept = shared.clone();
        std::thread::spawn(move || of_accept.accept(&listener));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `redis://IP:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Forwards again. Links that have lost bytes are cut: TCP loses none in the middle.
    pub fn pass(&self) {
        self.shared.turn(Mode::Pass);
    }

    /// Forwards each chunk so much later.
    pub fn delay(&self, by: Duration) {
        self.shared.turn(Mode::Delay(by));
    }

    /// Half-open: accepts, reads, and forwards nothing until it passes again.
    pub fn hold(&self) {
        self.shared.turn(Mode::Hold);
    }

    /// Half-open from the chunk on that follows the next `chunks`, at least one, in one direction: between two commands, or
    /// between a command and its reply. Until it passes again.
    pub fn hold_after(&self, way: Way, chunks: u64) {
        self.shared.lock().hold_after = Some((way, chunks.max(1)));
    }

    /// Waits until it holds; false if it does not within this time.
    pub fn until_held(&self, within: Duration) -> bool {
        let is_passing = |state: &mut State| state.mode != Mode::Hold;
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), within, is_passing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Half-open for the links that are open now, until it passes again; new ones pass. What a link held arrives then,
    /// however long its client has given it up.
    pub fn freeze(&self) {
        self.shared.freeze(true);
    }

    /// Forwards one way only; what goes the other way is gone, as if the peer had died without a word.
    pub fn swallow(&self, way: Way) {
        self.shared.turn(Mode::Swallow(way));
    }

    /// Resets every link that is open now.
    pub fn cut(&self) {
        self.shared.reset_all();
    }

    /// The links that are open, as the server sees them.
    pub fn links(&self) -> Vec<SocketAddr> {
        let links: Vec<_> = self.shared.lock().links.iter().filter_map(Weak::upgrade).collect();
        links.iter().filter_map(|link| link.far.local_addr().ok()).collect()
    }

    /// Cuts the next `links` links, each after a random number of bytes, at most `bytes_max`, in one direction.
    pub fn cut_next(&self, links: u64, bytes_max: u64) {
        let mut state = self.shared.lock();
        (state.cuts_left, state.cut_bytes_max) = (links, bytes_max.max(1));
    }

    /// How many links [`Proxy::cut_next`] has cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl State {
    /// Counts a chunk; true if it is the last that passes.
    fn is_last(&mut self, way: Way) -> bool {
        let Some((counted, left)) = &mut self.hold_after else { return false };
        if *counted == way {
            *left -= 1;
        }
        let is_last = *left == 0;
        if is_last {
            self.hold_after = None;
        }
        is_last
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.reset_all();
        // Wakes the thread that accepts; it may have ended already.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, mode: Mode) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.mode, mode);
        state.hold_after = None;
        drop(state);
        self.freeze(false);
        if matches!(before, Mode::Swallow(_)) && before != mode {
            self.reset_all();
        }
        self.changed.notify_all();
    }

    fn freeze(&self, is_frozen: bool) {
        let state = self.lock();
        for link in state.links.iter().filter_map(Weak::upgrade) {
            link.is_frozen.store(is_frozen, Ordering::Relaxed);
        }
    }

    fn reset_all(&self) {
        let links = std::mem::take(&mut self.lock().links);
        links.iter().filter_map(Weak::upgrade).for_each(|link| link.reset());
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((near, _)) = listener.accept() {
            if self.lock().is_closed {
                return;
            }
            // A server that is down resets who dials the proxy.
            let Ok(far) = TcpStream::connect(self.server) else { continue };
            drop(near.set_nodelay(true));
            drop(far.set_nodelay(true));
            let link = Arc::new(Link {
                near,
                far,
                is_frozen: AtomicBool::new(false),
                is_reset: AtomicBool::new(false),
            });
            let mut state = self.lock();
            state.links.retain(|link| link.strong_count() > 0);
            state.links.push(Arc::downgrade(&link));
            drop(state);
            for way in [Way::Out, Way::In] {
                let (shared, link) = (self.clone(), link.clone());
                std::thread::spawn(move || {
                    // However it ends, both directions end with it.
                    drop(shared.forward(&link, way));
                    link.end();
                });
            }
        }
    }

    fn forward(&self, link: &Link, way: Way) -> io::Result<()> {
        let (mut from, mut to) = match way {
            Way::Out => (&link.near, &link.far),
            Way::In => (&link.far, &link.near),
        };
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut left = None;
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            let allowed = self.allowed(&mut left, read);
            if self.wait_to_pass(link, way) {
                to.write_all(buffer.get(..allowed).unwrap_or_default())?;
            }
            if allowed < read {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                link.reset();
                self.changed.notify_all();
                return Ok(());
            }
        }
    }

    /// How many of these bytes pass before the link is cut; `left` is what this direction of it has left.
    fn allowed(&self, left: &mut Option<u64>, read: usize) -> usize {
        let mut state = self.lock();
        if state.cuts_left == 0 {
            *left = None;
            return read;
        }
        let bytes_max = state.cut_bytes_max;
        let rest = left.get_or_insert_with(|| state.random.u64(1..=bytes_max));
        let allowed = read.min(usize::try_from(*rest).unwrap_or(read));
        *rest -= allowed as u64;
        if allowed < read {
            // Two links may be cut for the last of the cuts.
            state.cuts_left = state.cuts_left.saturating_sub(1);
        }
        allowed
    }

    /// Waits as the mode says; whether the bytes are to be forwarded then.
    fn wait_to_pass(&self, link: &Link, way: Way) -> bool {
        let mut state = self.lock();
        loop {
            match state.mode {
                _ if link.is_reset.load(Ordering::Relaxed) => return false,
                _ if link.is_frozen.load(Ordering::Relaxed) => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Mode::Pass => {
                    if state.is_last(way) {
                        // This chunk still passes.
                        state.mode = Mode::Hold;
                        self.changed.notify_all();
                    }
                    return true;
                }
                Mode::Swallow(swallowed) => return swallowed != way,
                Mode::Hold => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Mode::Delay(by) => {
                    drop(state);
                    std::thread::sleep(by);
                    return true;
                }
            }
        }
    }
}
