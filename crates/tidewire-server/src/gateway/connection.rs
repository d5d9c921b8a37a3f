//! One connection: its commands, in order.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidewire::Timestamp;
use tidewire_protocol::codes::{DisconnectCode, ErrorCode};
use tidewire_protocol::{
    ClientInfo, Command, DecodeError, Empty, HistoryRequest, HistoryResult, Method, Opaque, PublishRequest,
    Push, PushBody, RawValue, Refresh, Reply, ReplyBody, ReplyError,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::asking::Known;
use super::authenticate::Identity;
use super::subscribe::subscriber;
use super::subscriptions::Subscriptions;
use crate::edge::Visitor;
use crate::effect::Order;
use crate::failure::Failure;
use crate::history::{self, Wanted};
use crate::hooks::{ClientHeaders, Denied, Published};
use crate::hub::connections::{Listed, Orders};
use crate::hub::outbox::{Disconnect, Frame, Outbox};
use crate::journal::Who;
use crate::lifecycle::{Teller, Told};
use crate::metrics::{AuthFailure, CommandLabels, Transport};
use crate::node::{Node, Place};
use crate::permission::{self, Action};
use crate::publication::{self, Form, Prepared};
use crate::publishing;
use crate::tenants::{Site, Tenant};
use crate::tokens::SubscriptionOptions;

/// Under which all error codes of backends are counted.
const BACKEND_CODES: u32 = 400;

/// What the reader of a connection tells its writer, which watches the time.
pub(crate) struct Vitals {
    pub(super) is_connected: AtomicBool,
    was_heard: AtomicBool,
    pub(super) end_at: Mutex<Option<Instant>>,
    pub(super) orders: Arc<Orders>,
    /// Whether its command waits for what only its client wants.
    pub(super) is_asking: AtomicBool,
    /// Set once its connect command succeeded.
    pub(super) who: OnceLock<Who>,
    /// What carries the connection, as operators are told.
    pub(crate) transport: Transport,
    /// Why it ended: a code, 0 where the client was gone, and a reason.
    pub(crate) ending: OnceLock<(u32, String)>,
}

/// Where a connection comes from.
#[derive(Clone, Default)]
pub(crate) struct Origin {
    /// The web page that opened it, if it was one.
    pub(crate) origin: Option<String>,
    /// This server, as the client knows it.
    pub(crate) site: Site,
    /// Whose it is, with the client's address.
    pub(crate) visitor: Visitor,
    /// What is handed on of its request to backends.
    pub(crate) headers: ClientHeaders,
}

/// One connection of a client.
pub(crate) struct Connection {
    pub(super) node: Arc<Node>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) place: Place,
    pub(super) vitals: Arc<Vitals>,
    pub(super) origin: Origin,
    pub(super) id: Arc<str>,
    /// What proves that a command that comes by a request of its own is of this connection; empty where none does.
    pub(super) session: Box<str>,
    pub(super) form: Form,
    pub(super) admitted: Option<Admitted>,
}

/// What a connection has once its connect command succeeded.
pub(super) struct Admitted {
    pub(super) tenant: Arc<Tenant>,
    pub(super) identity: Identity,
    pub(super) subscriptions: Subscriptions,
    /// What backends are told of it, where any is asked.
    pub(super) known: Option<Box<Known>>,
    pub(super) _listed: Listed,
    /// Dropped after the subscriptions, which are told as over before it.
    pub(super) telling: Option<Telling>,
}

/// What tells the tenant's backend of a connection, where that is asked for.
pub(super) struct Telling {
    pub(super) teller: Arc<Teller>,
    pub(super) _connected: Option<Told>,
}

