//! Who is behind a connection.

use std::sync::Arc;

use tidewire::Timestamp;
use tidewire_protocol::{JsonData, Opaque};

use crate::config::DEFAULT_TENANT;
use crate::metrics::AuthFailure;
use crate::node::Node;
use crate::tenants::Tenant;
use crate::tokens::{Caps, ConnectionClaims, Refusal, claimed_tenant};

/// Who is behind a connection.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The token's `sub`; empty for an anonymous connection.
    pub(crate) user: Arc<str>,
    /// When the connection expires unless its token is refreshed.
    pub(crate) expires_at: Option<Timestamp>,
    /// The token's `info`, which subscribers see beside what this user publishes.
    pub(crate) info: Option<Arc<str>>,
    /// What the token allows, where it says so.
    pub(crate) caps: Option<Caps>,
}

impl Identity {
    pub(crate) fn is_authenticated(&self) -> bool {
        !self.user.is_empty()
    }
}

impl From<&ConnectionClaims> for Identity {
    fn from(claims: &ConnectionClaims) -> Self {
        let ConnectionClaims { user, expires_at, info, caps, .. } = claims;
        let info = info.as_ref().map(info_of);
        Self { user: user.clone(), expires_at: *expires_at, info, caps: caps.clone() }
    }
}

/// What an application says of a user, as others see it.
pub(crate) fn info_of(info: &Opaque<'_>) -> Arc<str> {
    JsonData::from_any(info.as_bytes()).get().into()
}

/// The tenant that a connection is of, and what its token says; without a token it is an anonymous one. A refusal is counted.
///
/// # Errors
/// The token is not accepted, or one is needed.
pub(crate) async fn identify(node: &Node, token: &str) -> Result<(Arc<Tenant>, ConnectionClaims), Refusal> {
    if token.is_empty() {
        let tenant = node.tenants.named(DEFAULT_TENANT);
        let Some(tenant) = tenant.filter(|tenant| tenant.admits_anonymous) else {
            node.metrics.strangers.add(AuthFailure::TokenMissing, 1);
            return Err(Refusal::invalid("no token, and anonymous connections are not allowed"));
        };
        return Ok((tenant.clone(), ConnectionClaims::anonymous()));
    }
    let tenant = claimed_tenant(token).and_then(|name| {
        let tenant = node.tenants.named(&name);
        tenant.ok_or_else(|| Refusal::invalid(format!("unknown tenant {name:?}")))
    });
    let tenant = tenant.inspect_err(|refusal| node.metrics.strangers.add(failure_of(refusal), 1))?;
    let claims = tenant.tokens.connection(token, node.clock.now()).await;
    let claims = claims.inspect_err(|refusal| tenant.metrics.auth_failures.add(failure_of(refusal), 1))?;
    Ok((tenant.clone(), claims))
}

fn failure_of(refusal: &Refusal) -> AuthFailure {
    match refusal {
        Refusal::Invalid(_) => AuthFailure::TokenInvalid,
        Refusal::Expired => AuthFailure::TokenExpired,
        Refusal::Unavailable(_) => AuthFailure::TokenUnavailable,
    }
}
