//! Values that a settings file writes as text.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A secret: it can be used, not printed. `Debug` and `Serialize` show `[hidden]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the comparison or signature that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str("[hidden]")
    }
}

/// The URL of an engine. `Debug`, `Display` and `Serialize` hide a password in it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct EngineUrl(String);

impl EngineUrl {
    /// The URL with its password, for opening the engine.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for EngineUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last @ ends the user part: a password may hold one too.
        let hidden =
            self.0.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
        let rest = match hidden {
            Some((scheme, rest)) => {
                write!(f, "{scheme}://[hidden]@")?;
                rest
            }
            None => &self.0,
        };
        let (place, options) =
            rest.split_once('?').map_or((rest, None), |(place, options)| (place, Some(options)));
        f.write_str(place)?;
        for (number, option) in options.into_iter().flat_map(|options| options.split('&')).enumerate() {
            f.write_str(if number == 0 { "?" } else { "&" })?;
            match option.split_once('=') {
                Some((name, _)) if name.ends_with("password") => write!(f, "{name}=[hidden]")?,
                _ => f.write_str(option)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EngineUrl {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

/// Durations as `25s`, `5m`, `24h`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Units, largest first, with their length in milliseconds.
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

    pub(in crate::config) fn parse(text: &str) -> Option<Duration> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        number.parse::<u64>().ok()?.checked_mul(*millis).map(Duration::from_millis)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(input)?;
        parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "duration {text:?} is not a number and one of ms, s, m, h, d, such as \"25s\""
            ))
        })
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Duration,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let unit = UNITS.iter().find(|(_, length)| millis > 0 && millis % length == 0);
        match unit {
            Some((name, length)) => output.collect_str(&format_args!("{}{name}", millis / length)),
            None => output.serialize_str("0s"),
        }
    }
}

/// Durabilities as the library writes them.
pub(super) mod durability {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use tidewire::Durability;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Durability, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        durability: &Durability,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        output.collect_str(durability)
    }
}

/// What is done at the bound of a stream.
pub(super) mod at_bound {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use tidewire::AtBound;

    const NAMES: [(&str, AtBound); 3] =
        [("block", AtBound::Block), ("reject", AtBound::Reject), ("drop-oldest", AtBound::DropOldest)];

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<AtBound, D::Error> {
        let text = String::deserialize(input)?;
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, at_bound)| *at_bound).ok_or_else(|| {
            D::Error::custom(format!("at_bound {text:?} is unknown; known are block, reject, drop-oldest"))
        })
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        at_bound: &AtBound,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        let name = NAMES.iter().find(|(_, known)| known == at_bound).map_or("block", |(name, _)| *name);
        output.serialize_str(name)
    }
}
