//! Groups for other languages: deliveries are fetched under a lease, settled, and held for longer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tidewire::{Channel, Delivery, Outcome, Position};
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::v1::{
    self, ExtendRequest, Extended, FetchRequest, Fetched, SettleRequest, Settled, Settlement,
};
use uuid::Uuid;

use super::dead_letters::{Shown, event_view};
use super::exchange::{OnGroup, Refused, bad_request, respond};
use crate::api::exchange::{Body, Refusal, parse};
use crate::failure::Failure;
use crate::node::Node;
use crate::publication::View;
use crate::pulls::Answered;

const DELIVERIES_MAX: usize = 1_000;
/// How long a settle waits until it is kept.
const KEPT_WITHIN: Duration = Duration::from_secs(10);
const WAIT_MS_MAX: u64 = 30_000;
const LEASE_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;

pub(super) async fn fetch(
    State(node): State<Arc<Node>>,
    OnGroup { group, on }: OnGroup,
    Body(body): Body,
) -> Response {
    let outcome = async {
        let FetchRequest { limit, wait_ms, lease_ms } = match body.is_empty() {
            true => FetchRequest::default(),
            false => parse(&body)?,
        };
        if !(1..=DELIVERIES_MAX).contains(&limit) {
            return Err(bad_request(format!("limit is {limit}, allowed is 1 to {DELIVERIES_MAX}")));
        }
        if wait_ms > WAIT_MS_MAX {
            return Err(bad_request(format!("wait_ms is {wait_ms}, allowed is up to {WAIT_MS_MAX}")));
        }
        let (wait, lease) = (Duration::from_millis(wait_ms), lease_of(lease_ms)?);
        let fetch = node.pulls.fetch(&group, limit, wait, lease);
        // A node that goes down answers at once, so that the caller asks another one.
        let Some(fetch) = node.tasks.stopping().run_until_cancelled(fetch).await else {
            return Ok(Fetched::default());
        };
        Ok(fetch?.map_or_else(Fetched::default, |fetch| Fetched {
            lease: Some(fetch.lease.to_string()),
            deliveries: fetch.deliveries.iter().map(|delivery| view(&on.channel, delivery)).collect(),
        }))
    };
    respond(&node, "group_fetch", outcome.await)
}

pub(super) async fn settle(
    State(node): State<Arc<Node>>,
    OnGroup { group, .. }: OnGroup,
    Body(body): Body,
) -> Response {
    let outcome = async {
        let request: SettleRequest = parse(&body)?;
        if request.outcomes.len() > DELIVERIES_MAX {
            let seen = request.outcomes.len();
            return Err(bad_request(format!("request has {seen} outcomes, limit is {DELIVERIES_MAX}")));
        }
        // All of them are read before the first takes effect.
        let outcomes: Vec<(Position, Outcome)> =
            request.outcomes.into_iter().map(outcome_of).collect::<Result<_, Refused>>()?;
        let lease = id_of(&request.lease)?;
        let settled = node.pulls.settle(group.path(), lease, outcomes);
        let Answered { settling, mut lost } = settled.ok_or_else(|| no_lease(&request.lease))?;
        let kept = async {
            let mut settled = 0;
            for (position, settling) in settling {
                match settling.await {
                    Ok(()) => settled += 1,
                    Err(_) => lost.push(position),
                }
            }
            settled
        };
        let settled = tokio::time::timeout(KEPT_WITHIN, kept).await.map_err(|_| not_kept())?;
        Ok(Settled { settled, lost: texts(&lost) })
    };
    respond(&node, "group_settle", outcome.await)
}

pub(super) async fn extend(
    State(node): State<Arc<Node>>,
    OnGroup { group, .. }: OnGroup,
    Body(body): Body,
) -> Response {
    let outcome = || {
        let request: ExtendRequest = parse(&body)?;
        let lease = id_of(&request.lease)?;
        let kept = node.pulls.extend(group.path(), lease, lease_of(request.lease_ms)?);
        let kept = kept.ok_or_else(|| no_lease(&request.lease))?;
        Ok(Extended { held: texts(&kept.held), lost: texts(&kept.lost) })
    };
    respond(&node, "group_extend", outcome())
}

/// That an answer of the engine did not come in time.
fn not_kept() -> Refused {
    let text = format!(
        "outcomes were not kept within {KEPT_WITHIN:?}: they will be if the engine is back before the lease is over, else the \
         deliveries come again"
    );
    tidewire::Error::new(tidewire::ErrorKind::TimedOut, text).into()
}

fn lease_of(lease_ms: u64) -> Result<Duration, Refused> {
    if LEASE_MS.contains(&lease_ms) {
        return Ok(Duration::from_millis(lease_ms));
    }
    let (min, max) = (LEASE_MS.start(), LEASE_MS.end());
    Err(bad_request(format!("lease_ms is {lease_ms}, allowed is {min} to {max}")))
}

fn id_of(lease: &str) -> Result<Uuid, Refused> {
    lease.parse().map_err(|_| bad_request(format!("lease {lease:?} is none that a fetch answered")))
}

fn no_lease(lease: &str) -> Refused {
    let message = format!(
        "lease {lease} is not held by this node: its time is over, all that it had is settled, or another node gave it. \
         What was not settled comes again"
    );
    Refusal::new(StatusCode::CONFLICT, Failure::new(ErrorCode::CONFLICT, message)).into()
}

fn outcome_of(settlement: Settlement) -> Result<(Position, Outcome), Refused> {
    let Settlement { id, outcome, after_ms, reason } = settlement;
    let after = after_ms.map(Duration::from_millis);
    let outcome = match &*outcome {
        "ack" => Outcome::Ack,
        "retry" => Outcome::Retry { after, error: reason.into() },
        "reject" => Outcome::reject(reason),
        "park" => Outcome::park(reason),
        "hand_back" => Outcome::HandBack,
        _ => {
            let known = "ack, retry, reject, park, hand_back";
            return Err(bad_request(format!("outcome {outcome:?} of {id} is unknown; known are {known}")));
        }
    };
    Ok((id.parse()?, outcome))
}

fn texts(positions: &[Position]) -> Vec<String> {
    positions.iter().map(ToString::to_string).collect()
}

fn view(channel: &Channel, delivery: &Delivery) -> v1::Delivery {
    v1::Delivery {
        id: delivery.position().to_string(),
        time: delivery.time().to_string(),
        attempt: delivery.attempt(),
        first_delivered: delivery.first_delivered().to_string(),
        fence: delivery.fence(),
        event: event_view(channel, delivery.event(), Shown::Data(View::Whole)),
    }
}
