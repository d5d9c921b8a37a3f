//! Subscribing: at the top of the stream, or from where the client was.

use std::sync::Arc;

use tidewire::{Position, Received, Timestamp};
use tidewire_protocol::codes::{ErrorCode, UnsubscribeCode};
use tidewire_protocol::{
    Filter, Opaque, PushBody, Reply, ReplyBody, SubRefreshRequest, SubRefreshResult, Subscribe,
    SubscribeRequest, SubscribeResult,
};
use tokio::time::Instant;

use super::asking::refresh_time;
use super::attendance::Attendance;
use super::connection::{Admitted, Connection};
use super::session::Expiry;
use super::subscriptions::Subscriptions;
use crate::config::{ChannelRule, RecoveryMode};
use crate::failure::Failure;
use crate::history::epoch_of;
use crate::hooks::Denied;
use crate::hub::outbox::{Frame, Outbox};
use crate::hub::recovery::{Events, Newest, Step};
use crate::hub::registry::Lease;
use crate::hub::relay::{ConnectionKey, Mode, Relay, Side, Since, Standing, Terms};
use crate::metrics::{Recovery, TenantMetrics};
use crate::node::Node;
use crate::permission::{self, Action};
use crate::publication::{Form, Prepared};
use crate::tenants::Tenant;
use crate::tokens::{RawOptions, Refusal, SubscriptionClaims, SubscriptionOptions};

/// How often joining is tried: again with the end of the stream for a client that is ahead of the relay, and again on a
/// fresh relay when the one it found ends at that moment.
const JOIN_TRIES: usize = 3;

/// The one kind of delta that there is.
const FOSSIL: &str = "fossil";

/// A connection's subscription to a channel; dropping it ends it.
pub(super) struct Subscription {
    pub(super) relay: Arc<Relay>,
    pub(super) connection: ConnectionKey,
    metrics: Arc<TenantMetrics>,
    attendance: Option<Attendance>,
    /// When it ends, unless its token is refreshed.
    pub(super) end_at: Option<Instant>,
    /// When a backend is asked whether it goes on.
    pub(super) refresh_at: Option<Instant>,
    /// Keeps the relay open; given back after leaving it.
    _lease: Lease,
}

impl Subscription {
    fn new(relay: Arc<Relay>, connection: ConnectionKey, metrics: Arc<TenantMetrics>, lease: Lease) -> Self {
        metrics.subscriptions.inc();
        Self { relay, connection, metrics, attendance: None, end_at: None, refresh_at: None, _lease: lease }
    }

    pub(super) fn channel(&self) -> &str {
        self.relay.name()
    }

    /// Ends it, and has its subscriber out of the channel when this returns.
    pub(super) async fn end(mut self) {
        self.relay.leave(self.connection);
        if let Some(attendance) = self.attendance.take() {
            attendance.end().await;
        }
    }

    /// Has it end with its token; seconds until the token expires.
    fn watch_expiry(&mut self, node: &Node, expires_at: Option<Timestamp>) -> Option<u32> {
        let Expiry { end_at, ttl } = Expiry::of(node, expires_at);
        (self.end_at, self.refresh_at) = (end_at, None);
        ttl
    }

    /// The same where a backend, and not the client, is asked for more time.
    pub(super) fn watch_refresh(&mut self, node: &Node, expires_at: Option<Timestamp>) {
        self.watch_expiry(node, expires_at);
        self.refresh_at = refresh_time(node.clock.now(), expires_at);
    }

    /// Whether it goes on; not so once the server ended it because events were missed.
    pub(super) fn is_live(&self) -> bool {
        self.relay.has(self.connection)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.relay.leave(self.connection);
        self.metrics.subscriptions.dec();
    }
}

/// What a client may have.
struct Allowed {
    rule: ChannelRule,
    options: SubscriptionOptions,
    expires_at: Option<Timestamp>,
    /// Whether a backend, and not the client, is asked for more time.
    is_refreshed_here: bool,
}

/// Whether what is in a channel may be seen without a subscription to it. Where a backend has the last word it may not: the
/// backend was not asked.
///
/// # Errors
/// It may not, and there is no subscription.
pub(super) fn subscriber(
    rule: &ChannelRule,
    subscriptions: &Subscriptions,
    channel: &str,
) -> Result<(), Failure> {
    match rule.ask.subscribe.is_none() || subscriptions.get(channel).is_some_and(Subscription::is_live) {
        true => Ok(()),
        false => Err(ErrorCode::PERMISSION_DENIED.into()),
    }
}

