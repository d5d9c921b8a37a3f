use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::tokens::signing::Signer;

const TTL: Duration = Duration::from_secs(600);

/// A server of sets, which answers what it was last told to.
struct Site {
    url: String,
    answer: Arc<Mutex<String>>,
    /// Requests that it got.
    asked: watch::Receiver<usize>,
    /// Answers are held back while it is locked.
    gate: Arc<tokio::sync::Mutex<()>>,
    tasks: Tasks,
    clock: Clock,
}

impl Site {
    async fn with(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json?v=1", listener.local_addr().unwrap());
        let (count, asked) = watch::channel(0);
        let clock = Clock::virtual_at(Timestamp::from_millis(1_000_000));
        let site =
            Self { url, answer: Arc::default(), asked, gate: Arc::default(), tasks: Tasks::new(), clock };
        site.has(keys);
        let (answer, gate) = (site.answer.clone(), site.gate.clone());
        site.tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                assert!(request.starts_with(b"GET /jwks.json?v=1 HTTP/1.1\r\n"), "{request:?}");
                count.send_modify(|count| *count += 1);
                drop(gate.lock().await);
                let answer = answer.lock().clone();
                // Who has read enough goes away.
                let _written = stream.write_all(answer.as_bytes()).await.is_ok();
            }
        });
        site
    }

    fn says(&self, status: &str, body: &str) {
        *self.answer.lock() = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }

    fn has(&self, keys: &[Value]) {
        self.says("200 OK", &json!({"keys": keys}).to_string());
    }

    fn set(&self) -> Arc<KeySet> {
        Arc::new(KeySet::new(&self.url, TTL, true, &self.tasks, &self.clock).unwrap())
    }

    fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    async fn was_asked(&self, times: usize) {
        let mut asked = self.asked.clone();
        assert!(asked.wait_for(|asked| *asked >= times).await.is_ok());
    }
}

fn header(id: Option<&str>) -> Header {
    Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::EdDSA) }
}

fn ids(keys: &[Arc<Key>]) -> Vec<&str> {
    keys.iter().filter_map(|key| key.id()).collect()
}

