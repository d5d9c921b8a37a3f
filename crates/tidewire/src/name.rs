//! Names: environment, tenant, channel, pattern, and the full paths that engines see.
//!
//! A name is checked once, when it enters; past this module every name is valid. Environment and tenant
//! cannot hold `:`, so a full path has one reading and no name of one tenant can spell another tenant's.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::limits;

fn check(
    what: &str,
    text: &str,
    bytes_max: usize,
    setting: &str,
    is_allowed: impl Fn(u8) -> bool,
    allowed: &str,
) -> Result<()> {
    if text.is_empty() {
        return Err(Error::new(ErrorKind::InvalidName, format!("{what} name is empty")));
    }
    if text.len() > bytes_max {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!("{what} name is {} bytes, limit is {bytes_max} (limits.{setting})", text.len()),
        ));
    }
    match text.char_indices().find(|&(_, c)| !u8::try_from(c).is_ok_and(&is_allowed)) {
        None => Ok(()),
        Some((at, c)) => Err(Error::new(
            ErrorKind::InvalidName,
            format!("{what} name {text:?} has {c:?} at byte {at}; allowed are {allowed}"),
        )),
    }
}

fn is_channel_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'*' | b'?' | b'[' | b']' | b'\\' | b'{' | b'}')
}

const CHANNEL_BYTES: &str = "visible ASCII characters except \" * ? [ ] \\ { }";

/// Checks an environment name (`dev`, `prod`): 1 to 32 of `a-z`, `0-9`, `-`.
///
/// # Errors
/// [`ErrorKind::InvalidName`] says what is wrong and where.
pub fn check_environment(text: &str) -> Result<()> {
    check(
        "environment",
        text,
        limits::ENVIRONMENT_NAME_BYTES_MAX,
        "ENVIRONMENT_NAME_BYTES_MAX",
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-',
        "a-z 0-9 -",
    )
}

/// Checks a tenant name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `-`, `_`, `.`.
///
/// # Errors
/// [`ErrorKind::InvalidName`] says what is wrong and where.
pub fn check_tenant(text: &str) -> Result<()> {
    check(
        "tenant",
        text,
        limits::TENANT_NAME_BYTES_MAX,
        "TENANT_NAME_BYTES_MAX",
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
        "A-Z a-z 0-9 - _ .",
    )
}

/// Checks a group name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `-`, `_`, `.`.
///
/// # Errors
/// [`ErrorKind::InvalidName`] says what is wrong and where.
pub fn check_group(text: &str) -> Result<()> {
    check(
        "group",
        text,
        limits::GROUP_NAME_BYTES_MAX,
        "GROUP_NAME_BYTES_MAX",
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
        "A-Z a-z 0-9 - _ .",
    )
}

/// Checks the name of a fold: 1 to 64 of `A-Z a-z 0-9 - _ .`.
///
/// # Errors
/// [`ErrorKind::InvalidName`] says what is wrong and where.
pub fn check_fold(text: &str) -> Result<()> {
    check(
        "fold",
        text,
        limits::FOLD_NAME_BYTES_MAX,
        "FOLD_NAME_BYTES_MAX",
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
        "A-Z a-z 0-9 - _ .",
    )
}

/// Checks a channel name: 1 to 255 visible ASCII characters except `" * ? [ ] \ { }`.
///
/// # Errors
/// [`ErrorKind::InvalidName`] says what is wrong and where.
pub fn check_channel(text: &str) -> Result<()> {
    check(
        "channel",
        text,
        limits::CHANNEL_NAME_BYTES_MAX,
        "CHANNEL_NAME_BYTES_MAX",
        is_channel_byte,
        CHANNEL_BYTES,
    )
}

