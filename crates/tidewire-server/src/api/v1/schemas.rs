//! Schemas: what a tenant has agreed of its events, one by one and as documents.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use tidewire::{Catalog, Contract, Definition};
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::v1::{Schema, SchemaSummary, SchemaVersions, Schemas};

use super::exchange::{Refused, bad_request, query, respond};
use crate::api::exchange::{Caller, Refusal, answer};
use crate::failure::Failure;
use crate::node::Node;

/// Types that are named to a caller who asks for one that is not there.
const NEAREST_MAX: usize = 3;
/// How like a name must be to be named, from 0 to 1.
const LIKENESS_MIN: f64 = 0.7;

pub(super) async fn list(State(node): State<Arc<Node>>, Caller(tenant, _): Caller) -> Response {
    let catalog = tenant.handle.catalog();
    let newest = catalog.types().filter_map(|event_type| catalog.newest(event_type));
    let schemas = newest.map(|contract| {
        let Definition { event_type, channel, description, is_signed, is_sealed, .. } = contract.definition();
        SchemaSummary {
            event_type: event_type.to_string(),
            versions: catalog.versions(event_type).collect(),
            channel: channel.as_deref().map(Into::into),
            is_signed: *is_signed,
            is_sealed: *is_sealed,
            description: description.as_deref().map(Into::into),
        }
    });
    respond(&node, "schemas", Ok(Schemas { schemas: schemas.collect() }))
}

pub(super) async fn versions(
    State(node): State<Arc<Node>>,
    Caller(tenant, _): Caller,
    Path(event_type): Path<String>,
) -> Response {
    let catalog = tenant.handle.catalog();
    let versions = catalog.versions(&event_type).filter_map(|version| catalog.get(&event_type, version));
    let versions: Vec<_> = versions.map(|contract| view(contract)).collect();
    let outcome = match versions.is_empty() {
        true => Err(no_such_type(&catalog, &event_type)),
        false => Ok(SchemaVersions { event_type, versions }),
    };
    respond(&node, "schema_versions", outcome)
}

pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Caller(tenant, _): Caller,
    Path((event_type, version)): Path<(String, String)>,
) -> Response {
    let catalog = tenant.handle.catalog();
    let outcome = match version.parse() {
        Ok(version) => match catalog.get(&event_type, version) {
            Some(contract) => Ok(view(contract)),
            None => Err(no_such_version(&catalog, &event_type, version)),
        },
        Err(_) => Err(bad_request(format!("version {version:?} is no number, such as 1"))),
    };
    respond(&node, "schema", outcome)
}

pub(super) async fn catalog(State(node): State<Arc<Node>>, Caller(tenant, _): Caller) -> Response {
    answer(&node, "catalog", Ok(Bytes::from(tenant.handle.catalog().to_json())))
}

/// The query of an AsyncAPI document: what it says of itself.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AboutDocument {
    title: Option<String>,
    version: Option<String>,
}

pub(super) async fn asyncapi(State(node): State<Arc<Node>>, Caller(tenant, _): Caller, uri: Uri) -> Response {
    let outcome = query(&uri).map(|AboutDocument { title, version }| {
        let title = title.unwrap_or_else(|| format!("Events of {}", tenant.handle.name()));
        tenant.handle.catalog().asyncapi(&title, version.as_deref().unwrap_or("1.0.0"))
    });
    respond(&node, "asyncapi", outcome)
}

fn view(contract: &Contract) -> Schema {
    let Definition { event_type, version, channel, description, is_signed, is_sealed, schema } =
        contract.definition();
    Schema {
        event_type: event_type.to_string(),
        version: *version,
        uri: contract.uri().into(),
        channel: channel.as_deref().map(Into::into),
        description: description.as_deref().map(Into::into),
        is_signed: *is_signed,
        is_sealed: *is_sealed,
        schema: schema.clone(),
    }
}

fn not_found(text: String) -> Refused {
    Refusal::new(StatusCode::NOT_FOUND, Failure::new(ErrorCode::NOT_FOUND, text)).into()
}

fn no_such_version(catalog: &Catalog, event_type: &str, version: u32) -> Refused {
    let known: Vec<_> = catalog.versions(event_type).map(|version| version.to_string()).collect();
    match known.is_empty() {
        true => no_such_type(catalog, event_type),
        false => not_found(format!(
            "event type {event_type:?} has no version {version}; it has {}",
            known.join(", ")
        )),
    }
}

fn no_such_type(catalog: &Catalog, event_type: &str) -> Refused {
    let mut known: Vec<_> =
        catalog.types().map(|known| (strsim::jaro_winkler(event_type, known), known)).collect();
    known.sort_by(|one, other| other.0.total_cmp(&one.0));
    let nearest = known.iter().take_while(|(likeness, _)| *likeness > LIKENESS_MIN).take(NEAREST_MAX);
    let nearest: Vec<_> = nearest.map(|(_, known)| format!("{known:?}")).collect();
    let hint = match (known.is_empty(), nearest.is_empty()) {
        (true, _) => "no catalog is set for this tenant (tenants.NAME.events)".to_owned(),
        (false, true) => "GET /v1/schemas lists those that there are".to_owned(),
        (false, false) => format!("did you mean {}?", nearest.join(" or ")),
    };
    not_found(format!("no event type {event_type:?}; {hint}"))
}
