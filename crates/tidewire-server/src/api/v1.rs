//! The REST API under `/v1`: what is ours - events as CloudEvents, who is in a channel, groups, their dead letters, webhooks,
//! and where an event is.

mod connections;
mod dead_letters;
mod events;
mod exchange;
mod fetch;
mod groups;
mod presence;
mod schemas;
mod sweep;
mod tap;
mod trace;
mod webhooks;

use serde_json::{Map, Value};
use tidewire_protocol::v1::{
    AcceptedEvent, Audit, ClosedConnections, DeadLetter, DeadLetters, DeadReasons, DeclareRequest, Declared,
    DisableRequest, EventOutcomes, ExtendRequest, Extended, FetchRequest, Fetched, Group, Groups, Members,
    Schema, SchemaVersions, Schemas, Seek, SeekRequest, SettleRequest, Settled, SweepRequest, Swept, Trace,
    Webhook, WebhookTest, Webhooks,
};

pub(super) use self::exchange::unknown_path;
use super::openapi::{Operation, Route};

/// All routes under `/v1`. A name in a path is percent-encoded, `/` in it too.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = channels();
    routes.extend(groups_of_channels());
    routes.extend(dead_letters_of_groups());
    routes.extend(webhooks_and_connections());
    routes.extend(schemas_of_events());
    routes
}

fn channels() -> Vec<Route> {
    let kinds = &["application/cloudevents+json", "application/cloudevents-batch+json", "*/*"];
    let publish = Operation::new("publishEvents", "Publish CloudEvents: structured, binary or batched");
    let publish = publish.takes_as::<Value>(kinds).answers::<Published>();
    let presence = Operation::new("listMembers", "A page of who is in a channel, on all nodes");
    let trace = Operation::new("traceEvent", "Where an event is, and why");
    vec![
        Route::at("/v1/channels/{channel}/events").post(events::publish, publish),
        Route::at("/v1/channels/{channel}/presence")
            .get(presence::list, presence.query::<presence::PageQuery>().answers::<Members>()),
        Route::at("/v1/channels/{channel}/trace/{event}")
            .get(trace::trace, trace.query::<trace::TraceQuery>().answers::<Trace>()),
    ]
}

/// What became of an event, or of each of a batch.
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is needed")]
enum Published {
    Batch(EventOutcomes),
    One(AcceptedEvent),
}

fn groups_of_channels() -> Vec<Route> {
    let list = Operation::new("listGroups", "The names of the groups of a channel");
    let show = Operation::new("showGroup", "How far a group is, and who works on it");
    let declare = Operation::new("declareGroup", "Make a group if it is not there");
    let delete = Operation::new("deleteGroup", "Remove a group with all that it has");
    let seek = Operation::new("seekGroup", "Go on from another place");
    let fetch = Operation::new("fetch", "Take deliveries under a lease");
    let settle = Operation::new("settle", "Say what became of deliveries");
    let extend = Operation::new("extend", "Hold deliveries for longer");
    let audit = Operation::new("auditGroup", "Who replayed, purged and moved what");
    vec![
        Route::at("/v1/channels/{channel}/groups").get(groups::list, list.answers::<Groups>()),
        Route::at("/v1/channels/{channel}/groups/{group}")
            .get(groups::status, show.answers::<Group>())
            .put(
                groups::declare,
                declare.takes::<DeclareRequest>().answers::<Declared>().or::<Declared>("201", "It was made."),
            )
            .delete(groups::delete, delete.query::<groups::DeleteQuery>().answers::<Map<String, Value>>()),
        Route::at("/v1/channels/{channel}/groups/{group}/seek")
            .post(groups::seek, seek.takes::<SeekRequest>().answers::<Seek>()),
        Route::at("/v1/channels/{channel}/groups/{group}/fetch")
            .post(fetch::fetch, fetch.may_take::<FetchRequest>().answers::<Fetched>()),
        Route::at("/v1/channels/{channel}/groups/{group}/settle")
            .post(fetch::settle, settle.takes::<SettleRequest>().answers::<Settled>()),
        Route::at("/v1/channels/{channel}/groups/{group}/extend")
            .post(fetch::extend, extend.takes::<ExtendRequest>().answers::<Extended>()),
        Route::at("/v1/channels/{channel}/groups/{group}/audit").get(groups::audit, audit.answers::<Audit>()),
    ]
}

