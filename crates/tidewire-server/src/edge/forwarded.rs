//! What a trusted proxy says of whom it forwards for: `X-Forwarded-*`, or `Forwarded` (RFC 7239).
//!
//! Only what stands behind the last untrusted address was written by proxies of ours. What stands before it is the client's to
//! make up, so it is not believed, and where it can be told apart not even read.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};

use crate::config::ProxyHeader;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What is known of the client of a proxy; what the proxy does not say is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded {
    pub(super) address: Option<IpAddr>,
    pub(super) scheme: Option<Scheme>,
    /// The host, and the port where it is not the scheme's, under which the client knows this server.
    pub(super) host: Option<String>,
}

/// How the client came to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// The header that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) HeaderName);

/// The header that says for whom a proxy forwards.
pub(super) fn name_of(header: ProxyHeader) -> HeaderName {
    match header {
        ProxyHeader::XForwarded => X_FORWARDED_FOR,
        ProxyHeader::Forwarded => header::FORWARDED,
    }
}

/// Reads what a trusted proxy says. The client is the last that is not trusted itself.
///
/// # Errors
/// The proxy says it in a way that cannot be read.
pub(super) fn read(
    headers: &HeaderMap,
    header: ProxyHeader,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Result<Forwarded, Malformed> {
    match header {
        ProxyHeader::XForwarded => of_x_forwarded(headers, is_trusted),
        ProxyHeader::Forwarded => of_forwarded(headers, is_trusted).ok_or(Malformed(header::FORWARDED)),
    }
}

fn of_x_forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Result<Forwarded, Malformed> {
    let mut forwarded = Forwarded::default();
    for text in last_first(headers, &X_FORWARDED_FOR) {
        let text = text.ok_or(Malformed(X_FORWARDED_FOR))?;
        let Some(address) = node(text).ok_or(Malformed(X_FORWARDED_FOR))? else { break };
        forwarded.address = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    // Of several the last was written by the proxy that is known.
    let last = |name: HeaderName| {
        let text = last_first(headers, &name).next();
        text.map(|text| text.ok_or(Malformed(name))).transpose()
    };
    if let Some(text) = last(X_FORWARDED_PROTO)? {
        forwarded.scheme = Some(scheme(text).ok_or(Malformed(X_FORWARDED_PROTO))?);
    }
    if let Some(text) = last(X_FORWARDED_HOST)? {
        forwarded.host = Some(host(text).ok_or(Malformed(X_FORWARDED_HOST))?);
    }
    Ok(forwarded)
}

/// The values of a list that may be spread over several lines, the last one first; `None` for one that is no text.
fn last_first<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Option<&'h str>> + use<'h> {
    let lines = headers.get_all(name).iter().rev();
    lines
        .flat_map(|line| {
            let line = line.as_bytes().rsplit(|byte| *byte == b',');
            line.map(|value| std::str::from_utf8(value).ok().map(str::trim))
        })
        .filter(|value| *value != Some(""))
}

/// An element of `Forwarded`.
#[derive(Debug, Default)]
struct Hop {
    client: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

fn of_forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<Forwarded> {
    let mut hops = Vec::new();
    for line in headers.get_all(header::FORWARDED) {
        read_hops(line.to_str().ok()?, &mut hops)?;
    }
    let mut forwarded = Forwarded::default();
    for hop in hops.into_iter().rev() {
        // What this hop says is believed, because a trusted one wrote it.
        forwarded.scheme = hop.proto.map(|text| scheme(&text).ok_or(())).transpose().ok()?;
        forwarded.host = hop.host.map(|text| host(&text).ok_or(())).transpose().ok()?;
        let Some(client) = hop.client else { break };
        let Some(address) = node(&client)? else { break };
        forwarded.address = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    Some(forwarded)
}

/// Reads `for=192.0.2.1;proto=https, for="[2001:db8::1]:4711"` (RFC 7239, 4). A quote that a client left open must not hide
/// what a proxy wrote behind it, so everything has to be as it should be.
fn read_hops(line: &str, hops: &mut Vec<Hop>) -> Option<()> {
    let mut rest = line.trim();
    let mut hop = Hop::default();
    loop {
        rest = rest.trim_start();
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            let (name, value);
            (name, rest) = rest.split_once('=')?;
            (value, rest) = read_value(rest)?;
            let place = match name {
                _ if !is_token(name) => return None,
                _ if name.eq_ignore_ascii_case("for") => &mut hop.client,
                _ if name.eq_ignore_ascii_case("proto") => &mut hop.proto,
                _ if name.eq_ignore_ascii_case("host") => &mut hop.host,
                _ => &mut None,
            };
            if place.replace(value).is_some() {
                return None;
            }
            rest = rest.trim_start();
        }
        match rest.chars().next() {
            Some(';') => {}
            Some(',') => hops.push(std::mem::take(&mut hop)),
            Some(_) => return None,
            None => {
                hops.push(hop);
                return Some(());
            }
        }
        rest = rest.get(1..).unwrap_or_default();
    }
}

/// A token or a quoted string, and what is behind it.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return is_token(token).then(|| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// A token of HTTP (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whom a proxy names: an address with or without its port; `Some(None)` if it does not want to say (RFC 7239, 6).
fn node(text: &str) -> Option<Option<IpAddr>> {
    if text.eq_ignore_ascii_case("unknown") || text.starts_with('_') {
        return Some(None);
    }
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let address = text.parse().ok().or_else(in_brackets).or_else(with_port)?;
    Some(Some(address.to_canonical()))
}

fn scheme(text: &str) -> Option<Scheme> {
    match text {
        _ if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("wss") => Some(Scheme::Https),
        _ if text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("ws") => Some(Scheme::Http),
        _ => None,
    }
}

fn host(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    (!authority.as_str().contains('@')).then(|| authority.as_str().to_owned())
}

#[cfg(test)]
mod tests;
