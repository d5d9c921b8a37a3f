//! The session of a connection: who it is of, how long it goes on, and what the server subscribes it to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tidewire::Timestamp;
use tidewire_protocol::codes::{DisconnectCode, ErrorCode};
use tidewire_protocol::{
    ConnectRequest, ConnectResult, Opaque, PushBody, RefreshRequest, RefreshResult, ReplyBody,
    SubscribeRequest, SubscribeResult,
};
use tokio::time::Instant;

use super::asking::{Known, refresh_time};
use super::authenticate::{self, Identity};
use super::connection::{Admitted, Connection, Origin, Telling};
use super::subscribe::Joined;
use super::subscriptions::Subscriptions;
use crate::failure::Failure;
use crate::hooks::Denied;
use crate::hub::connections::Handle;
use crate::hub::outbox::Disconnect;
use crate::journal::Who;
use crate::metrics::AuthFailure;
use crate::node::Node;
use crate::publication::View;
use crate::tenants::Tenant;
use crate::tokens::{ConnectionClaims, Refusal};

/// Our version, as clients are told.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Connection {
    pub(super) async fn connect(
        &mut self,
        id: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<Result<(), Failure>, Disconnect> {
        let (tenant, claims) = match self.tenant_that_asks(&request.token) {
            Some(tenant) => {
                // Before the backend is asked, which may know the page's user by a cookie.
                self.check_origin(&tenant)?;
                match Denied::settle(self.ask_connect(&tenant, request).await)? {
                    Ok(claims) => (tenant, claims),
                    Err(failure) => return Ok(Err(failure)),
                }
            }
            None => match self.identify(&request.token).await? {
                Ok((tenant, claims)) => {
                    self.check_origin(&tenant)?;
                    (tenant, claims)
                }
                Err(failure) => return Ok(Err(failure)),
            },
        };
        let known = match self.known(&tenant, &claims, request) {
            Ok(known) => known,
            Err(failure) => return Ok(Err(failure)),
        };
        // A connection that says nothing of this is an application's, which shows its users what is theirs.
        self.form.view = if request.ours().redact { View::Redacted } else { View::Whole };
        self.admit(tenant, Identity::from(&claims), known);
        let data = claims.data.clone();
        if let Err(failure) = self.tell_backend().await {
            self.dismiss();
            return Ok(Err(failure));
        }
        let subscriptions = self.subscribe_at_connect(claims, &request.subs).await;
        let subscriptions = match subscriptions {
            Ok(subscriptions) => subscriptions,
            Err(failure) => {
                // As it was before: another connect command may follow.
                self.dismiss();
                return Ok(Err(failure));
            }
        };
        self.origin = Origin { visitor: std::mem::take(&mut self.origin.visitor), ..Origin::default() };
        if let Ok(Admitted { tenant, identity, .. }) = self.admitted() {
            let (tenant, user) = (tenant.clone(), identity.user.clone());
            let who = Who { tenant, user, client: self.id.clone(), since: self.node.clock.now() };
            // There is one connect command that succeeds.
            let _is_first = self.vitals.who.set(who).is_ok();
            self.origin.visitor.proved();
            if let Some(seat) = self.outbox.seat() {
                seat.opened();
            }
        }
        self.tell_connected(id, &subscriptions, data);
        for joined in subscriptions.into_values() {
            let subscription = joined.go_live(&self.outbox).await;
            if let Ok(admitted) = self.admitted() {
                admitted.subscriptions.add(subscription);
            }
        }
        Ok(Ok(()))
    }

    fn check_origin(&self, tenant: &Tenant) -> Result<(), Disconnect> {
        let Origin { origin, site, .. } = &self.origin;
        let Some(origin) = origin.as_ref().filter(|origin| !tenant.admits_origin(origin, site)) else {
            return Ok(());
        };
        tenant.metrics.auth_failures.add(AuthFailure::Origin, 1);
        let tenant = tenant.handle.name();
        tracing::info!(connection = &*self.id, tenant, origin, "origin is not in tenants.*.origins");
        Err(DisconnectCode::PERMISSION_DENIED.into())
    }

    fn admit(&mut self, tenant: Arc<Tenant>, identity: Identity, known: Option<Box<Known>>) {
        tracing::debug!(
            connection = &*self.id,
            tenant = tenant.handle.name(),
            user = &*identity.user,
            client = %self.origin.visitor.address,
            "connected"
        );
        tenant.metrics.connections.inc();
        let handle = Handle {
            key: self.place.key,
            client: self.id.clone(),
            form: self.form,
            outbox: self.outbox.clone(),
            orders: self.vitals.orders.clone(),
        };
        let listed = tenant.people.add(&identity.user, handle);
        let subscriptions = Subscriptions::default();
        self.admitted =
            Some(Admitted { tenant, identity, subscriptions, known, _listed: listed, telling: None });
    }

    /// Has the tenant's backend told that the connection is there, where it wants to be.
    async fn tell_backend(&mut self) -> Result<(), Failure> {
        let (client, vitals) = (self.id.clone(), self.vitals.clone());
        let Admitted { tenant, identity, telling, .. } = self.admitted()?;
        if let Some(lifecycle) = &tenant.lifecycle {
            let teller = lifecycle.teller(&identity.user, &client, &vitals)?;
            let _connected = teller.connect().await?;
            *telling = Some(Telling { teller, _connected });
        }
        Ok(())
    }

    fn dismiss(&mut self) {
        if let Some(admitted) = self.admitted.take() {
            self.outbox.sit(None);
            admitted.tenant.metrics.connections.dec();
        }
    }

    /// Joins what the token and the tenant's settings subscribe the connection to.
    async fn subscribe_at_connect(
        &mut self,
        claims: ConnectionClaims,
        since: &BTreeMap<Cow<'_, str>, SubscribeRequest<'_>>,
    ) -> Result<BTreeMap<String, Joined>, Failure> {
        let Admitted { tenant, identity, .. } = self.admitted()?;
        let mut wanted = claims.subscriptions;
        if let Some(channel) = tenant.personal_channel(&identity.user) {
            wanted.entry(channel).or_default();
        }
        let mut joined = BTreeMap::new();
        for (channel, options) in wanted {
            let since = since.get(channel.as_str()).filter(|request| request.recover);
            let since = since.map(|request| (request.offset, request.epoch.to_string()));
            let one = self.join_from_server(&channel, options, since).await?;
            joined.extend(one.map(|one| (channel, one)));
        }
        Ok(joined)
    }

    fn tell_connected(
        &mut self,
        id: u32,
        subscriptions: &BTreeMap<String, Joined>,
        data: Option<Opaque<'static>>,
    ) {
        let ttl = self.watch_expiry(self.admitted.as_ref().and_then(|admitted| admitted.identity.expires_at));
        self.vitals.is_connected.store(true, Relaxed);
        let missed: Vec<_> = subscriptions.values().map(Joined::missed).collect();
        let subs: BTreeMap<Cow<'_, str>, SubscribeResult<'_>> = subscriptions
            .iter()
            .zip(&missed)
            .map(|((channel, joined), missed)| (channel.as_str().into(), joined.result(missed)))
            .collect();
        let ping = u32::try_from(self.node.config.timing.ping_every.as_secs()).unwrap_or(u32::MAX);
        let result = ConnectResult {
            client: (&*self.id).into(),
            version: VERSION.into(),
            expires: ttl.is_some(),
            ttl: ttl.unwrap_or_default(),
            data,
            subs,
            ping,
            // Who cannot send cannot answer either.
            pong: !self.form.is_unidirectional,
            session: (&*self.session).into(),
            node: self.node.id.as_str().into(),
            ..ConnectResult::default()
        };
        if self.form.is_unidirectional {
            self.push("", PushBody::Connect(Box::new(result)));
        } else {
            self.reply(id, ReplyBody::Connect(result));
        }
    }

    pub(super) async fn refresh(
        &mut self,
        id: u32,
        request: &RefreshRequest<'_>,
    ) -> Result<Result<(), Failure>, Disconnect> {
        let (tenant, claims) = match self.identify(&request.token).await? {
            Ok(found) => found,
            Err(failure) => return Ok(Err(failure)),
        };
        let identity = Identity::from(&claims);
        let Some(admitted) = &mut self.admitted else { return Ok(Err(ErrorCode::UNAUTHORIZED.into())) };
        if !Arc::ptr_eq(&admitted.tenant, &tenant) || admitted.identity.user != identity.user {
            return Err(self.refuse_token("refreshed with the token of another user"));
        }
        admitted.identity = identity;
        if let Some(known) = &mut admitted.known {
            known.meta = claims.meta;
        }
        let ttl = self.watch_expiry(claims.expires_at);
        let result = RefreshResult {
            client: (&*self.id).into(),
            version: VERSION.into(),
            expires: ttl.is_some(),
            ttl: ttl.unwrap_or_default(),
        };
        self.reply(id, ReplyBody::Refresh(result));
        Ok(Ok(()))
    }

    async fn identify(
        &self,
        token: &str,
    ) -> Result<Result<(Arc<Tenant>, ConnectionClaims), Failure>, Disconnect> {
        match authenticate::identify(&self.node, token).await {
            Ok(found) => Ok(Ok(found)),
            Err(Refusal::Expired) => Ok(Err(ErrorCode::TOKEN_EXPIRED.into())),
            Err(Refusal::Unavailable(reason)) => {
                Ok(Err(Failure { detail: Some(reason), ..ErrorCode::INTERNAL.into() }))
            }
            Err(Refusal::Invalid(reason)) => {
                // Who has no token guesses none.
                if !token.is_empty() {
                    self.node.edge.failed(&self.origin.visitor);
                }
                Err(self.refuse_token(&reason))
            }
        }
    }

    fn refuse_token(&self, reason: &str) -> Disconnect {
        let client = self.origin.visitor.address;
        tracing::info!(connection = &*self.id, %client, reason, "connection refused");
        DisconnectCode::INVALID_TOKEN.into()
    }

    /// Has the writer watch when the session expires; seconds until then, so that the client can refresh it in time, unless a
    /// backend is asked for that.
    pub(super) fn watch_expiry(&mut self, expires_at: Option<Timestamp>) -> Option<u32> {
        let Expiry { end_at, ttl } = Expiry::of(&self.node, expires_at);
        *self.vitals.end_at.lock() = end_at;
        let known = self.admitted.as_mut().and_then(|admitted| admitted.known.as_mut());
        let Some(known) = known.filter(|known| known.is_refreshed_here) else { return ttl };
        known.refresh_at = refresh_time(self.node.clock.now(), expires_at);
        None
    }
}

/// When what a token gives ends: a session, or a subscription.
pub(super) struct Expiry {
    /// After the time in which the token can still be refreshed. A time so far off that it cannot be told is as good as none.
    pub(super) end_at: Option<Instant>,
    /// Seconds until the token expires, as clients are told: at least one, for 0 says that it does not.
    pub(super) ttl: Option<u32>,
}

impl Expiry {
    pub(super) fn of(node: &Node, expires_at: Option<Timestamp>) -> Self {
        let left = expires_at.map(|expiry| expiry.since(node.clock.now()));
        let with_grace = left.and_then(|left| left.checked_add(node.config.timing.expired_grace));
        Self {
            end_at: with_grace.and_then(|left| Instant::now().checked_add(left)),
            ttl: left.map(|left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1)),
        }
    }
}