/// The rule of a channel, with what a token puts aside of it.
fn overridden(rule: &ChannelRule, options: &SubscriptionOptions) -> ChannelRule {
    let mut rule = rule.clone();
    rule.presence = options.overrides.presence.unwrap_or(rule.presence);
    rule.join_leave = options.overrides.join_leave.unwrap_or(rule.join_leave);
    rule
}

/// What is asked of a subscription.
pub(super) struct Asked<'a> {
    pub(super) channel: &'a str,
    pub(super) rule: &'a ChannelRule,
    pub(super) terms: Terms,
    /// Where the subscriber was, if it wants what followed.
    pub(super) since: Option<Since>,
    pub(super) rejects_unrecovered: bool,
}

/// A subscription whose subscriber has not been told of it yet; what comes is held for it.
pub(super) struct Joined {
    subscription: Subscription,
    terms: Terms,
    was_recovering: bool,
    start: Start,
    /// What the application says with it.
    data: Option<Opaque<'static>>,
    /// Seconds until its token expires.
    ttl: Option<u32>,
}

/// Where a subscription starts.
enum Start {
    /// Here; the position, if the channel is kept.
    Here(Option<Position>),
    /// Here, and nothing was missed.
    Current(Position),
    /// After what was missed: its first part, and where it ends.
    Behind { from: Position, missed: Events, top: Position },
    /// After the newest event, whatever was missed; without one if no event passes its filter.
    Newest { event: Option<Received>, top: Position },
}

impl Asked<'_> {
    /// What a client asks for.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn of<'a>(
        request: &'a SubscribeRequest<'_>,
        rule: &'a ChannelRule,
        form: Form,
    ) -> Result<Asked<'a>, Failure> {
        if request.kind != 0 {
            let message = format!("not available: subscription type {}", request.kind);
            return Err(Failure::new(ErrorCode::NOT_AVAILABLE, message));
        }
        let filter = (request.tf.as_ref()).map(|node| Filter::new(node).map(Arc::new)).transpose();
        let filter = filter
            .map_err(|error| Failure::new(ErrorCode::BAD_REQUEST, format!("bad request: tf: {error}")))?;
        // What is left out by a filter is no base of what comes, so a subscription with one gets all data whole.
        let is_delta = request.delta == FOSSIL && filter.is_none();
        let is_kept = rule.keep.is_some();
        Ok(Asked {
            channel: &request.channel,
            rule,
            terms: Terms {
                form: Form { is_delta, ..form },
                filter,
                takes_movements: request.join_leave && rule.join_leave,
                side: Side::Client,
            },
            since: (is_kept && request.recover).then(|| Since {
                epoch: epoch_of(&request.epoch),
                offset: request.offset,
                end: None,
            }),
            rejects_unrecovered: request.rejects_unrecovered(),
        })
    }
}

impl Connection {
    pub(super) async fn subscribe(&mut self, id: u32, request: &SubscribeRequest<'_>) -> Result<(), Denied> {
        let channel: &str = &request.channel;
        let Allowed { rule, options, expires_at, is_refreshed_here } =
            self.allowed(channel, &request.token, request.data.as_ref()).await?;
        let (node, outbox, key) = (self.node.clone(), self.outbox.clone(), self.place.key);
        let (form, member) = (self.form, self.member(&options));
        let Admitted { tenant, subscriptions, telling, .. } = self.admitted()?;
        let asked = Asked::of(request, &rule, form)?;
        if subscriptions.has_live(channel).await {
            return Err(ErrorCode::ALREADY_SUBSCRIBED.into());
        }
        let count_max = node.config.limits.subscriptions_per_connection_max;
        if subscriptions.len() >= count_max {
            let message =
                format!("connection has {count_max} subscriptions (limits.subscriptions_per_connection_max)");
            return Err(Failure::new(ErrorCode::LIMIT_EXCEEDED, message).into());
        }
        let mut joined = join(tenant, key, &outbox, asked).await?;
        joined.data = options.data;
        match is_refreshed_here {
            true => joined.subscription.watch_refresh(&node, expires_at),
            false => joined.ttl = joined.subscription.watch_expiry(&node, expires_at),
        }
        joined.subscription.attendance =
            Attendance::begin(&node, tenant, channel, &rule, &member, telling.as_ref()).await?;
        let missed = joined.missed();
        let reply = Reply { id, body: ReplyBody::Subscribe(joined.result(&missed)) };
        let reply = Frame::new(reply.encode(form.encoding));
        drop(missed);
        if !joined.subscription.relay.answer(key, reply) {
            return Err(ErrorCode::INTERNAL.into());
        }
        subscriptions.add(joined.go_live(&outbox).await);
        Ok(())
    }

