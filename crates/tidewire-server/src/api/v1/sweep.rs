//! Replays and purges of dead letters, a bounded part with each request.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tidewire::{DeadLetters, Retention, Swept};
use tidewire_protocol::v1::{self, DeadLetterFilter, SweepRequest};

use super::dead_letters::pick;
use super::exchange::{OnChannel, OnGroup, Refused, bad_request, respond};
use crate::api::exchange::{Body, parse};
use crate::node::Node;
use crate::permission;
use crate::publishing;

/// Letters of one request: more would take longer than a proxy waits.
const LETTERS_MAX: u64 = 1_000;
/// How long a request with a rate may take.
const PACED_SECONDS_MAX: u64 = 5;

pub(super) async fn replay(
    State(node): State<Arc<Node>>,
    OnGroup { group, on }: OnGroup,
    Body(body): Body,
) -> Response {
    let outcome = async {
        let request: SweepRequest = parse(&body)?;
        let rate_max = request.rate.map_or(u64::MAX, |rate| u64::from(rate.max(1)) * PACED_SECONDS_MAX);
        let mut replay = pick(group.dead_letters(), request.filter)?
            .replay()
            .limit(request.limit.unwrap_or(LETTERS_MAX).min(LETTERS_MAX).min(rate_max))
            .by(&on.who(&request.by)?);
        let target = request.to_channel.as_deref().unwrap_or(on.channel.name());
        if let Some(retention) = retention_of(&on, target)? {
            replay = replay.retention(retention);
        }
        if let Some(channel) = &request.to_channel {
            replay = replay.to_channel(channel);
        }
        if let Some(rate) = request.rate {
            replay = replay.rate(rate);
        }
        if let Some(next) = &request.resume {
            replay = replay.resume(next);
        }
        if request.dry_run {
            replay = replay.dry_run();
        }
        Ok(view(replay.await?))
    };
    respond(&node, "dead_replay", outcome.await)
}

/// What the tenant's rule keeps of a channel; a channel without one keeps what the engine keeps by default.
fn retention_of(on: &OnChannel, channel: &str) -> Result<Option<Retention>, Refused> {
    tidewire::name::check_channel(channel)?;
    let rule = permission::rule_of(&on.tenant.rules, channel).ok();
    Ok(rule.and_then(|rule| rule.keep).map(publishing::retention))
}

pub(super) async fn purge(
    State(node): State<Arc<Node>>,
    OnGroup { group, on }: OnGroup,
    Body(body): Body,
) -> Response {
    let outcome = async {
        let request: SweepRequest = parse(&body)?;
        if request.to_channel.is_some() || request.rate.is_some() {
            return Err(bad_request("a purge has no to_channel and no rate"));
        }
        let letters = of_purge(group.dead_letters(), &request)?;
        let limit = request.limit.unwrap_or(LETTERS_MAX).min(LETTERS_MAX);
        let mut purge = letters.purge().limit(limit).by(&on.who(&request.by)?);
        if let Some(next) = &request.resume {
            purge = purge.resume(next);
        }
        if request.dry_run {
            purge = purge.dry_run();
        }
        Ok(view(purge.await?))
    };
    respond(&node, "dead_purge", outcome.await)
}

fn of_purge(letters: DeadLetters, request: &SweepRequest) -> Result<DeadLetters, Refused> {
    if request.filter == DeadLetterFilter::default() && !request.all {
        return Err(bad_request(
            "a purge without a filter removes every dead letter: say so with \"all\": true",
        ));
    }
    pick(letters, request.filter.clone())
}

fn view(swept: Swept) -> v1::Swept {
    let Swept { count, duplicate_count, next } = swept;
    v1::Swept { count, duplicate_count, next: next.map(Into::into) }
}
