use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::FutureExt as _;
use tidewire::tasks::Tasks;
use tidewire_protocol::Encoding;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::HookBreaker;
use crate::hooks::ClientHeaders;

const OPEN_FOR: Duration = Duration::from_secs(5);

/// What a backend does with the requests of its connections.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    /// Answers, and keeps the connection.
    Answer,
    /// Answers, and closes the connection without saying so before.
    AnswerAndClose,
    /// Reads the request, and closes the connection.
    Close,
    /// Nothing.
    Nothing,
}

/// A backend on one address, and how many requests it has read.
struct App {
    endpoint: Endpoint,
    clock: Clock,
    does: Arc<Mutex<Does>>,
    requests: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Drop for App {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl App {
    async fn start(does: Does, config: impl FnOnce(HookEndpoint) -> HookEndpoint) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{{hook}}", listener.local_addr().unwrap());
        let clock = Clock::virtual_at(Timestamp::from_millis(1_000));
        let config = config(HookEndpoint {
            allow_private: true,
            timeout: Duration::from_secs(10),
            breaker: HookBreaker { failures: 3, open_for: OPEN_FOR },
            ..HookEndpoint::at(url)
        });
        let endpoint = Endpoint::new("shop", "app", &config, &clock, &Metrics::default()).unwrap();
        let (does, requests) = (Arc::new(Mutex::new(does)), Arc::new(AtomicUsize::new(0)));
        let tasks = Tasks::new();
        let (stopping, told, counted, all) =
            (tasks.stopping().clone(), does.clone(), requests.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Some(Ok((stream, _))) = stopping.run_until_cancelled(listener.accept()).await {
                let serve = serve(stream, told.clone(), counted.clone());
                let stopping = stopping.clone();
                all.spawn(
                    async move { stopping.run_until_cancelled(serve).await.flatten().unwrap_or_default() },
                );
            }
        });
        Self { endpoint, clock, does, requests, tasks }
    }

    async fn ask(&self) -> Result<(), Denied> {
        let headers = ClientHeaders::default();
        let asker = Asker {
            client: "c",
            transport: "websocket",
            protocol: Encoding::Json,
            user: Some("ann"),
            meta: None,
            headers: &headers,
        };
        self.endpoint.ask(Hook::Rpc, &asker, &Question::default(), |_, _| Ok(())).await
    }

    fn request_count(&self) -> usize {
        self.requests.load(SeqCst)
    }

    fn state(&self) -> BreakerState {
        self.endpoint.standing().2
    }

    fn now_does(&self, does: Does) {
        *self.does.lock() = does;
    }
}

async fn serve(stream: TcpStream, does: Arc<Mutex<Does>>, requests: Arc<AtomicUsize>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
                bytes = length.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; bytes]).await.ok()?;
        requests.fetch_add(1, SeqCst);
        let now_does = *does.lock();
        match now_does {
            Does::Answer | Does::AnswerAndClose => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}")
                    .await
                    .ok()?;
            }
            Does::Close => {}
            Does::Nothing => std::future::pending().await,
        }
        if now_does != Does::Answer {
            return Some(());
        }
    }
}

#[tokio::test]
async fn a_breaker_opens_after_failures_in_a_row_and_one_ask_tries_it_again() {
    let backend = App::start(Does::Close, |config| config).await;
    for _ in 0..2 {
        backend.ask().await.unwrap_err();
    }
    backend.now_does(Does::Answer);
    backend.ask().await.unwrap();
    backend.now_does(Does::Close);
    for _ in 0..3 {
        assert_eq!(backend.state(), BreakerState::Closed, "a success is between the failures");
        backend.ask().await.unwrap_err();
    }
    assert_eq!((backend.state(), backend.request_count()), (BreakerState::Open, 6));
    backend.ask().await.unwrap_err();
    backend.clock.advance(OPEN_FOR - Duration::from_millis(1));
    backend.ask().await.unwrap_err();
    assert_eq!(backend.request_count(), 6, "nobody was asked");

    // One is tried, and fails.
    backend.clock.advance(Duration::from_millis(1));
    backend.ask().await.unwrap_err();
    backend.ask().await.unwrap_err();
    assert_eq!((backend.state(), backend.request_count()), (BreakerState::Open, 7));
    // One is tried, and given up by who asked: the next one may try.
    backend.clock.advance(OPEN_FOR);
    backend.now_does(Does::Nothing);
    let mut trial = Box::pin(backend.ask());
    assert!(trial.as_mut().now_or_never().is_none());
    assert_eq!(backend.state(), BreakerState::HalfOpen);
    backend.ask().await.unwrap_err();
    drop(trial);
    backend.now_does(Does::Answer);
    backend.ask().await.unwrap();
    assert_eq!(backend.state(), BreakerState::Closed);
}

#[tokio::test]
async fn an_ask_that_takes_too_long_is_a_failure() {
    let timeout = Duration::from_millis(50);
    let backend = App::start(Does::Nothing, |config| HookEndpoint { timeout, ..config }).await;
    for _ in 0..3 {
        backend.ask().await.unwrap_err();
    }
    assert_eq!(backend.state(), BreakerState::Open);
}

#[tokio::test]
async fn waiting_for_a_turn_is_part_of_the_time_and_says_nothing_of_the_backend() {
    let config = |config| HookEndpoint { asks_max: 1, timeout: Duration::from_millis(200), ..config };
    let backend = App::start(Does::Nothing, config).await;
    let asks = futures_util::future::join_all((0..5).map(|_| backend.ask())).await;
    assert!(asks.iter().all(Result::is_err));
    assert!(backend.request_count() <= 2, "those that waited were not asked for any more");
    assert_eq!(backend.state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_fails_no_ask() {
    let backend = App::start(Does::AnswerAndClose, |config| config).await;
    for _ in 0..50 {
        backend.ask().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(backend.request_count(), 50);
}

#[tokio::test]
async fn what_may_have_been_sent_is_not_sent_again() {
    let backend = App::start(Does::Answer, |config| config).await;
    backend.ask().await.unwrap();
    backend.now_does(Does::Close);
    // Over the connection that was kept.
    backend.ask().await.unwrap_err();
    assert_eq!(backend.request_count(), 2);
}

#[tokio::test]
async fn an_answer_over_the_bound_is_none() {
    let backend = App::start(Does::Answer, |config| HookEndpoint { answer_bytes_max: 12, ..config }).await;
    backend.ask().await.unwrap_err();
    let backend = App::start(Does::Answer, |config| HookEndpoint { answer_bytes_max: 13, ..config }).await;
    backend.ask().await.unwrap();
}
