//! Commands that come by requests of their own, to connections whose transport goes one way only.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::stream::encoding_of;
use crate::edge::Visitor;
use crate::node::Node;

/// Frames that wait for one connection. A client that sends more before they are run is told to come again.
const FRAMES_MAX: usize = 64;

/// The connections of a node that take commands by requests of their own, by session. A session is a secret: its hash is keyed with
/// one of this process, so that the time of a look-up tells nothing of how near a guess is.
#[derive(Default)]
pub(crate) struct Sessions(Arc<Mutex<ByName>>);

type ByName = HashMap<String, mpsc::Sender<Bytes>, RandomState>;

/// A session, ended when dropped.
pub(super) struct Session {
    name: String,
    sessions: Arc<Mutex<ByName>>,
}

/// Frames for one connection.
pub(super) struct Inbox(mpsc::Receiver<Bytes>);

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Accepted {
    /// The connection runs it next.
    Taken,
    /// There is no such session: the connection is gone, or was never here.
    Unknown,
    /// Too many wait.
    Full,
}

impl Sessions {
    /// Begins a session under a name that nobody can guess: 122 random bits.
    pub(super) fn open(&self) -> (Session, Inbox) {
        let name = Uuid::new_v4().simple().to_string();
        let (sender, receiver) = mpsc::channel(FRAMES_MAX);
        self.0.lock().insert(name.clone(), sender);
        (Session { name, sessions: self.0.clone() }, Inbox(receiver))
    }

    /// Hands a frame to its connection.
    pub(crate) fn take(&self, session: &str, frame: Bytes) -> Accepted {
        match self.0.lock().get(session).map(|sender| sender.try_send(frame)) {
            None | Some(Err(mpsc::error::TrySendError::Closed(_))) => Accepted::Unknown,
            Some(Ok(())) => Accepted::Taken,
            Some(Err(mpsc::error::TrySendError::Full(_))) => Accepted::Full,
        }
    }
}

impl Session {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.name);
    }
}

impl Inbox {
    /// The next frame. Cancel-safe.
    pub(super) async fn next(&mut self) -> Bytes {
        match self.0.recv().await {
            Some(frame) => frame,
            // The session outlives the inbox; nothing comes after it.
            None => std::future::pending().await,
        }
    }
}

/// `POST /emulation`: commands for a connection of any node.
pub(crate) async fn emulation(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = match encoding_of(&headers).decode_emulation(&body) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("bad request: {error}\n")).into_response(),
    };
    let limit = node.config.limits.client_frame_bytes_max;
    if request.data.as_bytes().len() > limit {
        let reason = format!("frame is over {limit} bytes (limits.client_frame_bytes_max)\n");
        return (StatusCode::PAYLOAD_TOO_LARGE, reason).into_response();
    }
    let frame = Bytes::copy_from_slice(request.data.as_bytes());
    let accepted = match request.node == node.id || request.node.is_empty() {
        true => node.sessions.take(&request.session, frame),
        false => node.peers.commands(&request.node, &request.session, &frame).await,
    };
    match accepted {
        Accepted::Taken => {
            visitor.proved();
            StatusCode::NO_CONTENT.into_response()
        }
        Accepted::Unknown => (StatusCode::NOT_FOUND, "no such session\n").into_response(),
        Accepted::Full => (StatusCode::TOO_MANY_REQUESTS, "too many frames wait\n").into_response(),
    }
}