/// Checks a pattern: a channel name with 1 to 4 wildcards `*`, each standing for any characters, none too.
///
/// # Errors
/// [`ErrorKind::InvalidName`] says what is wrong and where.
pub fn check_pattern(text: &str) -> Result<()> {
    check(
        "pattern",
        text,
        limits::CHANNEL_NAME_BYTES_MAX,
        "CHANNEL_NAME_BYTES_MAX",
        |b| is_channel_byte(b) || b == b'*',
        "those of a channel name, and *",
    )?;
    match text.bytes().filter(|&b| b == b'*').count() {
        1..=limits::PATTERN_WILDCARDS_MAX => Ok(()),
        count => Err(Error::new(
            ErrorKind::InvalidName,
            format!(
                "pattern {text:?} has {count} wildcards, 1 to {} are allowed (limits.PATTERN_WILDCARDS_MAX)",
                limits::PATTERN_WILDCARDS_MAX
            ),
        )),
    }
}

fn check_key(text: &str) -> Result<()> {
    check(
        "store key",
        text,
        limits::STORE_KEY_BYTES_MAX,
        "STORE_KEY_BYTES_MAX",
        is_channel_byte,
        CHANNEL_BYTES,
    )
}

/// Whether `pattern` is a pattern rather than a channel name.
pub fn is_pattern(text: &str) -> bool {
    text.contains('*')
}

/// Whether `name` matches `pattern`, where `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for middle in parts {
        match rest.split_once(middle) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(tail)
}

/// A full name: environment, tenant, and a local part. Cheap to clone; compared and hashed by its text.
#[derive(Clone)]
struct Path {
    /// `ENVIRONMENT:tenant:TENANT:LOCAL`
    text: Arc<str>,
    environment_end: u16,
    tenant_end: u16,
    checksum: u32,
}

impl Path {
    fn new(environment: &str, tenant: &str, local: &str) -> Self {
        let text = format!("{environment}:tenant:{tenant}:{local}");
        let end = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX);
        let tenant_end = environment.len() + ":tenant:".len() + tenant.len();
        let (environment_end, tenant_end) = (end(environment.len()), end(tenant_end));
        let mut checksum = crc32fast::Hasher::new();
        [tenant, ":", local].iter().for_each(|part| checksum.update(part.as_bytes()));
        Self { text: text.into(), environment_end, tenant_end, checksum: checksum.finalize() }
    }

    /// `ENVIRONMENT:tenant:TENANT:`
    fn prefix(&self) -> &str {
        self.text.get(..=self.tenant_end.into()).unwrap_or_default()
    }

    fn environment(&self) -> &str {
        self.text.get(..self.environment_end.into()).unwrap_or_default()
    }

    fn tenant(&self) -> &str {
        let start = usize::from(self.environment_end) + ":tenant:".len();
        self.text.get(start..self.tenant_end.into()).unwrap_or_default()
    }

    fn local(&self) -> &str {
        self.text.get(usize::from(self.tenant_end) + 1..).unwrap_or_default()
    }
}

macro_rules! path_type {
    ($(#[$doc:meta])* $name:ident, $local:ident, $local_doc:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Path);

        impl $name {
            /// The environment, such as `dev` or `prod`.
            pub fn environment(&self) -> &str {
                self.0.environment()
            }

            /// The tenant.
            pub fn tenant(&self) -> &str {
                self.0.tenant()
            }

            #[doc = $local_doc]
            pub fn $local(&self) -> &str {
                self.0.local()
            }

            /// The whole path, `ENVIRONMENT:tenant:TENANT:REST`.
            pub fn as_str(&self) -> &str {
                &self.0.text
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.text == other.0.text
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.0.text.cmp(&other.0.text)
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.text.hash(state);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0.text)
            }
        }
    };
}

path_type!(
    /// A channel's full name as engines see it. Always valid.
    ChannelPath, channel, "The channel's name within its tenant."
);
path_type!(
    /// A pattern's full name: one tenant, a pattern of channel names in it. Always valid.
    PatternPath, pattern, "The pattern, within its tenant."
);
path_type!(
    /// The full name of an entry in the store: one tenant, a key in it. Always valid.
    EntryPath, key, "The key, within its tenant."
);

impl ChannelPath {
    /// Builds a path from its parts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] if a part is not valid.
    pub fn new(environment: &str, tenant: &str, channel: &str) -> Result<Self> {
        check_environment(environment)?;
        check_tenant(tenant)?;
        check_channel(channel)?;
        Ok(Self(Path::new(environment, tenant, channel)))
    }

