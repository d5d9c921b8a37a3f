use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::*;
use crate::gateway::serve::Sink;
use crate::gateway::websocket::sink::{SocketSink, Wire};
use crate::hub::outbox::{Carried, Carrier, Frame};
use crate::publication::Form;

/// Far above what any wait takes.
const DEADLINE: Duration = Duration::from_secs(20);
/// What the kernel is asked to buffer at each end, in bytes.
const KERNEL_BYTES: u32 = 4_096;
/// More than the kernel takes, and less than rustls does.
const BYTES: usize = 60_000;

async fn pair() -> (Secured, client::TlsStream<TcpStream>) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = server.unwrap().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();

    let listening = TcpSocket::new_v4().unwrap();
    listening.set_send_buffer_size(KERNEL_BYTES).unwrap();
    listening.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = listening.listen(1).unwrap();
    let connecting = TcpSocket::new_v4().unwrap();
    connecting.set_recv_buffer_size(KERNEL_BYTES).unwrap();
    let connected = connecting.connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(
        TlsAcceptor::from(Arc::new(server)).accept(accepted),
        TlsConnector::from(Arc::new(client)).connect(name, connected),
    );
    (Secured::new(server.unwrap()), client.unwrap())
}

#[tokio::test]
async fn a_write_is_done_when_the_connection_has_taken_all_of_it() {
    let (socket, mut client) = pair().await;
    let wire = Wire::new(socket, Form::default(), None);
    let sent = vec![7; BYTES];
    let mut write = pin!(wire.write_raw(&sent));
    assert!(write.as_mut().now_or_never().is_none(), "rustls has taken it, the connection has not");
    let mut received = vec![0; BYTES];
    let both = async { tokio::join!(write, client.read_exact(&mut received)) };
    let (written, read) = timeout(DEADLINE, both).await.unwrap();
    written.unwrap();
    read.unwrap();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn what_is_decrypted_is_read_before_the_socket_is_waited_for() {
    let (socket, mut client) = pair().await;
    client.write_all(&[7; 100]).await.unwrap();
    let mut read = 0;
    let reading = async {
        while read < 100 {
            socket.readable().await.unwrap();
            match socket.try_read(&mut [0; 30]) {
                Ok(length) => read += length,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    };
    // The socket is empty after the first piece.
    timeout(DEADLINE, reading).await.unwrap();
}

#[tokio::test]
async fn the_writer_finishes_what_is_encrypted_and_not_sent() {
    let (socket, mut client) = pair().await;
    let wire = Wire::new(socket, Form::default(), None);
    let frame = Frame::new(vec![7; 8_000].into());
    let mut count = 1;
    let rest = loop {
        match wire.try_write(std::slice::from_ref(&frame)) {
            Carried::All => count += 1,
            Carried::Part(rest) => break rest,
            Carried::Nothing => panic!("rustls takes more than the kernel"),
        }
    };
    let mut sink = SocketSink(&wire);
    let mut finish = pin!(sink.finish(&rest));
    assert!(finish.as_mut().now_or_never().is_none(), "nobody has read");
    // Each is behind a header of four bytes.
    let mut received = vec![0; count * 8_004];
    let both = async { tokio::join!(finish, client.read_exact(&mut received)) };
    let (finished, read) = timeout(DEADLINE, both).await.unwrap();
    finished.unwrap();
    read.unwrap();
    assert!(received.chunks(8_004).all(|one| one[4..].iter().all(|byte| *byte == 7)));
}
