//! What backends are asked for a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::value::RawValue;
use tidewire::Timestamp;
use tidewire_protocol::codes::{DisconnectCode, ErrorCode};
use tidewire_protocol::{ConnectRequest, Opaque, ReplyBody, RpcRequest, RpcResult, SendRequest};
use tokio::time::Instant;

use super::authenticate::info_of;
use super::connection::{Admitted, Connection, Vitals, disconnect_of};
use crate::config::{ChannelRule, DEFAULT_TENANT};
use crate::failure::Failure;
use crate::hooks::{self, Asker, ClientHeaders, Denied, Endpoint, Hook, Published, Question, Refreshed};
use crate::hub::outbox::Disconnect;
use crate::metrics::Transport;
use crate::tenants::Tenant;
use crate::tokens::{ConnectionClaims, Refusal, SubscriptionClaims};

/// How long a session or subscription goes on whose backend did not say whether it does, before it is asked again.
pub(super) const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A backend is asked so long before a time is over, or a tenth of the time before, if that is less.
const ASK_AHEAD_MAX: Duration = Duration::from_secs(10);

/// What backends are told of a connection, and what they are asked for it by itself.
#[derive(Default)]
pub(super) struct Known {
    pub(super) headers: ClientHeaders,
    /// `meta`, as JSON.
    pub(super) meta: Option<Arc<str>>,
    /// Whether the backend, and not the client, is asked for more time.
    pub(super) is_refreshed_here: bool,
    /// When it is asked.
    pub(super) refresh_at: Option<Instant>,
}

/// A command that waits for what only its client wants.
struct Asking<'v>(&'v Vitals);

impl<'v> Asking<'v> {
    fn begin(vitals: &'v Vitals, hook: Hook) -> Self {
        vitals.is_asking.store(hook.is_for_client_alone(), Relaxed);
        Self(vitals)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.is_asking.store(false, Relaxed);
    }
}

/// When a backend is asked for more time than until `expires_at`.
pub(super) fn refresh_time(now: Timestamp, expires_at: Option<Timestamp>) -> Option<Instant> {
    let left = expires_at?.since(now);
    Instant::now().checked_add(left - (left / 10).min(ASK_AHEAD_MAX))
}

impl Connection {
    /// The tenant whose backend says who a connection without a token is of, if there is one.
    pub(super) fn tenant_that_asks(&self, token: &str) -> Option<Arc<Tenant>> {
        let tenant = self.node.tenants.named(DEFAULT_TENANT).filter(|_| token.is_empty())?;
        tenant.hooks.connect.is_some().then(|| tenant.clone())
    }

    /// Asks who the connection is of.
    pub(super) async fn ask_connect(
        &self,
        tenant: &Tenant,
        request: &ConnectRequest<'_>,
    ) -> Result<ConnectionClaims, Denied> {
        let endpoint = tenant.hooks.connect.as_ref().ok_or(ErrorCode::INTERNAL)?;
        let headers = self.origin.headers.clone().overridden(&request.headers, tenant.hooks.wanted())?;
        let question = Question {
            data: request.data.as_ref(),
            name: &request.name,
            version: &request.version,
            channels: request.subs.keys().map(AsRef::as_ref).collect(),
            ..Question::default()
        };
        let asker = Asker { user: None, meta: None, headers: &headers, ..self.asker() };
        self.ask_with(endpoint, Hook::Connect, &asker, &question, ConnectionClaims::of_hook).await
    }

    /// What is kept of a connection for those who are asked later.
    ///
    /// # Errors
    /// Headers that the client gives cannot be handed on.
    pub(super) fn known(
        &self,
        tenant: &Tenant,
        claims: &ConnectionClaims,
        request: &ConnectRequest<'_>,
    ) -> Result<Option<Box<Known>>, Failure> {
        if tenant.hooks.is_empty() {
            return Ok(None);
        }
        let headers = self.origin.headers.clone().overridden(&request.headers, tenant.hooks.wanted())?;
        let is_refreshed_here = request.token.is_empty() && tenant.hooks.refresh.is_some();
        Ok(Some(Box::new(Known { headers, meta: claims.meta.clone(), is_refreshed_here, refresh_at: None })))
    }

    /// Asks whether the session goes on.
    ///
    /// # Errors
    /// It does not.
    pub(super) async fn refresh_by_hook(&mut self) -> Result<(), Disconnect> {
        let Ok(Admitted { tenant, .. }) = self.admitted() else { return Ok(()) };
        let Some(endpoint) = tenant.hooks.refresh.clone() else { return Ok(()) };
        let asked = self.ask(&endpoint, Hook::Refresh, &Question::default(), Refreshed::read).await;
        let expires_at = match Denied::settle(asked)? {
            Ok(Refreshed { expires_at, info, meta }) => {
                let Admitted { identity, known, .. } = match self.admitted() {
                    Ok(admitted) => admitted,
                    Err(_) => return Ok(()),
                };
                identity.expires_at = expires_at;
                if let Some(info) = info {
                    identity.info = Some(info_of(&info));
                }
                if let (Some(known), Some(meta)) = (known, meta) {
                    known.meta = Some(meta);
                }
                expires_at
            }
            Err(failure) if failure.code.is_temporary => {
                Some(self.node.clock.now().saturating_add(ASK_AGAIN_AFTER))
            }
            Err(failure) if failure.code == ErrorCode::EXPIRED => return Err(DisconnectCode::EXPIRED.into()),
            Err(failure) => return Err(Disconnect::new(disconnect_of(failure.code), failure.message)),
        };
        self.watch_expiry(expires_at);
        Ok(())
    }