    /// What a client may subscribe to, by the token that it gives for it, or else by its connection's and by what a backend says.
    async fn allowed(
        &mut self,
        channel: &str,
        token: &str,
        data: Option<&Opaque<'_>>,
    ) -> Result<Allowed, Denied> {
        let (node, client) = (self.node.clone(), self.id.clone());
        let Admitted { tenant, identity, .. } = self.admitted()?;
        if tenant.is_personal_of_another(channel, &identity.user) {
            return Err(ErrorCode::PERMISSION_DENIED.into());
        }
        if token.is_empty() {
            let rule = permission::admit(&tenant.rules, channel, Action::Subscribe, identity)?.clone();
            let endpoint = rule.ask.subscribe.as_deref().and_then(|name| tenant.hooks.named(name)).cloned();
            let SubscriptionClaims { expires_at, options } = match endpoint {
                Some(endpoint) => self.ask_subscribe(&endpoint, channel, data).await?,
                None => SubscriptionClaims::default(),
            };
            let is_refreshed_here = rule.ask.sub_refresh.is_some();
            return Ok(Allowed { rule: overridden(&rule, &options), options, expires_at, is_refreshed_here });
        }
        let rule = permission::rule_of(&tenant.rules, channel)?;
        let verified =
            tenant.tokens.subscription(token, channel, &identity.user, &client, node.clock.now()).await;
        let claims = verified.map_err(|refusal| match refusal {
            Refusal::Expired => ErrorCode::TOKEN_EXPIRED.into(),
            Refusal::Unavailable(reason) => Failure { detail: Some(reason), ..ErrorCode::INTERNAL.into() },
            Refusal::Invalid(reason) => {
                tracing::info!(connection = &*client, channel, reason, "subscription refused");
                ErrorCode::PERMISSION_DENIED.into()
            }
        })?;
        let SubscriptionClaims { expires_at, options } = claims;
        Ok(Allowed { rule: overridden(rule, &options), options, expires_at, is_refreshed_here: false })
    }

    /// Replaces the token of a subscription.
    pub(super) async fn sub_refresh(
        &mut self,
        id: u32,
        request: &SubRefreshRequest<'_>,
    ) -> Result<(), Denied> {
        let channel: &str = &request.channel;
        if request.token.is_empty() {
            return Err(Failure::new(ErrorCode::BAD_REQUEST, "bad request: token is missing").into());
        }
        let Allowed { expires_at, .. } = self.allowed(channel, &request.token, None).await?;
        let node = self.node.clone();
        let Admitted { subscriptions, .. } = self.admitted()?;
        let subscription = subscriptions.get_mut(channel).filter(|subscription| subscription.is_live());
        let Some(subscription) = subscription else {
            let message = "bad request: there is no such subscription";
            return Err(Failure::new(ErrorCode::BAD_REQUEST, message).into());
        };
        let ttl = subscription.watch_expiry(&node, expires_at);
        let result = SubRefreshResult { expires: ttl.is_some(), ttl: ttl.unwrap_or_default() };
        self.reply(id, ReplyBody::SubRefresh(result));
        Ok(())
    }

    /// Subscribes because the server wants it, and tells the client so.
    pub(super) async fn subscribe_from_server(
        &mut self,
        channel: &str,
        options: RawOptions,
        since: Option<(u64, String)>,
    ) -> Result<(), Failure> {
        // They were checked where they came in.
        let options = SubscriptionOptions::try_from(options).unwrap_or_default();
        let Some(joined) = self.join_from_server(channel, options, since).await? else { return Ok(()) };
        let missed = joined.missed();
        let SubscribeResult { recoverable, positioned, epoch, offset, publications, data, .. } =
            joined.result(&missed);
        self.push(channel, PushBody::Subscribe(Subscribe { recoverable, positioned, epoch, offset, data }));
        for publication in publications {
            self.push(channel, PushBody::Publication(publication));
        }
        drop(missed);
        let subscription = joined.go_live(&self.outbox).await;
        self.admitted()?.subscriptions.add(subscription);
        Ok(())
    }

