use super::*;

fn bits(bits: u8) -> WindowBits {
    WindowBits::new(bits).unwrap()
}

/// The answer to one header, for a deflater of the full window.
fn answer(header: &str) -> Option<String> {
    let agreed = agree_deflate([header], WindowBits::MAX).unwrap();
    agreed.map(|agreement| agreement.response_header().into_owned())
}

#[test]
fn accepts_a_key_as_rfc_6455_shows() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn refuses_a_key_that_is_not_16_bytes() {
    for key in [
        "",
        "==",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25j_Q==",
        "AAAA==",
    ] {
        assert_eq!(accept_key(key), None, "{key:?}");
    }
}

#[test]
fn agrees_to_offers_of_any_legal_parameters() {
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate;client_max_window_bits=8",
        "permessage-deflate ; client_max_window_bits = \"1\\5\"",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "Permessage-Deflate; Client_Max_Window_Bits=15",
    ] {
        assert_eq!(answer(offer).as_deref(), Some(DEFLATE_ANSWER), "{offer}");
    }
}

#[test]
fn names_the_window_to_a_client_that_asked_for_one() {
    let named = format!("{DEFLATE_ANSWER}; server_max_window_bits=15");
    assert_eq!(answer("permessage-deflate; server_max_window_bits=15").as_deref(), Some(named.as_str()));
    let small = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
    assert_eq!(answer(small), None);
    let agreed = agree_deflate([small], bits(12)).unwrap().unwrap();
    assert_eq!(agreed.response_header(), format!("{DEFLATE_ANSWER}; server_max_window_bits=12"));
    assert_eq!(agree_deflate(["permessage-deflate; server_max_window_bits=8"], bits(9)).unwrap(), None);
}

#[test]
fn declines_offers_with_illegal_parameters() {
    for offer in [
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=015",
        "permessage-deflate; server_max_window_bits=+15",
        "permessage-deflate; server_max_window_bits=271",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "x-webkit-deflate-frame",
        "",
    ] {
        assert_eq!(answer(offer), None, "{offer}");
    }
}

#[test]
fn takes_the_first_offer_that_it_can_honour() {
    let named = format!("{DEFLATE_ANSWER}; server_max_window_bits=15");
    let declined = "permessage-deflate; server_max_window_bits=10";
    let header = format!("other; a=b, {declined}, permessage-deflate; server_max_window_bits=15");
    assert_eq!(answer(&header).as_deref(), Some(named.as_str()));
    assert_eq!(
        answer(&format!("{declined},, permessage-deflate, permessage-deflate; server_max_window_bits=15"))
            .as_deref(),
        Some(DEFLATE_ANSWER)
    );
    let lines = [declined, "permessage-deflate"];
    assert!(agree_deflate(lines, WindowBits::MAX).unwrap().is_some());
}

#[test]
fn refuses_headers_that_break_the_grammar() {
    for header in [
        ";",
        "permessage-deflate;",
        "permessage-deflate; =1",
        "permessage-deflate; a=",
        "permessage-deflate; a=\"",
        "permessage-deflate; a=\"\"",
        "permessage-deflate; a=\"b c\"",
        "permessage-deflate; a=\"b\\",
        "permessage-deflate; a=\"b\"c",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate, other/",
        "permessage-d\u{e9}flate",
    ] {
        assert_eq!(agree_deflate([header], WindowBits::MAX), Err(MalformedExtensions), "{header}");
    }
}

#[test]
fn lists_protocols_in_the_order_of_the_client() {
    let headers = ["centrifuge-protobuf , centrifuge-json", "\tother,, not a token,\u{e9}"];
    let protocols: Vec<&str> = requested_protocols(headers).collect();
    assert_eq!(protocols, ["centrifuge-protobuf", "centrifuge-json", "other"]);
}
