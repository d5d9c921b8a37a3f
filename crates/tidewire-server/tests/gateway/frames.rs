//! What does not belong on the wire ends the connection that sent it, with a reason, and no other.

use std::time::Duration;

use serde_json::json;
use tidewire_protocol::limits::{COMMANDS_PER_FRAME_MAX, DEPTH_MAX, FRAME_BYTES_MAX};
use tidewire_protocol::websocket::{Deflater, Effort, FrameHeader, Opcode, WindowBits, encode_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, dev, publish, start};

#[tokio::test]
async fn bad_frames_end_their_connection_and_no_other() {
    let server = start(dev()).await;
    let (mut witness, _) = Client::subscribed(&server, "frames").await;
    let deep = format!(r#"{{"id":2,"publish":{{"channel":"a","data":{}}}}}"#, "[".repeat(DEPTH_MAX));
    let many = "{}\n".repeat(COMMANDS_PER_FRAME_MAX + 1);
    for (frame, reason) in [
        ("rubbish", "malformed JSON"),
        ("{\"id\":2,", "malformed JSON"),
        ("", "frame is empty"),
        ("[1]", "malformed JSON"),
        (r#"{"id":2,"subscribe":{"channel":7}}"#, "malformed JSON"),
        (deep.as_str(), "nests deeper"),
        (many.as_str(), "more than 1000 commands"),
    ] {
        let mut client = Client::anonymous(&server).await;
        client.send(frame).await;
        let (code, said) = client.closed().await;
        assert_eq!(code, 3501, "{said}");
        assert!(said.contains(reason), "{said:?} does not say {reason:?}");
    }
    let mut client = Client::anonymous(&server).await;
    client.send_message(Message::Binary(vec![1, 2, 3].into())).await;
    assert_eq!(client.closed().await, (3506, "inappropriate protocol".into()));

    publish(&server, "frames", json!("still here")).await;
    assert_eq!(witness.publication("frames").await, (json!("still here"), 1));
}

#[tokio::test]
async fn a_frame_over_the_limit_is_told_so() {
    let server = start(dev()).await;
    let fill = |bytes: usize| {
        let around = json!({"id": 2, "publish": {"channel": "large", "data": ""}}).to_string();
        json!({"id": 2, "publish": {"channel": "large", "data": "x".repeat(bytes - around.len())}})
            .to_string()
    };
    let mut client = Client::anonymous(&server).await;
    client.send(fill(FRAME_BYTES_MAX)).await;
    client.reply(2, "publish").await.unwrap();
    client.send(fill(FRAME_BYTES_MAX + 1)).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1009);
    assert!(reason.contains("limits.client_frame_bytes_max"), "{reason}");
}

#[tokio::test]
async fn a_bomb_is_refused_by_what_it_inflates_to() {
    let mut config = dev();
    config.websocket.compression = true;
    let server = start(config).await;
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let upgrade = "GET /connection/websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut bomb = Vec::new();
    // Twenty times as much as is taken, in a frame that would be.
    Deflater::new(WindowBits::MAX, Effort::Fast).compress(&vec![b' '; 20 * FRAME_BYTES_MAX], &mut bomb);
    assert!(bomb.len() < FRAME_BYTES_MAX / 2, "{}", bomb.len());
    let header = FrameHeader::whole(Opcode::Text, bomb.len()).compressed().masked([1, 2, 3, 4]);
    stream.write_all(&encode_frame(header, &bomb)).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
    read.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.contains("permessage-deflate") && answer.contains("limits.client_frame_bytes_max"),
        "{answer}"
    );
}

#[tokio::test]
async fn several_commands_of_one_frame_are_answered_in_order() {
    let server = start(dev()).await;
    let mut client = Client::open(&server).await;
    client
        .send(concat!(
            "{\"id\":1,\"connect\":{}}\n",
            "{\"id\":2,\"subscribe\":{\"channel\":\"several\"}}\n",
            "{\"id\":3,\"publish\":{\"channel\":\"several\",\"data\":1}}\n",
            "{\"id\":4,\"ping\":{}}\n",
        ))
        .await;
    let mut ids = Vec::new();
    let mut has_push = false;
    while ids.len() < 4 || !has_push {
        let line = client.line().await.unwrap();
        has_push |= line.get("push").is_some();
        ids.extend(line["id"].as_u64());
    }
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[tokio::test]
async fn commands_before_a_bad_one_are_still_answered() {
    let server = start(dev()).await;
    let mut client = Client::anonymous(&server).await;
    client.send("{\"id\":7,\"ping\":{}}\n{\"ping\":{}}").await;
    client.reply(7, "ping").await.unwrap();
    assert_eq!(client.closed().await.0, 3501);
}