    /// CRC-32 of `TENANT:CHANNEL`, computed once: an engine with several places for data goes by it.
    pub(crate) fn checksum(&self) -> u32 {
        self.0.checksum
    }

    /// `ENVIRONMENT:tenant:TENANT:`
    pub(crate) fn prefix(&self) -> &str {
        self.0.prefix()
    }
}

impl PatternPath {
    /// Builds a path from its parts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] if a part is not valid.
    pub fn new(environment: &str, tenant: &str, pattern: &str) -> Result<Self> {
        check_environment(environment)?;
        check_tenant(tenant)?;
        check_pattern(pattern)?;
        Ok(Self(Path::new(environment, tenant, pattern)))
    }

    /// Whether `channel` is of the same environment and tenant and its name matches.
    pub fn matches(&self, channel: &ChannelPath) -> bool {
        self.0.environment() == channel.0.environment()
            && self.0.tenant() == channel.0.tenant()
            && matches(self.pattern(), channel.channel())
    }
}

impl EntryPath {
    /// Builds a path from its parts; the key is 1 to 512 characters as in a channel name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] if a part is not valid.
    pub fn new(environment: &str, tenant: &str, key: &str) -> Result<Self> {
        check_environment(environment)?;
        check_tenant(tenant)?;
        check_key(key)?;
        Ok(Self(Path::new(environment, tenant, key)))
    }

    /// A path that belongs to an environment and to no tenant: none can spell it, because no tenant's name is empty.
    pub(crate) fn of_environment(environment: &str, key: &str) -> Result<Self> {
        check_environment(environment)?;
        check_key(key)?;
        Ok(Self(Path::new(environment, "", key)))
    }

    /// CRC-32 of `TENANT:KEY`, computed once: an engine with several places for data goes by it.
    pub(crate) fn checksum(&self) -> u32 {
        self.0.checksum
    }

    /// `ENVIRONMENT:tenant:TENANT:`
    pub(crate) fn prefix(&self) -> &str {
        self.0.prefix()
    }
}

/// The full name of a group: a channel, and a name beside it. Always valid.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupPath {
    channel: ChannelPath,
    name: Arc<str>,
}

impl GroupPath {
    /// The group `name` of a channel's stream.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] unless the name is 1 to 64 of `A-Z a-z 0-9 - _ .`.
    pub fn new(channel: ChannelPath, name: &str) -> Result<Self> {
        check_group(name)?;
        Ok(Self { channel, name: name.into() })
    }

    /// The channel whose stream it reads.
    pub fn channel(&self) -> &ChannelPath {
        &self.channel
    }

    /// Its name beside the channel.
    pub fn group(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.channel, self.name)
    }
}

impl fmt::Debug for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gives_back_its_parts() {
        let path = ChannelPath::new("prod", "org-123", "match:7").unwrap();
        assert_eq!((path.environment(), path.tenant(), path.channel()), ("prod", "org-123", "match:7"));
        assert_eq!(path.as_str(), "prod:tenant:org-123:match:7");
    }

    #[test]
    fn an_invalid_name_says_what_and_where() {
        let error = check_channel("orders{1}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName);
        assert!(error.to_string().contains("'{' at byte 6"), "{error}");
        assert!(check_tenant("a:b").is_err(), "a colon would let one tenant spell another's path");
        assert!(check_channel(&"x".repeat(256)).unwrap_err().to_string().contains("limit is 255"));
        assert!(check_channel("caf\u{e9}").is_err());
        assert!(check_pattern("orders").is_err());
    }

    #[test]
    fn a_pattern_matches_any_characters_in_its_own_tenant() {
        for (pattern, name, expected) in [
            ("match:*", "match:7", true),
            ("match:*", "match:", true),
            ("match:*", "matc", false),
            ("*:end", "a:b:end", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let pattern = PatternPath::new("dev", "a", "*").unwrap();
        assert!(pattern.matches(&ChannelPath::new("dev", "a", "x").unwrap()));
        assert!(!pattern.matches(&ChannelPath::new("dev", "b", "x").unwrap()));
        assert!(!pattern.matches(&ChannelPath::new("prod", "a", "x").unwrap()));
    }
}
