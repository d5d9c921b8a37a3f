//! One connection to what is at a URL: HTTP/1.1, one request at a time.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Reading;

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// An open connection. It moves only while a request is on it, so it needs no task; dropping it closes it.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: BoxFuture<'static, ()>,
}

/// Why there is no answer.
pub(super) enum Unanswered {
    /// Nothing of the request was sent: the other side had closed the connection.
    NotSent(Box<Request<Full<Bytes>>>),
    /// It may have been sent.
    Failed(String),
}

impl Unanswered {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::NotSent(_) => "the endpoint closed the connection".into(),
            Self::Failed(reason) => reason,
        }
    }
}

impl Link {
    pub(super) async fn over<S>(stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let builder = Builder::new().max_buf_size(HEAD_BYTES_MAX).clone();
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
        Ok(Self { sender, connection: connection.map(drop).fuse().boxed() })
    }

    /// Whether another request can be sent, as far as that is known by now.
    pub(super) fn is_open(&mut self) -> bool {
        self.connection.as_mut().now_or_never().is_none() && !self.sender.is_closed()
    }

    /// Sends a request and reads the answer.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        reading: Reading,
    ) -> Result<Response<Bytes>, Unanswered> {
        let Self { sender, connection } = self;
        let answer = async {
            if sender.ready().await.is_err() {
                return Err(Unanswered::NotSent(Box::new(request)));
            }
            let answered = sender.try_send_request(request).await;
            let (head, body) = answered.map_err(unanswered)?.into_parts();
            let body = match reading {
                Reading::HeadOnly => Bytes::new(),
                Reading::UpTo(bytes_max) => {
                    let body = Limited::new(body, bytes_max).collect().await;
                    body.map_err(|error| {
                        Unanswered::Failed(match error.is::<LengthLimitError>() {
                            true => format!("the endpoint's answer is larger than {bytes_max} bytes"),
                            false => format!("the endpoint's answer broke off: {error}"),
                        })
                    })?
                    .to_bytes()
                }
            };
            Ok(Response::from_parts(head, body))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // An answer that came with the end of the connection is there by now.
            () = connection => answer.await,
        }
    }
}

fn unanswered(mut error: hyper::client::conn::TrySendError<Request<Full<Bytes>>>) -> Unanswered {
    match error.take_message() {
        Some(request) => Unanswered::NotSent(Box::new(request)),
        None => Unanswered::Failed(no_answer(error.into_error())),
    }
}

fn no_answer(error: hyper::Error) -> String {
    format!("the endpoint gave no answer: {error}")
}
