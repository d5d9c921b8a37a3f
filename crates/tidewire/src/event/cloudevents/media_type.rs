//! What a content type says of data.

/// Whether a content type says that data is JSON: subtype `json` or one that ends with `+json`, or none at all.
pub fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return true };
    let (_, subtype) = kind_of(content_type);
    subtype == "json" || subtype.ends_with("+json")
}

/// Whether a content type says that data is text for people: `text/..`, or XML.
pub(super) fn is_text(content_type: &str) -> bool {
    let (kind, subtype) = kind_of(content_type);
    kind == "text" || subtype == "xml" || subtype.ends_with("+xml")
}

/// Whether text of a content type is UTF-8: it names no other character set.
pub(super) fn is_utf8(content_type: &str) -> bool {
    let charset = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    charset.is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8"))
}

/// Type and subtype in lower case, without parameters.
fn kind_of(content_type: &str) -> (String, String) {
    let (media_type, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
    (kind.trim().to_ascii_lowercase(), subtype.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_the_subtype_alone() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "text/json",
            "application/vnd.shop.order+json",
        ] {
            assert!(is_json(Some(json)), "{json}");
        }
        for other in ["application/json-seq", "text/plain", "json", "application/xml; note=a/json"] {
            assert!(!is_json(Some(other)), "{other}");
        }
        assert!(is_json(None));
    }

    #[test]
    fn text_in_another_character_set_is_told_from_utf_8() {
        assert!(
            is_text("text/plain; charset=utf-8") && is_text("image/svg+xml") && is_text("application/xml")
        );
        assert!(!is_text("application/octet-stream"));
        assert!(is_utf8("text/plain") && is_utf8("text/plain; a=b; Charset=\"UTF-8\""));
        assert!(!is_utf8("text/plain; charset=iso-8859-1"));
    }
}
