//! Headers of a client's request, as far as a backend is to have them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hyper::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use tidewire_protocol::codes::ErrorCode;

use crate::failure::Failure;

/// Bytes of the headers that are kept of one connection.
const BYTES_MAX: usize = 8 * 1024;

/// What of a client's headers is handed on. `Debug` shows names only.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientHeaders(Vec<(HeaderName, HeaderValue)>);

impl ClientHeaders {
    /// Those that are wanted of a request.
    pub(crate) fn of_request<'w>(
        headers: &HeaderMap,
        wanted: impl IntoIterator<Item = &'w HeaderName>,
    ) -> Self {
        let mut kept: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for name in wanted {
            // Several tenants may want it.
            if kept.iter().any(|(known, _)| known == name) {
                continue;
            }
            kept.extend(headers.get_all(name).iter().map(|value| {
                let mut value = value.clone();
                value.set_sensitive(true);
                (name.clone(), value)
            }));
        }
        Self(kept)
    }

    /// Those that are wanted, where what an SDK gives in place of headers goes before those of the request.
    ///
    /// # Errors
    /// They cannot stand in a request, or are more than is kept.
    pub(crate) fn overridden(
        mut self,
        given: &BTreeMap<Cow<'_, str>, Cow<'_, str>>,
        wanted: &[HeaderName],
    ) -> Result<Self, Failure> {
        self.0.retain(|(name, _)| wanted.contains(name));
        let bad = |message: String| Failure::new(ErrorCode::BAD_REQUEST, message);
        for (name, value) in given {
            let name = name.to_ascii_lowercase();
            let Some(name) = wanted.iter().find(|wanted| wanted.as_str() == name) else { continue };
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| bad(format!("bad request: headers: {name} cannot stand in a header")))?;
            value.set_sensitive(true);
            self.0.retain(|(known, _)| known != name);
            self.0.push((name.clone(), value));
        }
        match self.0.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() {
            bytes if bytes > BYTES_MAX => Err(bad(format!(
                "bad request: headers that are handed on are {bytes} bytes, limit is {BYTES_MAX}"
            ))),
            _ => {
                self.0.shrink_to_fit();
                Ok(self)
            }
        }
    }

    /// Puts those of these names into a request, and those of the cookies.
    pub(super) fn hand_on(&self, names: &[HeaderName], cookies: &[String], request: &mut HeaderMap) {
        for (name, value) in self.0.iter().filter(|(name, _)| names.contains(name)) {
            request.append(name.clone(), value.clone());
        }
        if cookies.is_empty() {
            return;
        }
        let all =
            self.0.iter().filter(|(name, _)| *name == COOKIE).filter_map(|(_, value)| value.to_str().ok());
        let wanted = all.flat_map(|all| all.split(';').map(str::trim)).filter(|pair| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name.trim_end());
            cookies.iter().any(|wanted| wanted == name)
        });
        let wanted = wanted.collect::<Vec<_>>().join("; ");
        // Made of what stood in a header.
        if let (false, Ok(mut value)) = (wanted.is_empty(), HeaderValue::from_str(&wanted)) {
            value.set_sensitive(true);
            request.insert(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [HeaderName; 2] = [HeaderName::from_static("x-request-id"), COOKIE];

    fn of(pairs: &[(&'static str, &str)]) -> ClientHeaders {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        ClientHeaders::of_request(&pairs.collect(), NAMES.iter().chain(&NAMES))
    }

    fn handed_on(headers: &ClientHeaders, names: &[HeaderName], cookies: &[&str]) -> Vec<(String, String)> {
        let cookies: Vec<_> = cookies.iter().copied().map(String::from).collect();
        let mut request = HeaderMap::new();
        headers.hand_on(names, &cookies, &mut request);
        request.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn only_what_is_named_is_handed_on() {
        let headers =
            of(&[("x-request-id", "1"), ("authorization", "secret"), ("cookie", "a=1; session=x=y;b=2")]);
        assert_eq!(handed_on(&headers, &NAMES[..1], &[]), [pair("x-request-id", "1")]);
        assert_eq!(handed_on(&headers, &NAMES[1..], &[]), [pair("cookie", "a=1; session=x=y;b=2")]);
        assert_eq!(handed_on(&headers, &[], &["session", "b"]), [pair("cookie", "session=x=y; b=2")]);
        assert_eq!(handed_on(&headers, &[], &["sess"]), []);
        assert!(!format!("{headers:?}").contains("session"), "{headers:?}");
    }

    #[test]
    fn what_an_sdk_gives_goes_before_and_is_checked() {
        let given = |name: &'static str, value: &'static str| BTreeMap::from([(name.into(), value.into())]);
        let headers = of(&[("x-request-id", "1")]);
        let over = headers.clone().overridden(&given("X-Request-Id", "2"), &NAMES).unwrap();
        assert_eq!(handed_on(&over, &NAMES, &[]), [pair("x-request-id", "2")]);
        let other = headers.clone().overridden(&given("Authorization", "mine"), &NAMES).unwrap();
        assert_eq!(handed_on(&other, &NAMES, &[]), [pair("x-request-id", "1")]);
        let broken =
            headers.clone().overridden(&given("x-request-id", "1\r\nhost: evil"), &NAMES).unwrap_err();
        assert!(broken.message.contains("x-request-id"), "{broken:?}");
        let long: &str = &"x".repeat(BYTES_MAX);
        let given = BTreeMap::from([("cookie".into(), long.into())]);
        assert!(headers.overridden(&given, &NAMES).unwrap_err().message.contains("limit is 8192"));
    }
}
