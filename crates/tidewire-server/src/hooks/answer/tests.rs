use super::*;

fn read(text: &str) -> Result<Answer, String> {
    Answer::read(text.as_bytes())
}

#[test]
fn codes_of_a_backend_are_those_that_are_left_to_it() {
    for code in [100, 103, 113, 400, 1_999] {
        let answer = read(&format!(r#"{{"error":{{"code":{code},"message":"m"}}}}"#)).unwrap();
        let Answer::Denied(Denied::Failure(failure)) = answer else { panic!("{answer:?}") };
        assert_eq!((failure.code.number, &*failure.message, failure.detail), (code, "m", None));
    }
    for code in [0, 99, 114, 301, 303, 399, 2_000, 4_000] {
        assert!(read(&format!(r#"{{"error":{{"code":{code}}}}}"#)).is_err(), "{code}");
    }
    for code in [3_000, 3_500, 4_000, 4_999] {
        let answer = read(&format!(r#"{{"disconnect":{{"code":{code}}}}}"#)).unwrap();
        let Answer::Denied(Denied::Disconnect(disconnect)) = answer else { panic!("{answer:?}") };
        assert_eq!(disconnect.code.number, code);
    }
    for code in [0, 1_000, 1_009, 2_999, 3_100, 5_000, 65_536] {
        assert!(read(&format!(r#"{{"disconnect":{{"code":{code}}}}}"#)).is_err(), "{code}");
    }
}

#[test]
fn a_temporary_error_is_told_as_one() {
    let answer = read(r#"{"error":{"code":500,"message":"busy","temporary":true}}"#).unwrap();
    let Answer::Denied(Denied::Failure(failure)) = answer else { panic!("{answer:?}") };
    assert!(failure.code.is_temporary);
}

#[test]
fn what_ends_the_connection_goes_before_an_error_and_that_before_a_result() {
    let all = r#"{"result":{},"error":{"code":400},"disconnect":{"code":4000}}"#;
    assert!(matches!(read(all), Ok(Answer::Denied(Denied::Disconnect(_)))));
    assert!(matches!(read(r#"{"result":{},"error":{"code":400}}"#), Ok(Answer::Denied(Denied::Failure(_)))));
    assert!(matches!(read(r#"{"result":null,"error":null}"#), Ok(Answer::Result(None))));
    assert!(matches!(read(r#"{"result":{"a":1},"unknown":2}"#), Ok(Answer::Result(Some(_)))));
}

#[test]
fn long_texts_are_cut_at_a_letter() {
    let long = "ü".repeat(400);
    let answer = read(&format!(r#"{{"error":{{"code":400,"message":"{long}"}}}}"#)).unwrap();
    let Answer::Denied(Denied::Failure(failure)) = answer else { panic!("{answer:?}") };
    assert_eq!(failure.message.len(), MESSAGE_BYTES_MAX);
    let answer = read(&format!(r#"{{"disconnect":{{"code":4000,"reason":"{long}"}}}}"#)).unwrap();
    let Answer::Denied(Denied::Disconnect(disconnect)) = answer else { panic!("{answer:?}") };
    assert_eq!(disconnect.reason.len(), REASON_BYTES_MAX - 1);
}
