//! Frames of clients and servers in both encodings. Reading never panics, and what was read can be written and says the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire_protocol::{Encoding, Filter, Method};

fuzz_target!(|input: &[u8]| {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        if let Ok(commands) = encoding.decode_commands(input) {
            let again: Vec<u8> =
                commands.iter().flat_map(|command| command.encode(Encoding::Protobuf)).collect();
            let read = Encoding::Protobuf.decode_commands(&again);
            // What a newer client asks for has no form of ours.
            if commands.iter().all(|command| command.method != Method::Unknown) {
                assert_eq!(read.ok().as_ref(), Some(&commands));
            }
            for command in &commands {
                if let Method::Subscribe(request) = &command.method
                    && let Some(Ok(filter)) = request.tf.as_ref().map(Filter::new)
                {
                    let _ = filter.admits(|_| Some("1"));
                }
            }
        }
        if let Ok(replies) = encoding.decode_replies(input) {
            for reply in replies {
                let _ = (reply.encode(Encoding::Json), reply.encode(Encoding::Protobuf));
            }
        }
        let _ = encoding.decode_connect(input);
        let _ = encoding.decode_emulation(input);
    }
});
