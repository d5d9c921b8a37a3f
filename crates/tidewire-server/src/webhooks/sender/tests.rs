use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig, crypto};
use tidewire::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{DisableAfter, Secret, WebhookRetries, WebhookStart};

/// A sender to an endpoint of this machine that trusts whom `roots` hold.
fn sender(url: String, roots: RootCertStore) -> Sender {
    let config = WebhookConfig {
        tenant: "shop".into(),
        channel: "orders".into(),
        name: "billing".into(),
        start: WebhookStart::Latest,
        url,
        secrets: vec![Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        body: WebhookBody::Standard,
        partitions: 0,
        concurrency: 1,
        timeout: Duration::from_secs(10),
        retries: WebhookRetries::default(),
        disable_after: DisableAfter::default(),
        allow_private: true,
    };
    // Made as for http, so that no root of this machine is asked for.
    let plain = WebhookConfig { url: "http://localhost".into(), ..config.clone() };
    let sender = Sender::new(&plain, Clock::system()).unwrap();
    Sender { remote: Remote::with_roots(&config.url, roots), ..sender }
}

/// An authority, and a certificate of it for `localhost`.
fn authority() -> (RootCertStore, ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private).unwrap();
    (roots, config)
}

#[tokio::test]
async fn an_endpoint_is_spoken_to_over_tls_if_its_certificate_holds() {
    let (roots, config) = authority();
    let (others, _) = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let tasks = Tasks::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = vec![0; 4];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(head, b"POST");
            stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    });
    let channel = ChannelPath::new("test", "shop", "orders").unwrap();
    let send = |host: &str, roots: &RootCertStore| {
        let (sender, channel) =
            (sender(format!("https://{host}:{port}/hook"), roots.clone()), channel.clone());
        async move { sender.send(&Event::new("a", "1"), &channel).await }
    };
    assert_eq!(send("localhost", &roots).await, Answer::Accepted(StatusCode::ACCEPTED));
    for (host, roots) in [("localhost", &others), ("127.0.0.1", &roots)] {
        let Answer::Failed(why) = send(host, roots).await else { panic!("{host} was believed") };
        assert!(why.starts_with("TLS failed: "), "{host}: {why}");
    }
}
