//! Subscribing: at the top of the stream, or from where the client was.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tidewire::Position;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::{Reply, ReplyBody, SubscribeRequest, SubscribeResult};

use super::connection::{Admitted, Connection};
use crate::failure::Failure;
use crate::history::epoch_of;
use crate::hub::outbox::{Frame, Outbox};
use crate::hub::recovery::Step;
use crate::hub::registry::Lease;
use crate::hub::relay::{ConnectionKey, Mode, Relay, Since, Standing};
use crate::metrics::{Metrics, Recovery, RecoveryLabel};
use crate::permission::{self, Action};
use crate::publication::{Form, Prepared};

/// How often joining is tried: again with the end of the stream for a client that is ahead of the relay, and again on a
/// fresh relay when the one it found ends at that moment.
const JOIN_TRIES: usize = 3;

/// A connection's subscription to a channel; dropping it ends it.
pub(super) struct Subscription {
    relay: Arc<Relay>,
    connection: ConnectionKey,
    gauge: Gauge,
    /// Keeps the relay open; given back after leaving it.
    _lease: Lease,
}

impl Subscription {
    fn new(relay: Arc<Relay>, connection: ConnectionKey, gauge: Gauge, lease: Lease) -> Self {
        gauge.inc();
        Self { relay, connection, gauge, _lease: lease }
    }

    /// Whether it goes on; not so once the server ended it because events were missed.
    fn is_live(&self) -> bool {
        self.relay.has(self.connection)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.relay.leave(self.connection);
        self.gauge.dec();
    }
}

/// What the reply to a subscribe command is made of.
#[derive(Clone, Copy)]
struct Answer {
    id: u32,
    was_recovering: bool,
    rejects_unrecovered: bool,
    form: Form,
}

impl Answer {
    /// The reply at once, where one can be given: see [`Relay::join`].
    fn at_join(self, standing: Standing) -> Option<Frame> {
        let result = match standing {
            Standing::Fresh(None) => SubscribeResult::default(),
            Standing::Fresh(Some(top)) => self.standing_at(top),
            Standing::Current(top) => SubscribeResult { recovered: true, ..self.standing_at(top) },
            Standing::Lost(top) if !self.rejects_unrecovered => self.standing_at(top),
            Standing::Lost(_) | Standing::Behind(_) | Standing::Ahead => return None,
        };
        Some(self.frame(result))
    }

    fn at_top(self, top: Position) -> Frame {
        self.frame(self.standing_at(top))
    }

    /// The client takes `from` for its position and advances it with each event.
    fn recovered(self, from: Position, missed: &[Prepared<'_>]) -> Frame {
        let publications = missed.iter().map(Prepared::publication).collect();
        self.frame(SubscribeResult { recovered: true, publications, ..self.standing_at(from) })
    }

    fn standing_at(self, position: Position) -> SubscribeResult<'static> {
        SubscribeResult {
            recoverable: true,
            positioned: true,
            epoch: position.epoch.to_string().into(),
            offset: position.offset,
            was_recovering: self.was_recovering,
            ..SubscribeResult::default()
        }
    }

    fn frame(self, result: SubscribeResult<'_>) -> Frame {
        Frame::new(Reply { id: self.id, body: ReplyBody::Subscribe(result) }.encode(self.form.encoding))
    }
}