impl Vitals {
    pub(crate) fn over(transport: Transport) -> Self {
        Self {
            is_connected: AtomicBool::default(),
            was_heard: AtomicBool::default(),
            end_at: Mutex::default(),
            orders: Arc::default(),
            is_asking: AtomicBool::default(),
            who: OnceLock::new(),
            transport,
            ending: OnceLock::new(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected.load(Relaxed)
    }

    pub(super) fn hear(&self) {
        self.was_heard.store(true, Relaxed);
    }

    /// Whether anything was heard since the last call.
    pub(crate) fn take_heard(&self) -> bool {
        self.was_heard.swap(false, Relaxed)
    }

    /// Whether its command is of no use once the client is gone.
    pub(crate) fn is_asking(&self) -> bool {
        self.is_asking.load(Relaxed)
    }

    /// When the connection ends with its token.
    pub(crate) fn end_at(&self) -> Option<Instant> {
        *self.end_at.lock()
    }
}

impl Connection {
    /// In a place of its own: it moves from who opens it to who serves it, and each would have room for it.
    pub(crate) fn new(
        node: Arc<Node>,
        outbox: Arc<Outbox>,
        vitals: Arc<Vitals>,
        place: Place,
        origin: Origin,
        form: Form,
    ) -> Box<Self> {
        let (id, session) = (Uuid::now_v7().to_string().into(), Box::default());
        Box::new(Self { node, outbox, place, vitals, origin, id, session, form, admitted: None })
    }

    /// The same where commands come by requests of their own: each has to name this session.
    pub(crate) fn with_session(mut self: Box<Self>, session: &str) -> Box<Self> {
        self.session = session.into();
        self
    }

    /// Runs the commands of a frame, one after the other; replies go to the outbox. Dropping the future may leave the
    /// last one half done: its effect may have happened, its reply is not sent.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub(crate) async fn handle(&mut self, frame: &[u8]) -> Result<(), Disconnect> {
        self.vitals.hear();
        if self.form.is_unidirectional {
            return self.open(frame).await;
        }
        let commands = (self.form.encoding).decode_commands(frame).map_err(bad_frame)?;
        for command in commands {
            // A client that does not read its replies is not read from either.
            self.outbox.room().await;
            self.run(command).await?;
        }
        Ok(())
    }

    /// Opens the session of a unidirectional connection by the first thing that it says, a connect request alone; what is a
    /// reply to others is its first push. Whatever else it says is passed over.
    async fn open(&mut self, frame: &[u8]) -> Result<(), Disconnect> {
        if self.admitted.is_some() {
            return Ok(());
        }
        let request = self.form.encoding.decode_connect(frame).map_err(bad_frame)?;
        self.connect(0, &request).await?.map_err(|failure| {
            if let Some(detail) = &failure.detail {
                tracing::warn!(connection = &*self.id, detail, "connection refused");
            }
            Disconnect::new(disconnect_of(failure.code), failure.message)
        })
    }

    /// Does what the connection was told to do from outside.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub(crate) async fn obey(&mut self, order: Order) -> Result<(), Disconnect> {
        match order {
            Order::Subscribe { channel, options, since } => {
                if let Err(failure) = self.subscribe_from_server(&channel, *options, since).await {
                    let detail = failure.detail.as_deref().unwrap_or(&failure.message);
                    tracing::warn!(
                        connection = &*self.id,
                        channel,
                        detail,
                        "cannot be subscribed from the server"
                    );
                }
            }
            Order::Forget { channel } => self.forget_ended(&channel).await,
            Order::Refresh { expires_at } => {
                let expires_at = expires_at.map(Timestamp::from_millis);
                let Ok(admitted) = self.admitted() else { return Ok(()) };
                admitted.identity.expires_at = expires_at;
                let ttl = self.watch_expiry(expires_at);
                let refresh = Refresh { expires: ttl.is_some(), ttl: ttl.unwrap_or_default() };
                self.push("", PushBody::Refresh(refresh));
            }
        }
        Ok(())
    }

