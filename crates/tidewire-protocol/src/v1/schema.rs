//! Bodies about what a tenant has agreed of its events.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::omit::is_default;

/// `GET /v1/schemas`: the event types of the caller's tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Schemas {
    /// By name.
    pub schemas: Vec<SchemaSummary>,
}

/// An event type; what its newest version says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SchemaSummary {
    /// The type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its versions, the oldest first.
    pub versions: Vec<u32>,
    /// The channel that its events are sent to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub channel: Option<String>,
    /// Every event is signed.
    #[serde(rename = "signed")]
    pub is_signed: bool,
    /// The data of every event is sealed.
    #[serde(rename = "sealed")]
    pub is_sealed: bool,
    /// What the event says, for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: Option<String>,
}

/// `GET /v1/schemas/{type}`: all versions of an event type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SchemaVersions {
    /// The type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its versions, the oldest first.
    pub versions: Vec<Schema>,
}

/// `GET /v1/schemas/{type}/{version}`: what is agreed of one version of an event type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Schema {
    /// The type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The version.
    pub version: u32,
    /// The `dataschema` of its events.
    pub uri: String,
    /// The channel that its events are sent to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub channel: Option<String>,
    /// What the event says, for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: Option<String>,
    /// Every event is signed.
    #[serde(rename = "signed")]
    pub is_signed: bool,
    /// The data of every event is sealed.
    #[serde(rename = "sealed")]
    pub is_sealed: bool,
    /// What its data is like: JSON Schema, draft 2020-12.
    pub schema: Value,
}