    /// Joins because the server wants it. The client has no say in it, and a subscription that is there stays: `None` then.
    pub(super) async fn join_from_server(
        &mut self,
        channel: &str,
        options: SubscriptionOptions,
        since: Option<(u64, String)>,
    ) -> Result<Option<Joined>, Failure> {
        let (node, outbox, key, form) = (self.node.clone(), self.outbox.clone(), self.place.key, self.form);
        let member = self.member(&options);
        let Admitted { tenant, subscriptions, telling, .. } = self.admitted()?;
        let rule = overridden(permission::rule_of(&tenant.rules, channel)?, &options);
        if subscriptions.has_live(channel).await {
            return Ok(None);
        }
        let since = since.map(|(offset, epoch)| Since { epoch: epoch_of(&epoch), offset, end: None });
        let takes_movements = rule.join_leave && options.overrides.force_push_join_leave == Some(true);
        let asked = Asked {
            channel,
            rule: &rule,
            terms: Terms { form, takes_movements, side: Side::Server, filter: None },
            since: since.filter(|_| rule.keep.is_some()),
            rejects_unrecovered: false,
        };
        let mut joined = join(tenant, key, &outbox, asked).await?;
        joined.data = options.data;
        joined.subscription.attendance =
            Attendance::begin(&node, tenant, channel, &rule, &member, telling.as_ref()).await?;
        Ok(Some(joined))
    }

    /// Gives back what a subscription holds that was ended from outside.
    pub(super) async fn forget_ended(&mut self, channel: &str) {
        let Ok(Admitted { subscriptions, .. }) = self.admitted() else { return };
        let _goes_on = subscriptions.has_live(channel).await;
    }

    /// Ends a subscription; ending one that is not there is no error.
    pub(super) async fn unsubscribe(&mut self, channel: &str) {
        let Ok(Admitted { subscriptions, .. }) = self.admitted() else { return };
        if let Some(subscription) = subscriptions.remove(channel) {
            subscription.end().await;
        }
    }
}

/// Makes a subscription, and reads the first of what was missed.
///
/// # Errors
/// Those of the engine, and 112 where events are lost and the subscriber would rather not subscribe then.
pub(super) async fn join(
    tenant: &Tenant,
    key: ConnectionKey,
    outbox: &Arc<Outbox>,
    asked: Asked<'_>,
) -> Result<Joined, Failure> {
    if asked.since.is_some() && asked.rule.recovery == RecoveryMode::Cache {
        return join_at_newest(tenant, key, outbox, asked).await;
    }
    let Asked { channel, rule, terms, mut since, rejects_unrecovered } = asked;
    let mode = if rule.keep.is_some() { Mode::Kept } else { Mode::Live };
    let was_recovering = since.is_some();
    for _ in 0..JOIN_TRIES {
        let (lease, relay) = tenant.registry.lease(channel, mode).await?;
        let subscription = Subscription::new(relay.clone(), key, tenant.metrics.clone(), lease);
        let Ok(standing) = relay.join(key, outbox, terms.clone(), since) else { continue };
        let start = match (standing, &mut since) {
            (Standing::Ahead, Some(since)) => {
                since.end = Some(relay.end_of_stream().await?);
                continue;
            }
            // Only who was somewhere can be ahead or behind.
            (Standing::Ahead, None) => continue,
            (Standing::Behind(top), since) => {
                let offset = since.map_or(top.offset, |since| since.offset);
                let from = Position { epoch: top.epoch, offset };
                match relay.recovery().step(from, top.offset).await? {
                    Step::Events(missed) => Start::Behind { from, missed, top },
                    Step::Lost => Start::Here(None),
                }
            }
            (Standing::Lost(_), _) => Start::Here(None),
            (Standing::Current(position), _) => Start::Current(position),
            (Standing::Fresh(top), _) => Start::Here(top),
        };
        let is_lost = was_recovering && matches!(start, Start::Here(_));
        if is_lost && rejects_unrecovered {
            tenant.metrics.recoveries.add(Recovery::Lost, 1);
            return Err(ErrorCode::UNRECOVERABLE_POSITION.into());
        }
        let start = match start {
            // What was held since is behind the new start, or before it.
            Start::Here(_) if is_lost => {
                tenant.metrics.recoveries.add(Recovery::Lost, 1);
                Start::Here(Some(relay.skip_to_top(key).ok_or(ErrorCode::INTERNAL)?))
            }
            Start::Current(position) => {
                tenant.metrics.recoveries.add(Recovery::Complete, 1);
                Start::Current(position)
            }
            start => start,
        };
        return Ok(Joined { subscription, terms, was_recovering, start, data: None, ttl: None });
    }
    Err(ErrorCode::INTERNAL.into())
}

