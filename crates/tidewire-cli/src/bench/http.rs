//! One kept-alive HTTP connection, as cheap as the WebSockets beside it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::target::Target;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Largest answer, in bytes: a page of metrics with a thousand channels is some hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) struct Http {
    stream: TcpStream,
    /// What has come of the answer, and of those behind it.
    received: Vec<u8>,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Http {
    pub(super) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await;
        let stream = stream.map_err(|error| anyhow!(target.unreachable(&error)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends requests as they are, one or several at once.
    pub(super) async fn send(&mut self, requests: &str) -> Result<()> {
        self.stream.write_all(requests.as_bytes()).await.context("lost the server")
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<Answer> {
        timeout(ANSWER_WITHIN, self.read_answer())
            .await
            .map_err(|_| anyhow!("the server gave no answer within {ANSWER_WITHIN:?}"))?
    }

    async fn read_answer(&mut self) -> Result<Answer> {
        loop {
            if let Some((answer, length)) = parse(&self.received)? {
                self.received.drain(..length);
                return Ok(answer);
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                bail!("answer is over {ANSWER_BYTES_MAX} bytes");
            }
            if self.stream.read_buf(&mut self.received).await.context("lost the server")? == 0 {
                bail!("the server closed the connection before it answered");
            }
        }
    }
}

/// The first answer, once it is all there, with its length.
fn parse(received: &[u8]) -> Result<Option<(Answer, usize)>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(received.get(..end).unwrap_or_default()).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.context("the server answers no HTTP")?;
    let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    let length = length.with_context(|| format!("answer of status {status} without a Content-Length"))?;
    let until = end.saturating_add(4).saturating_add(length);
    let body = received.get(end + 4..until);
    Ok(body.map(|body| (Answer { status, body: String::from_utf8_lossy(body).into_owned() }, until)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_after_the_other_once_they_are_whole() {
        let two =
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n";
        for short in [10, 38, 39] {
            assert!(parse(&two[..short]).unwrap().is_none(), "{short}");
        }
        let (first, length) = parse(two).unwrap().unwrap();
        assert_eq!((first.status, first.body.as_str()), (200, "{}"));
        let (second, rest) = parse(&two[length..]).unwrap().unwrap();
        assert_eq!((second.status, second.body.as_str(), length + rest), (401, "", two.len()));
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