    /// The client as others see it in a channel.
    pub(super) fn member(&self, options: &SubscriptionOptions) -> ClientInfo<'static> {
        let identity = self.admitted.as_ref().map(|admitted| &admitted.identity);
        let info = identity.and_then(|identity| identity.info.as_deref());
        let conn_info = info.and_then(|info| RawValue::from_string(info.to_owned()).ok());
        ClientInfo {
            user: identity.map(|identity| identity.user.to_string()).unwrap_or_default().into(),
            client: self.id.to_string().into(),
            conn_info: conn_info.map(|info| Opaque::Json(Cow::Owned(info))),
            chan_info: options.info.clone(),
        }
    }

    pub(super) fn push(&self, channel: &str, body: PushBody<'_>) {
        self.outbox.push(self.form.push(Push { channel: channel.into(), body }));
    }

    async fn run(&mut self, command: Command<'_>) -> Result<(), Disconnect> {
        let bad_request = |reason: &'static str| Err(Disconnect::new(DisconnectCode::BAD_REQUEST, reason));
        let Command { id, method } = command;
        let (name, refusal) = (name_of(&method), refusal_of(&method));
        let is_first = self.admitted.is_none();
        let outcome = match method {
            Method::Pong => return Ok(()),
            Method::Connect(_) if !is_first => return bad_request("bad request: second connect command"),
            Method::Connect(_) if id == 0 => return bad_request("bad request: command without an id"),
            Method::Connect(request) => self.connect(id, &request).await?,
            _ if is_first => return bad_request("bad request: the first command must be connect"),
            // Fire and forget: there is no reply that could carry a refusal.
            Method::Send(request) if id == 0 => {
                let outcome = Denied::settle(self.send(&request).await)?;
                self.count(name, &outcome);
                return Ok(());
            }
            _ if id == 0 => return bad_request("bad request: command without an id"),
            Method::Subscribe(request) => Denied::settle(self.subscribe(id, &request).await)?,
            Method::Unsubscribe(request) => {
                self.unsubscribe(&request.channel).await;
                self.reply(id, ReplyBody::Unsubscribe(Empty {}));
                Ok(())
            }
            Method::Publish(request) => Denied::settle(self.publish(id, &request).await)?,
            Method::History(request) => self.history(id, &request).await,
            Method::Refresh(request) => self.refresh(id, &request).await?,
            Method::Ping => {
                self.reply(id, ReplyBody::Ping(Empty {}));
                Ok(())
            }
            Method::Presence(request) => self.presence(id, &request).await,
            Method::PresenceStats(request) => self.presence_stats(id, &request).await,
            Method::SubRefresh(request) => Denied::settle(self.sub_refresh(id, &request).await)?,
            Method::Rpc(request) => Denied::settle(self.rpc(id, &request).await)?,
            // It has no reply, so an id is a mistake.
            Method::Send(_) => Err(ErrorCode::NOT_AVAILABLE.into()),
            Method::Unknown => Err(ErrorCode::METHOD_NOT_FOUND.into()),
        };
        self.count(name, &outcome);
        if let Err(failure) = outcome {
            self.count_refusal(refusal, failure.code);
            self.refuse(id, name, failure);
        }
        Ok(())
    }

    /// Counts what is not allowed. What is wrong with the token of a connection is counted where that is found.
    fn count_refusal(&self, refusal: AuthFailure, code: ErrorCode) {
        let is_counted = match refusal {
            AuthFailure::SubscriptionToken => {
                matches!(code, ErrorCode::PERMISSION_DENIED | ErrorCode::TOKEN_EXPIRED)
            }
            _ => code == ErrorCode::PERMISSION_DENIED,
        };
        if let Some(admitted) = self.admitted.as_ref().filter(|_| is_counted) {
            admitted.tenant.metrics.auth_failures.add(refusal, 1);
        }
    }

    fn count(&self, method: &'static str, outcome: &Result<(), Failure>) {
        let code = outcome.as_ref().map_or_else(|failure| failure.code.number, |()| 0);
        // Backends choose codes freely; the table of metrics does not grow with them.
        let code = if code < BACKEND_CODES { code } else { BACKEND_CODES };
        self.node.metrics.commands.get_or_create(&CommandLabels { method, code }).inc();
    }

    fn refuse(&self, id: u32, method: &'static str, failure: Failure) {
        if let Some(detail) = &failure.detail {
            tracing::warn!(connection = &*self.id, method, detail, "command failed");
        }
        self.reply(id, ReplyBody::Error(ReplyError::new(failure.code, failure.message)));
    }

    pub(super) fn reply(&self, id: u32, body: ReplyBody<'_>) {
        self.outbox.push(Frame::new(Reply { id, body }.encode(self.form.encoding)));
    }

    /// What connect established; commands other than connect come only after it.
    pub(super) fn admitted(&mut self) -> Result<&mut Admitted, Failure> {
        self.admitted.as_mut().ok_or_else(|| ErrorCode::UNAUTHORIZED.into())
    }

    async fn publish(&mut self, id: u32, request: &PublishRequest<'_>) -> Result<(), Denied> {
        let (node, connection) = (self.node.clone(), self.id.clone());
        let channel: &str = &request.channel;
        let Admitted { tenant, identity, .. } = self.admitted()?;
        let (tenant, identity) = (tenant.clone(), identity.clone());
        let rule = permission::admit(&tenant.rules, channel, Action::Publish, &identity)?;
        let data = (request.data.as_ref())
            .ok_or_else(|| Failure::new(ErrorCode::BAD_REQUEST, "bad request: data is missing"))?;
        let checked = |data: &Opaque<'_>| match data.checked() {
            Ok(data) => Ok(data.into_owned()),
            Err(error) => Err(Failure::new(ErrorCode::BAD_REQUEST, error.to_string())),
        };
        let bytes = checked(data)?;
        let Published { data, skips_history } = self.ask_publish(rule, channel, data).await?;
        let bytes = data.as_ref().map(checked).transpose()?.unwrap_or(bytes);
        let event = publication::event_of_client(bytes, &connection, &identity);
        let options = publishing::Options { skips_history, ..publishing::Options::default() };
        publishing::publish(&node, &tenant, rule, channel, event, options).await?;
        self.reply(id, ReplyBody::Publish(Empty {}));
        Ok(())
    }

    async fn history(&mut self, id: u32, request: &HistoryRequest<'_>) -> Result<(), Failure> {
        let events_max = self.node.config.limits.history_events_max;
        let form = self.form;
        let Admitted { tenant, identity, subscriptions, .. } = self.admitted()?;
        let rule = permission::admit(&tenant.rules, &request.channel, Action::History, identity)?;
        subscriber(rule, subscriptions, &request.channel)?;
        let wanted =
            Wanted { limit: request.limit, since: request.since.as_ref(), is_reverse: request.reverse };
        let channel = tenant.handle.channel(&request.channel)?;
        let page = history::read(&channel, rule, wanted, events_max).await?;
        let prepare = |received| Prepared::kept(&channel, received, form);
        let prepared: Vec<Prepared<'_>> = page.events.iter().map(prepare).collect();
        let result = HistoryResult {
            publications: prepared.iter().map(Prepared::publication).collect(),
            epoch: page.epoch.to_string().into(),
            offset: page.last,
        };
        self.reply(id, ReplyBody::History(result));
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(admitted) = &self.admitted {
            admitted.tenant.metrics.connections.dec();
        }
    }
}

