//! A link that ends when the sentinels name another primary: the old one may never say anything again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use crate::engine::redis::address::Endpoint;
use crate::engine::redis::link::Reader;

/// Ends when the primary that is named changes from now on, and is not the one at `endpoint` then.
pub(super) async fn left(mut named: watch::Receiver<Option<Endpoint>>, endpoint: Endpoint) {
    let before = named.borrow_and_update().clone();
    let is_other = |named: &Option<Endpoint>| *named != before && named.as_ref() != Some(&endpoint);
    if named.wait_for(is_other).await.is_err() {
        // Nobody watches the sentinels any more: the engine is closing.
        std::future::pending::<()>().await;
    }
}

type Left = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The reading half of a link, until the server at its other end is left.
pub(super) struct Tethered {
    reader: Reader,
    /// None once it has ended.
    left: Option<Left>,
}

impl Tethered {
    pub(super) fn new(reader: Reader, left: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        Self { reader, left: Some(Box::pin(left)) }
    }
}

impl AsyncRead for Tethered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left.as_mut().is_none_or(|left| left.as_mut().poll(cx).is_ready()) {
            this.left = None;
            return Poll::Ready(Err(io::Error::other("the sentinels name another primary")));
        }
        Pin::new(&mut this.reader).poll_read(cx, buf)
    }
}