fn dead_letters_of_groups() -> Vec<Route> {
    let list = Operation::new("listDeadLetters", "A page of dead letters");
    let reasons = Operation::new("countDeadLetters", "How many dead letters there are of each reason");
    let replay = Operation::new("replayDeadLetters", "Append the events of dead letters again");
    let purge = Operation::new("purgeDeadLetters", "Remove dead letters");
    let show = Operation::new("showDeadLetter", "A dead letter with its event");
    vec![
        Route::at("/v1/channels/{channel}/groups/{group}/dead-letters")
            .get(dead_letters::list, list.query::<dead_letters::ListQuery>().answers::<DeadLetters>()),
        Route::at("/v1/channels/{channel}/groups/{group}/dead-letters/reasons")
            .get(dead_letters::reasons, reasons.answers::<DeadReasons>()),
        Route::at("/v1/channels/{channel}/groups/{group}/dead-letters/replay")
            .post(sweep::replay, replay.takes::<SweepRequest>().answers::<Swept>()),
        Route::at("/v1/channels/{channel}/groups/{group}/dead-letters/purge")
            .post(sweep::purge, purge.takes::<SweepRequest>().answers::<Swept>()),
        Route::at("/v1/channels/{channel}/groups/{group}/dead-letters/{id}")
            .get(dead_letters::get, show.answers::<DeadLetter>()),
    ]
}

fn webhooks_and_connections() -> Vec<Route> {
    let list = Operation::new("listWebhooks", "The webhooks of the tenant");
    let show = Operation::new("showWebhook", "How a webhook is");
    let enable = Operation::new("enableWebhook", "Send again to a webhook that was given up on");
    let disable = Operation::new("disableWebhook", "Send nothing to a webhook");
    let test = Operation::new("testWebhook", "Send a webhook an event that says it is a test");
    let closed =
        Operation::new("listClosedConnections", "Why connections ended, the newest first, of all nodes");
    let tap =
        Operation::new("tapUser", "What goes on at the connections of a user, on all nodes, as it goes on");
    vec![
        Route::at("/v1/webhooks").get(webhooks::list, list.answers::<Webhooks>()),
        Route::at("/v1/webhooks/{name}").get(webhooks::show, show.answers::<Webhook>()),
        Route::at("/v1/webhooks/{name}/enable").post(webhooks::enable, enable.answers::<Webhook>()),
        Route::at("/v1/webhooks/{name}/disable")
            .post(webhooks::disable, disable.may_take::<DisableRequest>().answers::<Webhook>()),
        Route::at("/v1/webhooks/{name}/test").post(webhooks::test, test.answers::<WebhookTest>()),
        Route::at("/v1/connections/closed").get(
            connections::closed,
            closed.query::<connections::ClosedQuery>().answers::<ClosedConnections>(),
        ),
        Route::at("/v1/users/{user}/tap").get(
            tap::tap,
            tap.query::<tap::TapQuery>().says(
                "200",
                "Lines of JSON, one for each thing that happens.",
                Some("application/x-ndjson"),
            ),
        ),
    ]
}

fn schemas_of_events() -> Vec<Route> {
    let list = Operation::new("listSchemas", "The event types of the tenant");
    let versions = Operation::new("listSchemaVersions", "All versions of an event type");
    let show = Operation::new("showSchema", "What is agreed of one version of an event type");
    let catalog = Operation::new("showCatalog", "The catalog of the tenant's events, as tools read it");
    let asyncapi = Operation::new("showAsyncApi", "The catalog as an AsyncAPI 3 document");
    vec![
        Route::at("/v1/schemas").get(schemas::list, list.answers::<Schemas>()),
        Route::at("/v1/schemas/{type}").get(schemas::versions, versions.answers::<SchemaVersions>()),
        Route::at("/v1/schemas/{type}/{version}").get(schemas::show, show.answers::<Schema>()),
        Route::at("/v1/catalog.json").get(schemas::catalog, catalog.answers::<Map<String, Value>>()),
        Route::at("/v1/asyncapi.json").get(
            schemas::asyncapi,
            asyncapi.query::<schemas::AboutDocument>().answers::<Map<String, Value>>(),
        ),
    ]
}
