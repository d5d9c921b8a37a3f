//! What two reasons have in common that differ only in which event they speak of.

/// Bytes of a fingerprint: people read it in a table, and what tells faults apart stands at the start.
const FINGERPRINT_BYTES_MAX: usize = 200;
/// Hexadecimal digits from which a word is an id.
const HEX_ID_BYTES_MIN: usize = 8;
/// Lengths of the groups of a UUID.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// A reason with `#` in place of numbers and ids and `"#"` in place of what stands in quotes, so that the same fault of many
/// events has one fingerprint: that by which dead letters are grouped, and by which they can be picked.
///
/// ```
/// # use tidewire::fingerprint;
/// assert_eq!(&*fingerprint("customer \"Ann\" not found in 12.5ms"), "customer \"#\" not found in #ms");
/// assert_eq!(&*fingerprint("order 0192d3c4e5f6 at 10.0.0.7:5432"), "order # at #:#");
/// ```
pub fn fingerprint(reason: &str) -> Box<str> {
    let mut out = String::with_capacity(reason.len().min(FINGERPRINT_BYTES_MAX));
    let mut rest = reason;
    let mut before = ' ';
    while let Some(first) = rest.chars().next()
        && out.len() < FINGERPRINT_BYTES_MAX
    {
        let taken = if let Some(bytes) = quoted(rest, before) {
            out.extend([first, '#', first]);
            bytes
        } else if let Some(bytes) = uuid(rest) {
            out.push('#');
            bytes
        } else if first.is_ascii_alphanumeric() {
            let bytes = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            word(rest, bytes, &mut out)
        } else {
            out.push(first);
            first.len_utf8()
        };
        before = rest.get(..taken).and_then(|taken| taken.chars().next_back()).unwrap_or(' ');
        rest = rest.get(taken..).unwrap_or_default();
    }
    out.truncate(out.floor_char_boundary(FINGERPRINT_BYTES_MAX));
    out.into()
}

/// Bytes of what stands in quotes at the start, quotes included. An apostrophe within a word is no quote.
fn quoted(rest: &str, before: char) -> Option<usize> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    if quote == '\'' && before.is_alphanumeric() {
        return None;
    }
    let inside = rest.get(1..)?;
    let ends = inside.match_indices(quote).map(|(at, _)| at);
    let is_end = |at: &usize| {
        quote != '\'' || !inside.get(at + 1..).is_some_and(|after| after.starts_with(char::is_alphanumeric))
    };
    ends.filter(is_end).map(|at| at + 2).next()
}

/// Bytes of a UUID at the start.
fn uuid(rest: &str) -> Option<usize> {
    let mut at = 0;
    for (number, bytes) in UUID_GROUPS.into_iter().enumerate() {
        if number > 0 {
            rest.get(at..)?.strip_prefix('-')?;
            at += 1;
        }
        rest.get(at..at + bytes)?.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
        at += bytes;
    }
    let goes_on = rest.get(at..)?.starts_with(|c: char| c.is_ascii_alphanumeric());
    (!goes_on).then_some(at)
}

/// Puts the word of so many bytes that `rest` begins with, and says how many bytes it took: more where a number goes on
/// after a point.
fn word(rest: &str, bytes: usize, out: &mut String) -> usize {
    let text = rest.get(..bytes).unwrap_or_default();
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    if !has_digit {
        out.push_str(text);
        return bytes;
    }
    let is_hex = text.len() >= HEX_ID_BYTES_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    // Digits in several places of one word: an id of any alphabet.
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).count();
    if is_hex || numbers > 1 || text.starts_with("0x") {
        out.push('#');
        return bytes;
    }
    let letters = text.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
    out.push_str(text.get(..letters).unwrap_or_default());
    out.push('#');
    let mut end = letters + digits(text.get(letters..).unwrap_or_default());
    // A fraction, an address, a version.
    while let Some(more) =
        rest.get(end..).and_then(|after| after.strip_prefix('.')).map(digits).filter(|&more| more > 0)
    {
        end += 1 + more;
    }
    if end < bytes {
        out.push_str(text.get(end..).unwrap_or_default());
    }
    end.max(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_differs_between_events_is_left_out() {
        for (reason, expected) in [
            ("card declined", "card declined"),
            ("order 7: card 4242 declined after 350ms", "order #: card # declined after #ms"),
            ("order 0192d3c4-e5f6-7890-abcd-ef0123456789 gone", "order # gone"),
            ("row 01ARZ3NDEKTSV4RRFFQ69G5FAV and ord_8f3kq2", "row # and ord_#"),
            ("user 'ann' isn't in `eu-west`, says \"billing\"", "user '#' isn't in `#`, says \"#\""),
            ("connect 10.0.0.7:5432 in 1.5s, 2.25 s at v1.2.3", "connect #:# in #s, # s at v#"),
            ("pointer 0x7ffe at deadbee7", "pointer # at #"),
            ("key \"\" is empty, so is it's \"", "key \"#\" is empty, so is it's \""),
            ("größe 12 ist zu groß", "größe # ist zu groß"),
            ("", ""),
        ] {
            assert_eq!(&*fingerprint(reason), expected, "{reason}");
        }
    }

    proptest! {
        #[test]
        fn any_reason_has_a_short_fingerprint_that_is_its_own(reason in "\\PC{0,300}|[a-f0-9.'\"-]{0,300}") {
            let print = fingerprint(&reason);
            prop_assert!(print.len() <= FINGERPRINT_BYTES_MAX);
        }
    }
}
