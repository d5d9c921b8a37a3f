//! Links made of two pipes, and a server at their other end that says what the test wants, under a virtual clock.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::engine::redis::link::{Dial, DialError, Link, Server};
use crate::engine::redis::resp::{Decoder, Value};

/// Small, so that writes and reads are cut in the middle of commands and replies.
const PIPE_BYTES: usize = 97;

/// A link, and the server's end of it.
pub(in crate::engine::redis) fn pipe() -> (Link, Remote) {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let (reader, writer) = tokio::io::split(ours);
    let server = Server { version: "7.0.0".to_owned(), is_replica: false, is_sentinel: false };
    let link =
        Link { reader: Box::new(reader), writer: Box::new(writer), decoder: Decoder::default(), server };
    (link, Remote { stream: theirs, decoder: Decoder::default(), read: Vec::new() })
}

/// The server's end of a link. Dropping it cuts the link.
pub(in crate::engine::redis) struct Remote {
    stream: DuplexStream,
    decoder: Decoder,
    read: Vec<Value>,
}

impl Remote {
    /// The next command, its words with spaces between; none when the link was closed.
    pub(in crate::engine::redis) async fn command(&mut self) -> Option<String> {
        while self.read.is_empty() {
            if self.stream.read_buf(self.decoder.buffer()).await.ok()? == 0 {
                return None;
            }
            self.decoder.decode(&mut self.read).expect("what a client sends is RESP");
        }
        let words = self.read.remove(0).into_array().expect("a command is an array");
        let words = words.into_iter().map(|word| word.into_bytes().expect("of strings").to_vec());
        Some(String::from_utf8(words.collect::<Vec<_>>().join(&b' ')).expect("test commands are text"))
    }

    /// Sends bytes; false when nobody takes them any more.
    pub(in crate::engine::redis) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }
}

/// Dials whatever link the test hands out next.
pub(in crate::engine::redis) struct HandedOut(Mutex<mpsc::Receiver<Link>>);

impl HandedOut {
    pub(in crate::engine::redis) fn new() -> (mpsc::Sender<Link>, Self) {
        let (links, dialed) = mpsc::channel(64);
        (links, Self(Mutex::new(dialed)))
    }
}

impl Dial for HandedOut {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send + '_>> {
        Box::pin(async {
            match self.0.lock().await.recv().await {
                Some(link) => Ok(link),
                None => std::future::pending().await,
            }
        })
    }
}

pub(in crate::engine::redis) fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(test)
}

pub(in crate::engine::redis) fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}
