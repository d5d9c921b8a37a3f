//! The OpenAPI document: what there is over HTTP, beside the connections of clients.
//!
//! A route is made together with what the document says of it, so that neither is there without the other. Bodies are described
//! by the types that they are read into and written from.

mod document;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

pub(super) use self::document::document;
use crate::node::Node;

/// How a type stands in the document.
type Shape = fn(&mut SchemaGenerator) -> Schema;

const JSON: &str = "application/json";

/// A path, what answers there, and what the document says of it.
pub(super) struct Route {
    path: &'static str,
    handlers: MethodRouter<Arc<Node>>,
    operations: Vec<(&'static str, Operation)>,
}

/// What the document says of a verb on a path.
#[derive(Clone)]
pub(super) struct Operation {
    /// Its name in generated clients.
    id: &'static str,
    summary: &'static str,
    access: Access,
    query: Option<Shape>,
    body: Option<Body>,
    answers: Vec<Answer>,
}

/// Who may call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Whoever has an API key.
    Key,
    /// Anybody.
    Open,
}

/// The body of a request.
#[derive(Clone)]
struct Body {
    media_types: &'static [&'static str],
    shape: Shape,
    is_required: bool,
}

/// What may be answered; a refusal with an API key apart, which every route may answer with.
#[derive(Clone)]
struct Answer {
    status: &'static str,
    said: &'static str,
    media_type: Option<&'static str>,
    shape: Option<Shape>,
}

impl Route {
    pub(super) fn at(path: &'static str) -> Self {
        Self { path, handlers: MethodRouter::new(), operations: Vec::new() }
    }

    pub(super) fn get<H: Handler<T, Arc<Node>>, T: 'static>(mut self, handler: H, said: Operation) -> Self {
        self.handlers = self.handlers.get(handler);
        self.operations.push(("get", said));
        self
    }

    pub(super) fn post<H: Handler<T, Arc<Node>>, T: 'static>(mut self, handler: H, said: Operation) -> Self {
        self.handlers = self.handlers.post(handler);
        self.operations.push(("post", said));
        self
    }

    pub(super) fn put<H: Handler<T, Arc<Node>>, T: 'static>(mut self, handler: H, said: Operation) -> Self {
        self.handlers = self.handlers.put(handler);
        self.operations.push(("put", said));
        self
    }

    pub(super) fn delete<H: Handler<T, Arc<Node>>, T: 'static>(
        mut self,
        handler: H,
        said: Operation,
    ) -> Self {
        self.handlers = self.handlers.delete(handler);
        self.operations.push(("delete", said));
        self
    }
}

/// Has these routes answered.
pub(super) fn routed(routes: impl IntoIterator<Item = Route>) -> Router<Arc<Node>> {
    let add = |router: Router<_>, route: Route| router.route(route.path, route.handlers);
    routes.into_iter().fold(Router::new(), add)
}

impl Operation {
    /// One that needs an API key.
    pub(super) fn new(id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, access: Access::Key, query: None, body: None, answers: Vec::new() }
    }

    /// One that needs none.
    pub(super) fn open(id: &'static str, summary: &'static str) -> Self {
        Self { access: Access::Open, ..Self::new(id, summary) }
    }

    /// Takes the fields of `Q` as parameters.
    pub(super) fn query<Q: JsonSchema>(mut self) -> Self {
        self.query = Some(Q::json_schema);
        self
    }

    /// Takes a JSON body.
    pub(super) fn takes<B: JsonSchema>(self) -> Self {
        self.takes_as::<B>(&[JSON])
    }

    /// Takes a JSON body, or none.
    pub(super) fn may_take<B: JsonSchema>(mut self) -> Self {
        let shape = SchemaGenerator::subschema_for::<B>;
        self.body = Some(Body { media_types: &[JSON], shape, is_required: false });
        self
    }

    /// Takes a body of one of these media types.
    pub(super) fn takes_as<B: JsonSchema>(mut self, media_types: &'static [&'static str]) -> Self {
        let shape = SchemaGenerator::subschema_for::<B>;
        self.body = Some(Body { media_types, shape, is_required: true });
        self
    }

    /// Answers 200 and JSON.
    pub(super) fn answers<T: JsonSchema>(self) -> Self {
        self.or::<T>("200", "It is done.")
    }

    /// Answers JSON with a status.
    pub(super) fn or<T: JsonSchema>(mut self, status: &'static str, said: &'static str) -> Self {
        let shape = Some(SchemaGenerator::subschema_for::<T> as Shape);
        self.answers.push(Answer { status, said, media_type: Some(JSON), shape });
        self
    }

    /// Answers with a status and something that is no JSON, or nothing.
    pub(super) fn says(
        mut self,
        status: &'static str,
        said: &'static str,
        media_type: Option<&'static str>,
    ) -> Self {
        self.answers.push(Answer { status, said, media_type, shape: None });
        self
    }
}

#[cfg(test)]
mod tests;
