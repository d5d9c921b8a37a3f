//! `/api/batch`: several calls in one request, each with an outcome of its own.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::value::RawValue;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::{ApiReply, BatchReply, BatchRequest, BatchResult};

use super::exchange::{Refusal, encode_bare, parse};
use super::methods;
use crate::failure::Failure;
use crate::node::Node;
use crate::tenants::Tenant;

/// Calls in one request.
const COMMANDS_MAX: usize = 1_000;

pub(super) async fn run(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: BatchRequest<'_> = parse(body)?;
    if request.commands.len() > COMMANDS_MAX {
        let message = format!("{} commands, limit is {COMMANDS_MAX}", request.commands.len());
        return Err(Failure::new(ErrorCode::BAD_REQUEST, message).into());
    }
    let calls = request.commands.iter().map(|command| async {
        let mut command = command.iter();
        match (command.next(), command.next()) {
            (Some((name, body)), None) => reply(name, call(node, tenant, name, body).await),
            _ => failed(Failure::new(ErrorCode::BAD_REQUEST, "bad request: a command has one method")),
        }
    });
    let replies = match request.parallel {
        true => join_all(calls).await,
        false => {
            let mut replies = Vec::new();
            for call in calls {
                replies.push(call.await);
            }
            replies
        }
    };
    Ok(encode_bare(&BatchResult { replies }))
}

async fn call(node: &Arc<Node>, tenant: &Tenant, name: &str, body: &RawValue) -> Result<Bytes, Refusal> {
    if name == "batch" {
        return Err(Failure::new(ErrorCode::BAD_REQUEST, "bad request: a batch in a batch").into());
    }
    let body = Bytes::copy_from_slice(body.get().as_bytes());
    // A batch that could hold batches would be without end to the compiler too.
    Box::pin(methods::call(node, tenant, name, &body)).await
}

fn reply(name: &str, outcome: Result<Bytes, Refusal>) -> BatchReply<'static> {
    let body = match outcome {
        Ok(body) => body,
        Err(refusal) => return failed(refusal.into_parts().1),
    };
    match serde_json::from_slice(&body) {
        Ok(ApiReply::<&RawValue>::Result(result)) => {
            BatchReply { error: None, result: [(name.to_owned().into(), result.to_owned())].into() }
        }
        _ => failed(ErrorCode::INTERNAL.into()),
    }
}

fn failed(failure: Failure) -> BatchReply<'static> {
    if let Some(detail) = &failure.detail {
        tracing::error!(detail, "a call of a batch failed");
    }
    BatchReply { error: Some(failure.into()), ..BatchReply::default() }
}