fn bad_frame(error: DecodeError) -> Disconnect {
    Disconnect::new(DisconnectCode::BAD_REQUEST, format!("bad request: {error}"))
}

/// What a client that cannot be sent an error is told in its place.
pub(super) fn disconnect_of(code: ErrorCode) -> DisconnectCode {
    match code {
        ErrorCode::TOKEN_EXPIRED | ErrorCode::EXPIRED => DisconnectCode::EXPIRED,
        ErrorCode::TOO_MANY_REQUESTS => DisconnectCode::TOO_MANY_REQUESTS,
        ErrorCode::UNAUTHORIZED => DisconnectCode::INVALID_TOKEN,
        ErrorCode::PERMISSION_DENIED => DisconnectCode::PERMISSION_DENIED,
        ErrorCode::LIMIT_EXCEEDED => DisconnectCode::CHANNEL_LIMIT,
        ErrorCode::NOT_AVAILABLE => DisconnectCode::NOT_AVAILABLE,
        code if code.is_temporary => DisconnectCode::SERVER_ERROR,
        _ => DisconnectCode::BAD_REQUEST,
    }
}

/// What it is that refuses a command which is not allowed.
fn refusal_of(method: &Method<'_>) -> AuthFailure {
    match method {
        Method::Subscribe(request) if !request.token.is_empty() => AuthFailure::SubscriptionToken,
        Method::SubRefresh(_) => AuthFailure::SubscriptionToken,
        _ => AuthFailure::Permission,
    }
}

pub(crate) fn name_of(method: &Method<'_>) -> &'static str {
    match method {
        Method::Connect(_) => "connect",
        Method::Subscribe(_) => "subscribe",
        Method::Unsubscribe(_) => "unsubscribe",
        Method::Publish(_) => "publish",
        Method::History(_) => "history",
        Method::Refresh(_) => "refresh",
        Method::Ping => "ping",
        Method::Pong => "pong",
        Method::Presence(_) => "presence",
        Method::PresenceStats(_) => "presence_stats",
        Method::Rpc(_) => "rpc",
        Method::Send(_) => "send",
        Method::SubRefresh(_) => "sub_refresh",
        Method::Unknown => "unknown",
    }
}
