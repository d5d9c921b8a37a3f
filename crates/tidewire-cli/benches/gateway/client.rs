//! A bare client of the wire: just enough WebSocket and HTTP to load a server and count what comes.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Each published event holds this byte once, and nothing else on the wire does.
pub(crate) const MARK: u8 = b'~';

/// Data of an event of about 128 bytes with one mark, and `number` in it.
pub(crate) fn data(number: u64) -> String {
    format!(r#"{{"mark":"~","number":"{number:010}","text":"{}"}}"#, "x".repeat(80))
}

/// A WebSocket, past its handshake.
pub(crate) struct Socket {
    stream: TcpStream,
}

impl Socket {
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
        }
        if !answer.starts_with(b"HTTP/1.1 101") {
            bail!("no upgrade: {}", String::from_utf8_lossy(&answer));
        }
        Ok(Self { stream })
    }

    /// Connects anonymously and subscribes, and waits for both replies.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Result<()> {
        let commands = format!(
            "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}"
        );
        self.send(&commands).await?;
        let mut seen = Vec::new();
        while !contains(&seen, b"\"subscribe\":{") {
            if contains(&seen, b"\"error\":{") || self.stream.read_buf(&mut seen).await? == 0 {
                bail!("no subscription: {}", String::from_utf8_lossy(&seen));
            }
        }
        Ok(())
    }

    /// Sends one text frame, masked with zeros.
    pub(crate) async fn send(&mut self, text: &str) -> Result<()> {
        let mut frame = vec![0x81];
        match u16::try_from(text.len())? {
            length @ 0..=125 => frame.push(0x80 | u8::try_from(length)?),
            length => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        Ok(self.stream.write_all(&frame).await?)
    }

    /// Waits for bytes and counts the marks in them.
    pub(crate) async fn marks(&mut self, buffer: &mut Vec<u8>) -> Result<usize> {
        buffer.clear();
        if self.stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(buffer.iter().filter(|byte| **byte == MARK).count())
    }
}

/// An HTTP connection that is kept alive.
pub(crate) struct Http {
    stream: TcpStream,
    address: String,
    answer: Vec<u8>,
}

impl Http {
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address: address.to_owned(), answer: Vec::new() })
    }

    /// Publishes over the server API and waits for the answer.
    pub(crate) async fn publish(&mut self, channel: &str, data: &str) -> Result<()> {
        let body = format!(r#"{{"channel":"{channel}","data":{data}}}"#);
        let request = format!(
            "POST /api/publish HTTP/1.1\r\nHost: {}\r\nX-API-Key: dev-api-key\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        while !contains(&self.answer, b"}") {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the server closed the connection");
            }
        }
        if !contains(&self.answer, b"\"result\"") {
            bail!("not published: {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Opens and subscribes many sockets, a hundred at a time.
pub(crate) async fn subscribe_many(address: &str, channel: &str, count: usize) -> Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let some = (count - sockets.len()).min(100);
        let opening = (0..some).map(|_| async {
            let mut socket = Socket::open(address).await?;
            socket.subscribe(channel).await?;
            anyhow::Ok(socket)
        });
        let opened = futures_util::future::try_join_all(opening).await;
        sockets.extend(opened.with_context(|| format!("after {} connections", sockets.len()))?);
    }
    Ok(sockets)
}
