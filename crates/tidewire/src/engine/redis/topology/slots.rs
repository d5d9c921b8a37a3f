//! What a cluster says of itself: who serves which slot, and where a request belongs that came to the wrong node.

use crate::engine::redis::address::Endpoint;
use crate::engine::redis::keys::Tag;
use crate::engine::redis::resp::Value;

/// The primary of each tag, as one node of the cluster saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// By the number of the tag; none where no usable primary serves its slot.
    pub(super) owners: Vec<Option<Endpoint>>,
}

impl SlotMap {
    /// Reads the answer of `CLUSTER SLOTS`, given by the node at `answering`. Ranges without a usable primary are
    /// skipped: the others must not suffer for them. None if it is something else, or covers nothing.
    pub(super) fn read(reply: Value, answering: &Endpoint) -> Option<Self> {
        let mut owners = vec![None; Tag::COUNT];
        for range in reply.into_array()? {
            let Some((slots, endpoint)) = read_range(range, answering) else { continue };
            for (tag, owner) in Tag::all().zip(&mut owners) {
                if slots.contains(&tag.slot().into()) {
                    *owner = Some(endpoint.clone());
                }
            }
        }
        owners.iter().any(Option::is_some).then_some(Self { owners })
    }
}

fn read_range(range: Value, answering: &Endpoint) -> Option<(std::ops::RangeInclusive<i64>, Endpoint)> {
    let mut parts = range.into_array()?.into_iter();
    let (first, last) = (parts.next()?.as_int()?, parts.next()?.as_int()?);
    // Replicas follow; events are read where they are written.
    let mut primary = parts.next()?.into_array()?.into_iter();
    let host = primary.next()?;
    let host = match &host {
        Value::Null => "",
        host => std::str::from_utf8(host.as_bytes()?).ok()?,
    };
    let port = u16::try_from(primary.next()?.as_int()?).ok().filter(|port| *port > 0)?;
    Some((first..=last, resolve(host, port, Some(answering))?))
}

/// An endpoint that a node at `answering` names. Without a host it is the host that we know already.
fn resolve(host: &str, port: u16, answering: Option<&Endpoint>) -> Option<Endpoint> {
    match (host, answering) {
        // The node knows that there is a name, and not which.
        ("?", _) => None,
        ("", Some(Endpoint::Tcp { host, .. })) => Some(Endpoint::Tcp { host: host.clone(), port }),
        ("", _) => None,
        (host, _) => Some(Endpoint::Tcp { host: host.to_owned(), port }),
    }
}

/// An error reply that says: not here, or not now. Nothing of the request was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot belongs to this node from now on.
    Moved(Endpoint),
    /// This node takes the slot over: it is to be asked this once.
    Ask(Endpoint),
    /// The keys are on two nodes for a moment.
    TryAgain,
    /// Nobody can serve the slot for a moment.
    Unserved,
}

impl Redirect {
    /// Reads the error reply of the node at `answering`, which stands for itself where it names no host; none if it is
    /// an error of another kind.
    pub(super) fn read(text: &[u8], answering: Option<&Endpoint>) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        match words.next()? {
            // A node that does not know where is as good as one that does not serve.
            "MOVED" => Some(read_endpoint(words, answering).map_or(Self::Unserved, Self::Moved)),
            "ASK" => Some(read_endpoint(words, answering).map_or(Self::TryAgain, Self::Ask)),
            "TRYAGAIN" => Some(Self::TryAgain),
            "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" => Some(Self::Unserved),
            _ => None,
        }
    }
}

/// `SLOT HOST:PORT`.
fn read_endpoint<'a>(
    mut words: impl Iterator<Item = &'a str>,
    answering: Option<&Endpoint>,
) -> Option<Endpoint> {
    let (host, port) = words.nth(1)?.rsplit_once(':')?;
    resolve(host, port.parse().ok()?, answering)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn text(text: &'static str) -> Value {
        Value::Bulk(Bytes::from_static(text.as_bytes()))
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let primary = Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())]);
        let replica = Value::Array(vec![text("10.0.0.9"), Value::Int(1), text("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
    }

    #[test]
    fn reads_the_primary_of_each_tag_and_skips_what_is_unusable() {
        let ranges = vec![
            range(0, 99, text("10.0.0.1"), 7000),
            range(128, 255, text("?"), 7000),
            range(256, 383, text("10.0.0.2"), 0),
            range(384, 511, Value::Null, 7002),
            range(512, 639, text(""), 7003),
            Value::Int(7),
            range(16_256, 16_383, text("node-4.internal"), 7004),
        ];
        let map = SlotMap::read(Value::Array(ranges), &tcp("10.0.0.7", 7777)).unwrap();
        let owner = |tag: usize| map.owners[tag].clone();
        assert_eq!(owner(0), Some(tcp("10.0.0.1", 7000)));
        assert_eq!((owner(1), owner(2)), (None, None));
        assert_eq!((owner(3), owner(4)), (Some(tcp("10.0.0.7", 7002)), Some(tcp("10.0.0.7", 7003))));
        assert_eq!(owner(5), None);
        assert_eq!(owner(127), Some(tcp("node-4.internal", 7004)));
        assert_eq!(SlotMap::read(Value::Array(Vec::new()), &tcp("h", 1)), None);
        assert_eq!(SlotMap::read(text("OK"), &tcp("h", 1)), None);
    }

    #[test]
    fn reads_where_a_request_belongs() {
        let here = tcp("10.0.0.7", 7777);
        let read = |text: &str| Redirect::read(text.as_bytes(), Some(&here));
        assert_eq!(read("MOVED 3999 10.0.0.1:6381"), Some(Redirect::Moved(tcp("10.0.0.1", 6381))));
        assert_eq!(read("MOVED 3999 :6381"), Some(Redirect::Moved(tcp("10.0.0.7", 6381))));
        assert_eq!(read("MOVED 3999 fe80::1:6381"), Some(Redirect::Moved(tcp("fe80::1", 6381))));
        assert_eq!(read("MOVED 3999 ?:6381"), Some(Redirect::Unserved));
        assert_eq!(read("ASK 3999 10.0.0.1:6381"), Some(Redirect::Ask(tcp("10.0.0.1", 6381))));
        assert_eq!(read("TRYAGAIN Multiple keys request during rehashing of slot"), Some(Redirect::TryAgain));
        assert_eq!(read("CLUSTERDOWN The cluster is down"), Some(Redirect::Unserved));
        assert_eq!(read("CROSSSLOT Keys in request don't hash to the same slot"), None);
        assert_eq!(read("ERR no"), None);
    }
}
