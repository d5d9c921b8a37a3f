//! All that the server speaks, over TLS, with a certificate that changes while it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto, version};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidewire_server::config::{DEV_API_KEY, TlsConfig};
use tidewire_server::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Client, Reply, dev, request_over, start};

/// Far above what any wait takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// An authority of a test, and the files of the server.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, folder: tempfile::tempdir().unwrap() }
    }

    fn files(&self) -> TlsConfig {
        let file = |name: &str| self.folder.path().join(name);
        TlsConfig { cert: file("server.pem"), key: file("server.key") }
    }

    /// Makes a new certificate of `algorithm` and puts it where the server looks for it.
    fn write_with(&self, algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let TlsConfig { cert, key: key_file } = self.files();
        replace(&key_file, &key.serialize_pem());
        replace(&cert, &(certificate.pem() + &self.issuer.pem()));
        certificate.der().clone()
    }

    fn write(&self) -> CertificateDer<'static> {
        self.write_with(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn config(&self) -> Config {
        with_files(self.files())
    }

    /// A connection to the server, encrypted; as whatever made it fail.
    async fn try_connect(
        &self,
        server: &Server,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(server.addr()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        timeout(DEADLINE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }

    async fn connect(&self, server: &Server) -> TlsStream<TcpStream> {
        self.try_connect(server, rustls::DEFAULT_VERSIONS, &["http/1.1"]).await.unwrap()
    }

    async fn client(&self, server: &Server) -> Client {
        Client::open_over(Box::new(self.connect(server).await), server, &[]).await.unwrap()
    }

    async fn api(&self, server: &Server, method: &str, body: Value) -> Value {
        let headers = [("X-API-Key", DEV_API_KEY)];
        let path = format!("/api/{method}");
        let stream = Box::new(self.connect(server).await);
        let Reply { status, body, .. } =
            request_over(stream, "POST", &path, &headers, &body.to_string()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn with_files(files: TlsConfig) -> Config {
    let mut config = dev();
    config.tls = Some(files);
    config
}

/// Puts a whole file in the place of another, as whoever renews certificates should.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn each_kind_of_key_and_both_versions_are_spoken() {
    let authority = Authority::new();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let certificate = authority.write_with(algorithm);
        let server = start(authority.config()).await;
        assert_eq!(server.url(), format!("https://{}", server.addr()));
        for version in [&version::TLS12, &version::TLS13] {
            let stream = authority.try_connect(&server, &[version], &["h2", "http/1.1"]).await.unwrap();
            assert_eq!(shown(&stream), certificate);
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(request_over(Box::new(stream), "GET", "/health", &[], "").await.status, 200);
        }
        assert!(authority.try_connect(&server, rustls::DEFAULT_VERSIONS, &["h2"]).await.is_err());
    }
}

#[tokio::test]
async fn a_websocket_carries_much_in_both_directions() {
    let authority = Authority::new();
    authority.write();
    let mut config = authority.config();
    config.limits.outbox_bytes_max = 64 * 1024 * 1024;
    let server = start(config).await;
    let mut subscriber = authority.client(&server).await;
    subscriber.call("connect", json!({})).await.unwrap();
    subscriber.subscribe("much", None).await.unwrap();
    let mut publisher = authority.client(&server).await;
    publisher.call("connect", json!({})).await.unwrap();
    // Far more than the kernel buffers between two ends hold, and nobody reads meanwhile.
    let data = |number: u64| json!(format!("{number}:{}", "x".repeat(60_000)));
    for number in 1..=400 {
        publisher.call("publish", json!({"channel": "much", "data": data(number)})).await.unwrap();
    }
    for number in 1..=400 {
        assert_eq!(subscriber.publication("much").await, (data(number), number));
    }
    // Many commands at once, which come in pieces that no read ends with.
    let command =
        |id: u64| json!({"id": id, "publish": {"channel": "many", "data": "y".repeat(700)}}).to_string();
    for first in (1_000..5_000).step_by(40) {
        let frame: Vec<_> = (first..first + 40).map(command).collect();
        publisher.send(frame.join("\n")).await;
    }
    for id in 1_000..5_000 {
        publisher.reply(id, "publish").await.unwrap();
    }
}

#[tokio::test]
async fn http_and_streams_of_it_are_spoken() {
    let authority = Authority::new();
    authority.write();
    let server = start(authority.config()).await;
    for (verb, path, body) in [
        (
            "POST",
            "/connection/sse",
            "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}",
        ),
        (
            "POST",
            "/connection/http_stream",
            "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}",
        ),
    ] {
        let mut stream = authority.connect(&server).await;
        let head =
            format!("{verb} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut heard = String::new();
        read_until(&mut stream, &mut heard, "\"id\":2,\"subscribe\"").await;
        authority.api(&server, "publish", json!({"channel": "news", "data": path})).await;
        read_until(&mut stream, &mut heard, &format!("\"data\":\"{path}\"")).await;
    }
}

async fn read_until(stream: &mut TlsStream<TcpStream>, heard: &mut String, part: &str) {
    while !heard.contains(part) {
        let mut buffer = [0; 4096];
        let length = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(length, 0, "{part} was not in {heard}");
        heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
}

#[tokio::test]
async fn new_connections_get_the_new_certificate_and_open_ones_go_on() {
    let authority = Authority::new();
    let old = authority.write();
    let server = start(authority.config()).await;
    let mut client = authority.client(&server).await;
    client.call("connect", json!({})).await.unwrap();
    client.subscribe("news", None).await.unwrap();
    assert_eq!(shown(&authority.connect(&server).await), old);
    let new = authority.write();
    let changed = async { while shown(&authority.connect(&server).await) != new {} };
    timeout(DEADLINE, changed).await.unwrap();
    authority.api(&server, "publish", json!({"channel": "news", "data": 1})).await;
    assert_eq!(client.publication("news").await, (json!(1), 1));
}

#[tokio::test]
async fn a_close_frame_and_a_goodbye_end_a_websocket() {
    let authority = Authority::new();
    authority.write();
    let server = start(authority.config()).await;
    let mut client = authority.client(&server).await;
    client.send("rubbish").await;
    assert_eq!(client.closed().await.0, 3501);
    // Without the goodbye of TLS the end would be an error.
    assert_eq!(client.closed().await.0, 1005);

    let mut client = authority.client(&server).await;
    client.call("connect", json!({})).await.unwrap();
    let (closed, outcome) = tokio::join!(client.closed(), server.close(Duration::from_secs(10)));
    assert_eq!(closed, (3001, "shutdown".into()));
    outcome.unwrap();
}

#[tokio::test]
async fn who_does_not_finish_a_handshake_is_closed() {
    let authority = Authority::new();
    authority.write();
    let mut config = authority.config();
    config.timing.handshake_within = Duration::from_millis(100);
    let server = start(config).await;
    for hello in [&b""[..], b"\x16\x03\x01\x02\x00", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        stream.write_all(hello).await.unwrap();
        let mut answer = Vec::new();
        // An alert, perhaps; nothing of HTTP.
        let _ended = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() < 10, "{answer:?}");
    }
    // Others did not wait for them.
    assert_eq!(
        authority.api(&server, "info", json!({})).await["result"]["nodes"][0]["num_clients"],
        json!(0)
    );
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_told_at_the_start() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write();
    other.write();
    let files = authority.files();
    for (cert, key, parts) in [
        (files.cert.clone(), other.files().key, ["does not belong to the certificate", "server.key"]),
        (files.key.clone(), files.key.clone(), ["tls.cert: ", "holds no certificate in PEM"]),
        (files.cert.clone(), files.cert.clone(), ["tls.key: ", "holds no private key in PEM"]),
        (files.cert.clone(), files.key.with_extension("none"), ["tls.key: ", "cannot be read"]),
    ] {
        let error = Server::start(with_files(TlsConfig { cert, key })).await.err().unwrap().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