/// Waits for a fetch that goes on in the background.
async fn settled(set: &Arc<KeySet>) {
    let mut ended = set.ended.subscribe();
    if set.known.lock().is_fetching {
        ended.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_is_not_known_is_asked_for_but_not_again_and_again() {
    let [one, two] = [Signer::ed25519().jwk("one"), Signer::ed25519().jwk("two")];
    let site = Site::with(std::slice::from_ref(&one)).await;
    let set = site.set();
    assert!(set.known(&header(Some("one"))).is_none(), "nothing is fetched before it is needed");
    assert_eq!(ids(&set.look_again(&header(Some("one"))).await.unwrap()), ["one"]);
    assert_eq!(ids(&set.known(&header(Some("one"))).unwrap()), ["one"]);
    site.has(&[one, two]);
    for _ in 0..3 {
        assert!(set.known(&header(Some("two"))).is_none());
        let problem = set.look_again(&header(Some("two"))).await.unwrap_err();
        assert!(problem.contains("less than 10s ago"), "{problem}");
    }
    assert_eq!(site.asked(), 1);
    site.clock.advance(FETCH_EVERY);
    assert_eq!(ids(&set.look_again(&header(Some("two"))).await.unwrap()), ["two"]);
    site.clock.advance(FETCH_EVERY);
    assert!(set.look_again(&header(Some("three"))).await.unwrap().is_empty(), "it was asked, and has none");
    assert_eq!(site.asked(), 3);
}

#[tokio::test]
async fn a_key_that_was_taken_out_is_forgotten_when_the_set_is_old() {
    let [old, new] = [Signer::ed25519().jwk("old"), Signer::ed25519().jwk("new")];
    let site = Site::with(&[old]).await;
    let set = site.set();
    set.look_again(&header(Some("old"))).await.unwrap();
    site.has(&[new]);
    site.clock.advance(TTL);
    assert!(set.known(&header(Some("old"))).is_none(), "it is as if not known");
    assert!(set.look_again(&header(Some("old"))).await.unwrap().is_empty());
    assert_eq!(ids(&set.known(&header(Some("new"))).unwrap()), ["new"]);
}

#[tokio::test]
async fn a_set_is_fetched_before_it_is_old_while_tokens_come() {
    let [old, new] = [Signer::ed25519().jwk("old"), Signer::ed25519().jwk("new")];
    let site = Site::with(std::slice::from_ref(&old)).await;
    let set = site.set();
    set.look_again(&header(Some("old"))).await.unwrap();
    site.has(&[old, new]);
    site.clock.advance(TTL / 2);
    assert!(set.known(&header(Some("new"))).is_none());
    assert_eq!(ids(&set.known(&header(Some("old"))).unwrap()), ["old"], "nobody waits for it");
    settled(&set).await;
    assert_eq!(ids(&set.known(&header(Some("new"))).unwrap()), ["new"]);
    assert_eq!(site.asked(), 2);
}

#[tokio::test]
async fn old_keys_go_on_while_the_server_is_down_or_talks_nonsense() {
    let site = Site::with(&[Signer::ed25519().jwk("one")]).await;
    let set = site.set();
    set.look_again(&header(Some("one"))).await.unwrap();
    let huge = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(SET_BYTES_MAX));
    let crowd = json!({"keys": vec![json!({"kty": "AKP"}); key::KEYS_MAX + 1]}).to_string();
    for (status, body, problem) in [
        ("500 Internal Server Error", "", "answered 500"),
        ("302 Found\r\nLocation: /other", "", "answered 302"),
        ("200 OK", "<html>", "no JSON Web Key Set"),
        ("200 OK", &huge, "larger than 262144 bytes"),
        ("200 OK", &crowd, "has 65 keys"),
        ("200 OK", r#"{"keys": [{"kty": "RSA", "n": "AA", "e": "AQAB"}]}"#, "is no RSA key"),
        (&format!("200 OK\r\nX: {}", "x".repeat(20_000)), "", "gave no answer"),
    ] {
        site.says(status, body);
        site.clock.advance(TTL);
        let unknown = set.look_again(&header(Some("two"))).await.unwrap_err();
        assert!(unknown.contains(problem) && unknown.contains(&set.url), "{unknown}");
        assert_eq!(ids(&set.look_again(&header(Some("one"))).await.unwrap()), ["one"], "{problem}");
    }
    site.says("200 OK\r\nTransfer-Encoding: chunked", "");
    *site.answer.lock() = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\"".into();
    site.clock.advance(TTL);
    assert!(set.look_again(&header(Some("two"))).await.unwrap_err().contains("broke off"));
    site.has(&[Signer::ed25519().jwk("two")]);
    site.clock.advance(TTL);
    assert!(set.look_again(&header(Some("one"))).await.unwrap().is_empty(), "it is back, and has it no more");
}

#[tokio::test]
async fn a_set_that_was_never_fetched_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let (tasks, clock) = (Tasks::new(), Clock::system());
    let closed = Arc::new(KeySet::new(&url, TTL, true, &tasks, &clock).unwrap());
    assert!(closed.look_again(&header(None)).await.unwrap_err().contains("cannot be connected to"));
    let private = Arc::new(KeySet::new(&url, TTL, false, &tasks, &clock).unwrap());
    assert!(private.look_again(&header(None)).await.unwrap_err().contains("at a private address"));
}

#[tokio::test]
async fn many_who_wait_ask_once_and_one_who_goes_away_stops_nothing() {
    let site = Site::with(&[Signer::ed25519().jwk("one")]).await;
    let set = site.set();
    let gate = site.gate.clone().lock_owned().await;
    let one = header(Some("one"));
    let asked = site.was_asked(1);
    tokio::select! {
        biased;
        _ = set.look_again(&one) => panic!("it waits for the answer"),
        () = asked => {}
    }
    let others = async { tokio::join!(set.look_again(&one), set.look_again(&one), set.look_again(&one)) };
    let (others, ()) = tokio::join!(others, async { drop(gate) });
    for found in [others.0, others.1, others.2] {
        assert_eq!(ids(&found.unwrap()), ["one"]);
    }
    assert_eq!(site.asked(), 1);
}

#[tokio::test]
async fn a_token_that_names_no_key_is_for_the_only_one_that_fits() {
    let site = Site::with(&[Signer::ed25519().jwk("one"), Signer::rsa().jwk("rsa")]).await;
    let set = site.set();
    assert_eq!(ids(&set.look_again(&header(None)).await.unwrap()), ["one"]);
    site.has(&[Signer::ed25519().jwk("one"), Signer::ed25519().jwk("two")]);
    site.clock.advance(TTL);
    assert!(set.look_again(&header(None)).await.unwrap().is_empty(), "two fit");
    assert_eq!(set.known(&header(None)).map(|keys| keys.len()), Some(0), "and another fetch would not help");
}

#[tokio::test]
async fn a_fetch_ends_with_the_server() {
    let site = Site::with(&[]).await;
    let set = site.set();
    let _gate = site.gate.clone().lock_owned().await;
    let one = header(Some("one"));
    let stop = async {
        site.was_asked(1).await;
        site.tasks.stopping().cancel();
    };
    let (found, ()) = tokio::join!(set.look_again(&one), stop);
    assert!(found.is_err());
}