    /// Asks whether the client may subscribe, where its rule says so.
    pub(super) async fn ask_subscribe(
        &self,
        endpoint: &Endpoint,
        channel: &str,
        data: Option<&Opaque<'_>>,
    ) -> Result<SubscriptionClaims, Denied> {
        let question = Question { channel: Some(channel), data, ..Question::default() };
        self.ask(endpoint, Hook::Subscribe, &question, SubscriptionClaims::of_hook).await
    }

    /// Asks whether a subscription goes on.
    pub(super) async fn ask_sub_refresh(
        &self,
        endpoint: &Endpoint,
        channel: &str,
    ) -> Result<Refreshed, Denied> {
        let question = Question { channel: Some(channel), ..Question::default() };
        self.ask(endpoint, Hook::SubRefresh, &question, Refreshed::read).await
    }

    /// Asks what is published, where the rule says so.
    pub(super) async fn ask_publish(
        &self,
        rule: &ChannelRule,
        channel: &str,
        data: &Opaque<'_>,
    ) -> Result<Published, Denied> {
        let endpoint = rule.ask.publish.as_deref().and_then(|name| self.hooks()?.named(name));
        let Some(endpoint) = endpoint else { return Ok(Published::default()) };
        let question = Question { channel: Some(channel), data: Some(data), ..Question::default() };
        self.ask(endpoint, Hook::Publish, &question, Published::read).await
    }

    pub(super) async fn rpc(&mut self, id: u32, request: &RpcRequest<'_>) -> Result<(), Denied> {
        let endpoint = self.hooks().and_then(|hooks| hooks.of_method(&request.method));
        let endpoint = endpoint.ok_or(ErrorCode::NOT_AVAILABLE)?;
        let question =
            Question { method: Some(&request.method), data: request.data.as_ref(), ..Question::default() };
        let data = self.ask(endpoint, Hook::Rpc, &question, hooks::data).await?;
        self.reply(id, ReplyBody::Rpc(RpcResult { data }));
        Ok(())
    }

    /// Hands on what the client sends. What the backend says to it is of no account, unless it ends the connection.
    pub(super) async fn send(&mut self, request: &SendRequest<'_>) -> Result<(), Denied> {
        let endpoint = self.hooks().and_then(|hooks| hooks.send.as_ref()).ok_or(ErrorCode::NOT_AVAILABLE)?;
        let question = Question { data: request.data.as_ref(), ..Question::default() };
        self.ask(endpoint, Hook::Send, &question, |_, _| Ok(())).await
    }

    fn hooks(&self) -> Option<&hooks::Hooks> {
        self.admitted.as_ref().map(|admitted| &admitted.tenant.hooks)
    }

    fn asker(&self) -> Asker<'_> {
        let admitted = self.admitted.as_ref();
        let known = admitted.and_then(|admitted| admitted.known.as_ref());
        Asker {
            client: &self.id,
            transport: match (self.vitals.transport, self.form.is_unidirectional) {
                (Transport::WebSocket, false) => "websocket",
                (Transport::WebSocket, true) => "uni_websocket",
                (Transport::Sse, false) => "sse",
                (Transport::Sse, true) => "uni_sse",
                (Transport::HttpStream, false) => "http_stream",
                (Transport::HttpStream, true) => "uni_http_stream",
            },
            protocol: self.form.encoding,
            user: admitted.map(|admitted| &*admitted.identity.user),
            meta: known.and_then(|known| known.meta.as_ref()),
            headers: known.map_or(&self.origin.headers, |known| &known.headers),
        }
    }

    async fn ask<R>(
        &self,
        endpoint: &Endpoint,
        hook: Hook,
        question: &Question<'_>,
        read: impl FnOnce(Option<&RawValue>, Timestamp) -> Result<R, Refusal>,
    ) -> Result<R, Denied> {
        self.ask_with(endpoint, hook, &self.asker(), question, read).await
    }

    async fn ask_with<R>(
        &self,
        endpoint: &Endpoint,
        hook: Hook,
        asker: &Asker<'_>,
        question: &Question<'_>,
        read: impl FnOnce(Option<&RawValue>, Timestamp) -> Result<R, Refusal>,
    ) -> Result<R, Denied> {
        let _asking = Asking::begin(&self.vitals, hook);
        // Boxed: the task of an idle connection has no room for what few need.
        Box::pin(endpoint.ask(hook, asker, question, read)).await
    }
}