/// As [`join`], for a subscriber that wants the newest event and what follows.
async fn join_at_newest(
    tenant: &Tenant,
    key: ConnectionKey,
    outbox: &Arc<Outbox>,
    asked: Asked<'_>,
) -> Result<Joined, Failure> {
    let Asked { channel, terms, since, rejects_unrecovered, .. } = asked;
    for _ in 0..JOIN_TRIES {
        let (lease, relay) = tenant.registry.lease(channel, Mode::Kept).await?;
        let subscription = Subscription::new(relay.clone(), key, tenant.metrics.clone(), lease);
        // What comes is held from here on, and what is read now is newer than all that came before.
        let Ok(_) = relay.join(key, outbox, terms.clone(), None) else { continue };
        let count_max = if terms.filter.is_some() { usize::MAX } else { 1 };
        let Newest { end: top, events } = relay.recovery().newest(count_max).await?;
        if !relay.follows(top) {
            continue;
        }
        if !relay.skip_to(key, top.offset) {
            return Err(ErrorCode::INTERNAL.into());
        }
        let is_at = |position: Position| position == top;
        let offset = since.map_or(0, |since| since.offset);
        let position = since.and_then(|since| Some(Position { epoch: since.epoch?, offset }));
        // Deltas begin with the event that it is given, so it is given one.
        let has_all = offset > 0 && position.is_some_and(is_at) && !terms.form.is_delta;
        let is_kept = events.first().and_then(|newest| newest.position).is_some_and(is_at);
        let start = match (has_all, is_kept) {
            (true, _) => Start::Current(top),
            (false, true) => {
                Start::Newest { event: events.iter().find(|event| terms.admit(event)).cloned(), top }
            }
            (false, false) if rejects_unrecovered => {
                tenant.metrics.recoveries.add(Recovery::Lost, 1);
                return Err(ErrorCode::UNRECOVERABLE_POSITION.into());
            }
            (false, false) => Start::Here(Some(top)),
        };
        if !matches!(start, Start::Here(_)) {
            tenant.metrics.recoveries.add(Recovery::Complete, 1);
        }
        return Ok(Joined { subscription, terms, was_recovering: true, start, data: None, ttl: None });
    }
    Err(ErrorCode::INTERNAL.into())
}

impl Joined {
    /// The first of what was missed, ready to be written.
    pub(super) fn missed(&self) -> Vec<Prepared<'_>> {
        match &self.start {
            Start::Behind { missed, .. } => missed
                .iter()
                .filter_map(|received| self.subscription.relay.prepare(received, &self.terms))
                .collect(),
            Start::Newest { event, .. } => {
                event.iter().filter_map(|event| self.subscription.relay.prepare(event, &self.terms)).collect()
            }
            Start::Here(_) | Start::Current(_) => Vec::new(),
        }
    }

    /// What the subscriber is told. One that missed something takes `offset` for its position and advances it with each event.
    pub(super) fn result<'m>(&self, missed: &'m [Prepared<'_>]) -> SubscribeResult<'m> {
        let (position, recovered) = match &self.start {
            Start::Here(None) => return self.told(),
            Start::Here(Some(top)) => (top, false),
            Start::Current(position) => (position, true),
            Start::Behind { from, .. } => (from, true),
            Start::Newest { top, .. } => (top, true),
        };
        SubscribeResult {
            recoverable: true,
            positioned: true,
            epoch: position.epoch.to_string().into(),
            offset: position.offset,
            publications: missed.iter().map(Prepared::publication).collect(),
            recovered,
            was_recovering: self.was_recovering,
            ..self.told()
        }
    }

    /// What every subscriber is told, wherever it starts.
    fn told(&self) -> SubscribeResult<'static> {
        SubscribeResult {
            expires: self.ttl.is_some(),
            ttl: self.ttl.unwrap_or_default(),
            data: self.data.clone(),
            delta: self.terms.form.is_delta,
            ..SubscribeResult::default()
        }
    }

    /// Gives the subscriber, who has been told of its subscription, the rest of what it missed, step by step as its outbox
    /// has room, and then what comes. Trouble ends the subscription, and the client comes back for the rest.
    pub(super) async fn go_live(self, outbox: &Outbox) -> Subscription {
        let Self { subscription, terms, start, .. } = self;
        let Subscription { relay, connection: key, .. } = &subscription;
        if let Start::Behind { missed, top, .. } = start {
            let mut position = missed.end().unwrap_or(top);
            while position.offset < top.offset && !outbox.has_ended() {
                outbox.room().await;
                let Ok(Step::Events(missed)) = relay.recovery().step(position, top.offset).await else {
                    relay.expel(*key, UnsubscribeCode::INSUFFICIENT_STATE);
                    return subscription;
                };
                for prepared in missed.iter().filter_map(|received| relay.prepare(received, &terms)) {
                    outbox.room().await;
                    outbox.push(prepared.push(relay.name()));
                }
                position = missed.end().unwrap_or(top);
            }
            outbox.room().await;
            subscription.metrics.recoveries.add(Recovery::Complete, 1);
        }
        relay.catch_up(*key);
        subscription
    }
}
