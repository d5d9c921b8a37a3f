//! Whatever a client sends, reading it gives commands or an error that names the trouble; it never panics.

use proptest::prelude::*;
use tidewire_protocol::limits::{COMMANDS_PER_FRAME_MAX, DEPTH_MAX};
use tidewire_protocol::{
    Command, ConnectRequest, DecodeError, Encoding, JsonData, Method, Opaque, PublishRequest,
    SubscribeRequest,
};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

fn decode_commands(frame: &str) -> Result<Vec<Command<'_>>, DecodeError> {
    Encoding::Json.decode_commands(frame.as_bytes())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(frame in "\\PC{0,200}") {
        let _ = decode_commands(&frame);
        let _ = Encoding::Json.decode_replies(frame.as_bytes());
    }

    #[test]
    fn any_bytes_are_read_or_refused(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        for encoding in ENCODINGS {
            if let Ok(commands) = encoding.decode_commands(&frame) {
                // What was read can be written, and says the same then.
                let again: Vec<u8> = commands.iter().flat_map(|command| command.encode(Encoding::Protobuf)).collect();
                prop_assert_eq!(Encoding::Protobuf.decode_commands(&again).unwrap(), commands);
            }
            let _ = encoding.decode_replies(&frame);
        }
    }

    /// A good frame with one byte changed reaches further than noise does.
    #[test]
    fn damaged_messages_are_read_or_refused(at in 0usize..60, byte in any::<u8>()) {
        let request = SubscribeRequest { channel: "orders".into(), recover: true, epoch: "Ab3".into(), offset: 42, ..Default::default() };
        let command = Command { id: 3, method: Method::Subscribe(request) };
        let mut frame = command.encode(Encoding::Protobuf).to_vec();
        if let Some(target) = frame.get_mut(at) {
            *target = byte;
        }
        let _ = Encoding::Protobuf.decode_commands(&frame);
        let _ = Encoding::Protobuf.decode_replies(&frame);
    }

    #[test]
    fn any_bytes_become_data_or_are_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = JsonData::from_json(&data);
        let any = JsonData::from_any(&data);
        prop_assert!(serde_json::from_str::<serde_json::Value>(any.get()).is_ok());
        prop_assert!(!any.get().contains('\n'));
    }

    /// Damage to a good frame reaches further into the reader than noise does.
    #[test]
    fn damaged_commands_are_read_or_refused(at in 0usize..90, byte in any::<u8>()) {
        let mut frame = br#"{"id":3,"subscribe":{"channel":"orders","recover":true,"epoch":"Ab3","offset":42}}"#.to_vec();
        if let Some(target) = frame.get_mut(at) {
            *target = byte;
        }
        if let Ok(text) = std::str::from_utf8(&frame) {
            let _ = decode_commands(text);
        }
    }

    #[test]
    fn what_is_written_is_read_back(id in 1u32.., channel in "\\PC{0,40}", token in "\\PC{0,40}", offset: u64) {
        let data = serde_json::value::to_raw_value(&channel).unwrap();
        let commands = [
            Command { id, method: Method::Connect(ConnectRequest { token: token.into(), ..Default::default() }) },
            Command {
                id,
                method: Method::Subscribe(SubscribeRequest {
                    channel: channel.as_str().into(),
                    offset,
                    ..Default::default()
                }),
            },
            Command {
                id,
                method: Method::Publish(PublishRequest { channel: channel.as_str().into(), data: Some(Opaque::from(&*data)) }),
            },
        ];
        for encoding in ENCODINGS {
            let encoded: Vec<_> = commands.iter().map(|command| command.encode(encoding)).collect();
            let frame = encoded.join(encoding.separator());
            prop_assert_eq!(&encoding.decode_commands(&frame).unwrap(), &commands);
        }
    }
}

#[test]
fn reads_several_commands_of_a_frame_with_a_trailing_newline() {
    let commands = decode_commands("{\"id\":1,\"ping\":{}}\n{\"id\":2,\"ping\":{}}\n").unwrap();
    assert_eq!(commands.iter().map(|command| command.id).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn ignores_fields_of_newer_clients() {
    let commands = decode_commands(r#"{"id":1,"connect":{"later":{}},"hint":[1]}"#).unwrap();
    assert_eq!(commands, [Command { id: 1, method: Method::Connect(ConnectRequest::default()) }]);
}

#[test]
fn refuses_frames_over_each_limit() {
    assert!(matches!(decode_commands(""), Err(DecodeError::Empty)));
    assert!(matches!(decode_commands("\n \n"), Err(DecodeError::Empty)));
    assert!(matches!(
        decode_commands(&"{}\n".repeat(COMMANDS_PER_FRAME_MAX + 1)),
        Err(DecodeError::TooManyCommands)
    ));
    let deep = format!(r#"{{"id":1,"publish":{{"data":{}1}}}}"#, "[".repeat(DEPTH_MAX));
    assert!(matches!(decode_commands(&deep), Err(DecodeError::TooDeep)));
}

#[test]
fn refuses_broken_json_and_wrong_types() {
    for frame in [
        "[]",
        "1",
        "{\"id\":-1,\"ping\":{}}",
        "{\"id\":1,\"subscribe\":{\"channel\":5}}",
        "{\"id\":1,",
        "{\"id\":1,\"ping\":{},\"rpc\":{}}",
        "\u{0}",
    ] {
        assert!(matches!(decode_commands(frame), Err(DecodeError::Json(_))), "{frame:?}");
    }
}

#[test]
fn a_command_asks_for_one_thing_in_either_encoding() {
    // Connect and subscribe, both empty.
    assert!(matches!(
        Encoding::Protobuf.decode_commands(&[4, 0x22, 0, 0x2a, 0]),
        Err(DecodeError::TwoMethods)
    ));
    assert!(matches!(Encoding::Protobuf.decode_commands(&[]), Err(DecodeError::Empty)));
    assert!(matches!(Encoding::Json.decode_commands(b"{\xff}"), Err(DecodeError::NotUtf8)));
    let pongs = Encoding::Protobuf.decode_commands(&[0, 0]).unwrap();
    assert!(pongs.iter().all(|command| command.method == Method::Pong) && pongs.len() == 2);
}
