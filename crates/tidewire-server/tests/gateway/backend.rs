//! A backend that hooks ask: it keeps what it is asked and answers as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidewire::tasks::Tasks;
use tidewire_server::Config;
use tidewire_server::config::{DEFAULT_TENANT, HookEndpoint, TenantConfig};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// What a backend was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) hook: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// What a backend says.
#[derive(Clone)]
pub(crate) enum Say {
    Json(Value),
    Text(&'static str),
    Status(u16),
    /// Nothing, and it keeps the connection.
    Nothing,
    /// The same JSON, as often as it is let go on.
    Held(Arc<Semaphore>, Value),
}

/// A running backend; it ends when it is dropped.
pub(crate) struct App {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Asked>,
    tasks: Tasks,
}

struct Shared {
    says: Mutex<BTreeMap<String, Say>>,
    asked: mpsc::Sender<Asked>,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
    links: AtomicUsize,
}

/// An ask that is being answered.
struct Answering(Arc<Shared>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, SeqCst);
    }
}

impl App {
    /// A backend that answers `{"result":{}}`, until it is told otherwise.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::channel(1_000);
        let shared = Arc::new(Shared {
            says: Mutex::default(),
            asked: sender,
            at_once: AtomicUsize::new(0),
            at_once_max: AtomicUsize::new(0),
            links: AtomicUsize::new(0),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let tasks = Tasks::new();
        let (stopping, counted, serving) = (tasks.stopping().clone(), shared.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Some(Ok((stream, _))) = stopping.run_until_cancelled(listener.accept()).await {
                counted.links.fetch_add(1, SeqCst);
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                let link = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
                let stopping = stopping.clone();
                serving.spawn(async move { drop(stopping.run_until_cancelled(link).await) });
            }
        });
        Self { addr, shared, asked, tasks }
    }

    /// Says this to a hook from now on.
    pub(crate) fn say(&self, hook: &str, say: Say) {
        self.shared.says.lock().insert(hook.to_owned(), say);
    }

    pub(crate) fn result(&self, hook: &str, result: Value) {
        self.say(hook, Say::Json(json!({"result": result})));
    }

    /// What it is asked next.
    pub(crate) async fn next(&mut self) -> Asked {
        timeout(DEADLINE, self.asked.recv()).await.expect("not asked in time").unwrap()
    }

    /// Whether it was asked something that was not looked at.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// The most asks that it had at the same time.
    pub(crate) fn at_once_max(&self) -> usize {
        self.shared.at_once_max.load(SeqCst)
    }

    /// The TCP connections that were made to it.
    pub(crate) fn link_count(&self) -> usize {
        self.shared.links.load(SeqCst)
    }

    /// Settings of an endpoint that leads here.
    pub(crate) fn endpoint(&self) -> HookEndpoint {
        HookEndpoint {
            timeout: Duration::from_secs(15),
            allow_private: true,
            ..HookEndpoint::at(format!("http://{}/hooks/{{hook}}", self.addr))
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

/// Settings in which `endpoint` is named `app`.
pub(crate) fn asking(mut config: Config, endpoint: HookEndpoint) -> Config {
    tenant(&mut config).hooks.endpoints.insert("app".into(), endpoint);
    config
}

/// The tenant whose settings tests change.
pub(crate) fn tenant(config: &mut Config) -> &mut TenantConfig {
    config.tenants.get_mut(DEFAULT_TENANT).unwrap()
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let hook = head.uri.path().trim_start_matches("/hooks/").to_owned();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let headers =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let say = shared.says.lock().get(&hook).cloned();
    let at_once = shared.at_once.fetch_add(1, SeqCst) + 1;
    let _answering = Answering(shared.clone());
    shared.at_once_max.fetch_max(at_once, SeqCst);
    let text = String::from_utf8(body.to_vec()).unwrap();
    shared.asked.send(Asked { hook, headers: headers.collect(), text }).await.unwrap();
    match say {
        None => json!({"result": {}}).to_string().into_response(),
        Some(Say::Json(json)) => json.to_string().into_response(),
        Some(Say::Text(text)) => text.into_response(),
        Some(Say::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Say::Nothing) => std::future::pending().await,
        Some(Say::Held(gate, json)) => {
            gate.acquire().await.unwrap().forget();
            json.to_string().into_response()
        }
    }
}
