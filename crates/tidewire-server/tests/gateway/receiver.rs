//! An endpoint that webhooks are sent to: it keeps what it gets and answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tidewire::clock::Stopwatch;
use tidewire::tasks::Tasks;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// A request that an endpoint got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    pub(crate) after: Duration,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A running endpoint; it ends when it is dropped.
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    answers: Arc<Mutex<VecDeque<&'static str>>>,
    got: mpsc::Receiver<Got>,
    tasks: Tasks,
}

/// Says nothing, and keeps the connection.
pub(crate) const SILENCE: &str = "";

impl Receiver {
    /// An endpoint that gives these answers, heads without their end, and then `200 OK`.
    pub(crate) async fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<_>>()));
        let (sender, got) = mpsc::channel(100);
        let (tasks, queued) = (Tasks::new(), answers.clone());
        let serve = async move {
            let watch = Stopwatch::start();
            // Connections are held for as long as the endpoint lives.
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let Some(got) = read(&mut stream, &watch).await else { continue };
                let answer = queued.lock().pop_front().unwrap_or("200 OK");
                if answer != SILENCE {
                    let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
                held.push(stream);
                if sender.send(got).await.is_err() {
                    return;
                }
            }
        };
        let stopping = tasks.stopping().clone();
        tasks.spawn(async move { stopping.run_until_cancelled(serve).await.unwrap_or_default() });
        Self { addr, answers, got, tasks }
    }

    pub(crate) fn answer(&self, answers: &[&'static str]) {
        *self.answers.lock() = answers.iter().copied().collect();
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Got {
        timeout(DEADLINE, self.got.recv()).await.expect("no request in time").unwrap()
    }

    /// Whether a request is there that was not looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.got.is_empty()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

async fn read(stream: &mut BufReader<TcpStream>, watch: &Stopwatch) -> Option<Got> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let (first, headers) = lines.split_first()?;
    let headers: BTreeMap<String, String> = headers
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    Some(Got { path, headers, body: String::from_utf8(body).ok()?, after: watch.elapsed() })
}
