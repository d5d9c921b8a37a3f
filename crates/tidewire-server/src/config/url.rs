//! URLs that requests are sent to.

use url::Url;

/// Checks a URL; `setting` is the one that says whether it may be at a private address, and what it says is `allow_private`.
pub(super) fn check_url(text: &str, allow_private: bool, setting: &str) -> Result<(), String> {
    let url: Url = text.parse().map_err(|error| format!("cannot be used: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => return Err(format!("is http: write https, or {setting} = true in a network of your own")),
        other => return Err(format!("is {other}: write https")),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password, which is never sent".into());
    }
    Ok(())
}
