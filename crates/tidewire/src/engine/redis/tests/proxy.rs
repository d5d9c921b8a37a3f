//! A link with faults: forwards to the server, and cuts where it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// Stands between an engine and its server.
pub(super) struct Proxy {
    pub(super) url: String,
    pub(super) cuts: Arc<AtomicU64>,
    faults: Arc<Faults>,
    _tasks: Tasks,
}

struct Faults {
    random: Mutex<fastrand::Rng>,
    /// A link is cut after at most so many bytes in either direction.
    bytes_max: AtomicU64,
    /// Links still to be cut.
    cuts_left: AtomicU64,
}

impl Proxy {
    /// Listens on a free port; the cuts follow from `seed`.
    pub(super) async fn open(server_url: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("bound"));
        let server =
            server_url.trim_start_matches("redis://").split('/').next().unwrap_or_default().to_owned();
        let (tasks, cuts) = (Tasks::new(), Arc::new(AtomicU64::new(0)));
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let faults = Arc::new(Faults { random, bytes_max: AtomicU64::new(0), cuts_left: AtomicU64::new(0) });
        let (of_links, counted, told) = (tasks.clone(), cuts.clone(), faults.clone());
        tasks.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&server).await else { return };
                let cut = CancellationToken::new();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                for (from, to) in [(near_in, far_out), (far_in, near_out)] {
                    let (faults, counted, cut) = (told.clone(), counted.clone(), cut.clone());
                    of_links.spawn(async move {
                        cut.run_until_cancelled(forward(from, to, &faults, &counted)).await;
                        cut.cancel();
                    });
                }
            }
        });
        Self { url, cuts, faults, _tasks: tasks }
    }

    /// Cuts the next `cuts` links, each after a random number of bytes, at most `bytes`.
    pub(super) fn cut(&self, cuts: u64, bytes: u64) {
        self.faults.bytes_max.store(bytes, Ordering::Relaxed);
        self.faults.cuts_left.store(cuts, Ordering::Relaxed);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, cuts: &AtomicU64) {
    let mut buffer = vec![0; 4_096];
    let mut left = None;
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if faults.cuts_left.load(Ordering::Relaxed) == 0 {
            left = None;
        } else if left.is_none() {
            left = Some(faults.random.lock().u64(1..=faults.bytes_max.load(Ordering::Relaxed)));
        }
        let passed = left.map_or(read, |left| read.min(usize::try_from(left).unwrap_or(read)));
        if to.write_all(&buffer[..passed]).await.is_err() {
            return;
        }
        if passed < read {
            cuts.fetch_add(1, Ordering::Relaxed);
            let left = faults.cuts_left.load(Ordering::Relaxed);
            // Two links may be cut for the last of the cuts.
            faults.cuts_left.store(left.saturating_sub(1), Ordering::Relaxed);
            return;
        }
        left = left.map(|left| left - passed as u64);
    }
}
