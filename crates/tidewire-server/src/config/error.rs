//! What is wrong with a settings file, in one line that names the fix.

/// A settings file cannot be used. The text names the file, the line, the key and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        Self(format!("{file}: cannot be read: {error}"))
    }

    pub(super) fn invalid(file: &str, problem: &str) -> Self {
        Self(format!("{file}: {problem}"))
    }

    pub(super) fn of_setting(setting: &str, file: &std::path::Path, problem: &str) -> Self {
        Self(format!("{setting}: {}: {problem}", file.display()))
    }

    pub(super) fn from_toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let place = match error.span().and_then(|span| text.get(..span.start)) {
            Some(before) => format!("{file}:{}", before.matches('\n').count() + 1),
            None => file.to_owned(),
        };
        let message = error.message();
        Self(match unknown_key(message) {
            Some((key, Some(nearest))) => format!("{place}: unknown key {key:?}; did you mean {nearest:?}?"),
            Some((key, None)) => format!("{place}: unknown key {key:?}; see `tidewire config default`"),
            None => format!("{place}: {}", message.replace('\n', ", ")),
        })
    }
}

/// Takes apart serde's "unknown field `x`, expected one of `a`, `b`": the key, and the known one nearest to it.
fn unknown_key(message: &str) -> Option<(&str, Option<&str>)> {
    let rest = message.strip_prefix("unknown field ")?;
    // Every second piece between backticks is a name: first the unknown one, then those that are known.
    let mut names = rest.split('`').skip(1).step_by(2);
    let key = names.next()?;
    let nearest = names
        .map(|name| (strsim::jaro_winkler(key, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    Some((key, nearest.map(|(_, name)| name)))
}