impl Connection {
    pub(super) async fn subscribe(&mut self, id: u32, request: &SubscribeRequest<'_>) -> Result<(), Failure> {
        let (node, outbox, key) = (self.node.clone(), self.outbox.clone(), self.place.key);
        let form = self.form;
        let Admitted { tenant, identity, subscriptions } = self.admitted()?;
        let channel: &str = &request.channel;
        let rule = permission::admit(&tenant.rules, channel, Action::Subscribe, identity.is_authenticated())?;
        if request.kind != 0 {
            let message = format!("not available: subscription type {}", request.kind);
            return Err(Failure::new(ErrorCode::NOT_AVAILABLE, message));
        }
        match subscriptions.get(channel) {
            Some(subscription) if subscription.is_live() => return Err(ErrorCode::ALREADY_SUBSCRIBED.into()),
            Some(_) => drop(subscriptions.remove(channel)),
            None => {}
        }
        let count_max = node.config.limits.subscriptions_per_connection_max;
        if subscriptions.len() >= count_max {
            let message =
                format!("connection has {count_max} subscriptions (limits.subscriptions_per_connection_max)");
            return Err(Failure::new(ErrorCode::LIMIT_EXCEEDED, message));
        }
        let mode = if rule.keep.is_some() { Mode::Kept } else { Mode::Live };
        let mut since = (mode == Mode::Kept && request.recover).then(|| Since {
            epoch: epoch_of(&request.epoch),
            offset: request.offset,
            end: None,
        });
        let answer = Answer {
            id,
            was_recovering: since.is_some(),
            rejects_unrecovered: request.rejects_unrecovered(),
            form,
        };

        for _ in 0..JOIN_TRIES {
            let (lease, relay) = tenant.registry.lease(channel, mode).await?;
            let subscription = Subscription::new(relay.clone(), key, tenant.subscriptions.clone(), lease);
            let Ok(standing) = relay.join(key, &outbox, form, since, |standing| answer.at_join(standing))
            else {
                continue;
            };
            match (standing, &mut since) {
                (Standing::Ahead, Some(since)) => {
                    since.end = Some(relay.end_of_stream().await?);
                    continue;
                }
                (Standing::Behind(top), Some(since)) => {
                    let from = Position { epoch: top.epoch, offset: since.offset };
                    recover(&relay, key, &outbox, answer, from, top, &node.metrics).await?;
                }
                (Standing::Lost(_), _) => {
                    count(&node.metrics, Recovery::Lost);
                    if answer.rejects_unrecovered {
                        return Err(ErrorCode::UNRECOVERABLE_POSITION.into());
                    }
                }
                (Standing::Current(_), _) => count(&node.metrics, Recovery::Complete),
                (Standing::Fresh(_) | Standing::Behind(_) | Standing::Ahead, _) => {}
            }
            subscriptions.insert(channel.into(), subscription);
            return Ok(());
        }
        Err(ErrorCode::INTERNAL.into())
    }

    /// Ends a subscription; ending one that is not there is no error.
    pub(super) fn unsubscribe(&mut self, channel: &str) {
        if let Ok(admitted) = self.admitted() {
            admitted.subscriptions.remove(channel);
        }
    }
}

/// Gives a subscriber that is behind what it missed, step by step as its outbox has room, and then makes it live.
///
/// # Errors
/// Only before the reply is sent. Later trouble ends the subscription instead, and the client comes back for the rest.
async fn recover(
    relay: &Relay,
    key: ConnectionKey,
    outbox: &Outbox,
    answer: Answer,
    from: Position,
    top: Position,
    metrics: &Metrics,
) -> Result<(), Failure> {
    let Step::Events(missed) = relay.recovery().step(from, top.offset).await? else {
        count(metrics, Recovery::Lost);
        if answer.rejects_unrecovered {
            return Err(ErrorCode::UNRECOVERABLE_POSITION.into());
        }
        let is_there = relay.skip_to_top(key, |top| answer.at_top(top));
        return if is_there { Ok(()) } else { Err(ErrorCode::INTERNAL.into()) };
    };
    let prepared = missed.iter().map(|received| relay.prepare(received, answer.form));
    let prepared: Vec<Prepared<'_>> = prepared.collect();
    if !relay.answer(key, answer.recovered(from, &prepared)) {
        return Err(ErrorCode::INTERNAL.into());
    }
    let mut position = missed.end().unwrap_or(top);
    while position.offset < top.offset && !outbox.has_ended() {
        outbox.room().await;
        let Ok(Step::Events(missed)) = relay.recovery().step(position, top.offset).await else {
            relay.expel(key);
            return Ok(());
        };
        for received in missed.iter() {
            outbox.room().await;
            outbox.push(relay.prepare(received, answer.form).push(relay.name()));
        }
        position = missed.end().unwrap_or(top);
    }
    outbox.room().await;
    count(metrics, Recovery::Complete);
    relay.catch_up(key);
    Ok(())
}

fn count(metrics: &Metrics, outcome: Recovery) {
    metrics.recoveries.get_or_create(&RecoveryLabel { outcome }).inc();
}
