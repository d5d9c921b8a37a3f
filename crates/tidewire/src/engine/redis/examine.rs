//! Looks at the servers for those who operate them: what they offer, keep, evict and confirm, and what to change.
//!
//! Every server is asked over a link of its own, replicas too: each may be the primary tomorrow. What an ACL or a managed
//! service does not tell is a finding like the others.

mod checks;
mod facts;

use std::sync::Arc;

use futures_util::future::join_all;

use self::facts::Facts;
use super::address::{Address, Endpoint};
use super::command::Command;
use super::link::{DialAddress, describe};
use super::resp::Value;
use super::topology::Topology;
use crate::clock::Clock;
use crate::engine::Finding;

/// How a server came to be one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The only one that the URL names: whether it has replicas is its operator's choice.
    Only,
    /// The primary that sentinels name, or of a cluster: a replica is to take over from it.
    Watched,
    Replica,
}

/// What was found at all servers.
pub(super) async fn examine(topology: &Topology, clock: &Clock) -> Vec<Finding> {
    let (primaries, kind) = topology.primaries();
    let ask =
        async |address: &Address, kind| (kind, address.endpoint.to_string(), look(address, clock).await);
    let primaries = join_all(primaries.iter().map(async |address| {
        let (kind, endpoint, outcome) = ask(address, kind).await;
        let replicas = outcome.as_ref().map(|facts| facts.replicas()).unwrap_or_default();
        let replicas = replicas.into_iter().map(|replica| at(address, replica)).collect::<Vec<_>>();
        let replicas = join_all(replicas.iter().map(|address| ask(address, Kind::Replica))).await;
        std::iter::once((kind, endpoint, outcome)).chain(replicas)
    }));
    let (mut findings, mut all) = (Shared::default(), Vec::new());
    for (kind, endpoint, outcome) in primaries.await.into_iter().flatten() {
        match outcome {
            Ok(facts) => {
                let found = checks::of_server(kind, &facts);
                found.into_iter().for_each(|finding| findings.add(finding, &endpoint));
                all.push(facts);
            }
            Err(why) => {
                let fix = "see whether it runs, and whether this machine may reach it";
                findings.add(Finding::warn("server", format!("cannot be looked at: {why}"), fix), &endpoint);
            }
        }
    }
    let mut findings = findings.told(all.len());
    findings.extend(checks::of_all(&all));
    findings.extend(quorum(topology).await);
    findings
}

/// Findings, and the servers that share each of them.
#[derive(Default)]
struct Shared(Vec<(Finding, Vec<String>)>);

impl Shared {
    fn add(&mut self, finding: Finding, endpoint: &str) {
        match self.0.iter_mut().find(|(known, _)| *known == finding) {
            Some((_, endpoints)) => endpoints.push(endpoint.to_owned()),
            None => self.0.push((finding, vec![endpoint.to_owned()])),
        }
    }

    /// Each with its servers in front, in the order of the checks.
    fn told(mut self, servers: usize) -> Vec<Finding> {
        let mut order = Vec::new();
        for (finding, _) in &self.0 {
            if !order.contains(&finding.check) {
                order.push(finding.check);
            }
        }
        self.0.sort_by_key(|(finding, _)| order.iter().position(|check| *check == finding.check));
        let tell = |(finding, endpoints): (Finding, Vec<String>)| {
            let all = format!("all {servers} servers");
            // Two names are as short as that.
            let place = if endpoints.len() == servers && servers > 2 { all } else { endpoints.join(", ") };
            let found = format!("{place}: {}", finding.found);
            Finding { found, ..finding }
        };
        self.0.into_iter().map(tell).collect()
    }
}

fn at(primary: &Address, (host, port): (String, u16)) -> Address {
    Address { endpoint: Endpoint::Tcp { host, port }, access: primary.access.clone() }
}

async fn look(address: &Address, clock: &Clock) -> Result<Facts, String> {
    let dial = DialAddress::new(address.clone(), "tidewire-doctor".to_owned(), []);
    let asked = clock.now();
    let replies = dial.ask_all(&facts::questions()).await.map_err(|error| describe(&error))?;
    Ok(Facts::read(replies, asked, clock.now()))
}

/// Whether the sentinels could agree on another primary.
async fn quorum(topology: &Topology) -> Option<Finding> {
    let group = topology.group()?;
    let ask = async |sentinel: &Address| {
        let dial = DialAddress::sentinel(sentinel.clone(), "tidewire-doctor".to_owned());
        let question = Command::new("SENTINEL").arg("CKQUORUM").arg(&group.name);
        let reply = dial.ask_all(&[question]).await.map_err(|error| describe(&error))?.pop();
        Ok::<_, String>(reply.unwrap_or(Value::Null))
    };
    let replies = join_all(group.sentinels.iter().map(ask)).await;
    let told = replies.into_iter().flatten().find_map(|reply| match reply {
        Value::Error(text) => Some(Err(text)),
        reply => reply.into_bytes().map(Ok),
    })?;
    Some(checks::of_quorum(&group.name, told))
}

/// What a topology is examined by, on demand.
pub(super) fn examiner(topology: Arc<Topology>, clock: Clock) -> crate::engine::Examine {
    Arc::new(move || {
        let (topology, clock) = (topology.clone(), clock.clone());
        Box::pin(async move { Ok(examine(&topology, &clock).await) })
    })
}
