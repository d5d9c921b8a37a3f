//! What a tap shows of a frame: what it is about, and its data only where that is asked for. A token is never shown.

use serde_json::value::RawValue;
use tidewire_protocol::v1::{TapEvent, TapLine};
use tidewire_protocol::{
    ClientInfo, Command, JsonData, Method, Opaque, Publication, Push, PushBody, Reply, ReplyBody,
};

use super::watch::{Seen, What};
use crate::gateway::connection::name_of;

/// Data up to this size is shown, in bytes.
const DATA_BYTES_MAX: usize = 4 * 1024;

/// Whether the data of events and commands is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// How large it is.
    Size,
    /// All of it.
    Data,
}

/// What is told of something that was seen. Pings are passed over.
pub(super) fn lines_of(seen: &Seen, detail: Detail) -> Vec<TapLine> {
    let form = seen.seat.form;
    let mut lines = match &seen.what {
        What::Opened => vec![TapLine { what: TapEvent::Opened, ..TapLine::default() }],
        What::Closed { code, reason } => {
            let (code, reason) = (Some(*code), reason.to_string());
            vec![TapLine { what: TapEvent::Closed, code, reason, ..TapLine::default() }]
        }
        What::Commands(frame) if form.is_unidirectional => vec![strange(TapEvent::Command, frame.len())],
        What::Commands(frame) => match form.encoding.decode_commands(frame) {
            Ok(commands) => commands.iter().filter_map(|command| line_of_command(command, detail)).collect(),
            Err(_) => vec![strange(TapEvent::Command, frame.len())],
        },
        What::Frame(frame) if frame.as_bytes() == &*form.encoding.ping() => Vec::new(),
        What::Frame(frame) if form.is_unidirectional => match form.encoding.decode_push(frame.as_bytes()) {
            Ok(push) => vec![line_of_push(&push, detail)],
            Err(_) => vec![strange(TapEvent::Push, frame.len())],
        },
        What::Frame(frame) => match form.encoding.decode_replies(frame.as_bytes()) {
            Ok(replies) => replies.iter().filter_map(|reply| line_of_reply(reply, detail)).collect(),
            Err(_) => vec![strange(TapEvent::Reply, frame.len())],
        },
    };
    let at = seen.at.to_string();
    for line in &mut lines {
        line.at.clone_from(&at);
        line.client = seen.seat.client.to_string();
    }
    lines
}

/// What cannot be read.
fn strange(what: TapEvent, bytes: usize) -> TapLine {
    TapLine { what, kind: "unknown".into(), bytes: bytes as u64, ..TapLine::default() }
}

fn line_of_command(command: &Command<'_>, detail: Detail) -> Option<TapLine> {
    let Command { id, method } = command;
    let (channel, data) = match method {
        Method::Pong => return None,
        Method::Subscribe(request) => (&*request.channel, request.data.as_ref()),
        Method::Unsubscribe(request) | Method::Presence(request) | Method::PresenceStats(request) => {
            (&*request.channel, None)
        }
        Method::Publish(request) => (&*request.channel, request.data.as_ref()),
        Method::History(request) => (&*request.channel, None),
        Method::SubRefresh(request) => (&*request.channel, None),
        Method::Rpc(request) => ("", request.data.as_ref()),
        Method::Send(request) => ("", request.data.as_ref()),
        Method::Connect(_) | Method::Refresh(_) | Method::Ping | Method::Unknown => ("", None),
    };
    let line = TapLine {
        what: TapEvent::Command,
        kind: name_of(method).into(),
        id: *id,
        channel: channel.into(),
        ..TapLine::default()
    };
    Some(with_data(line, data, detail))
}

fn line_of_reply(reply: &Reply<'_>, detail: Detail) -> Option<TapLine> {
    let line =
        |kind: &str| TapLine { what: TapEvent::Reply, id: reply.id, kind: kind.into(), ..TapLine::default() };
    let count = |count: usize| Some(count as u64);
    Some(match &reply.body {
        ReplyBody::ServerPing => return None,
        ReplyBody::Push(push) => line_of_push(push, detail),
        ReplyBody::Error(error) => {
            TapLine { code: Some(error.code), reason: error.message.to_string(), ..line("error") }
        }
        ReplyBody::Connect(result) => TapLine { count: count(result.subs.len()), ..line("connect") },
        ReplyBody::Subscribe(result) => {
            let recovered = (result.was_recovering).then_some(result.publications.len() as u64);
            let line = TapLine { offset: result.offset, count: recovered, ..line("subscribe") };
            with_data(line, result.data.as_ref(), detail)
        }
        ReplyBody::History(result) => {
            TapLine { offset: result.offset, count: count(result.publications.len()), ..line("history") }
        }
        ReplyBody::Presence(result) => TapLine { count: count(result.presence.len()), ..line("presence") },
        ReplyBody::PresenceStats(result) => {
            TapLine { count: Some(result.num_clients.into()), ..line("presence_stats") }
        }
        ReplyBody::Rpc(result) => with_data(line("rpc"), result.data.as_ref(), detail),
        ReplyBody::Unsubscribe(_) => line("unsubscribe"),
        ReplyBody::Publish(_) => line("publish"),
        ReplyBody::Ping(_) => line("ping"),
        ReplyBody::Refresh(_) => line("refresh"),
        ReplyBody::SubRefresh(_) => line("sub_refresh"),
    })
}

fn line_of_push(push: &Push<'_>, detail: Detail) -> TapLine {
    let line = |kind: &str| TapLine {
        what: TapEvent::Push,
        channel: push.channel.to_string(),
        kind: kind.into(),
        ..TapLine::default()
    };
    let of_member = |kind, info: &ClientInfo<'_>| TapLine { reason: info.client.to_string(), ..line(kind) };
    match &push.body {
        PushBody::Publication(Publication { data, offset, delta, .. }) => {
            let line = TapLine { offset: *offset, ..line(if *delta { "delta" } else { "publication" }) };
            with_data(line, Some(data), detail)
        }
        PushBody::Join(member) => of_member("join", &member.info),
        PushBody::Leave(member) => of_member("leave", &member.info),
        PushBody::Unsubscribe(end) => {
            TapLine { code: Some(end.code), reason: end.reason.to_string(), ..line("unsubscribe") }
        }
        PushBody::Disconnect(end) => {
            TapLine { code: Some(end.code), reason: end.reason.to_string(), ..line("disconnect") }
        }
        PushBody::Direct(direct) => with_data(line("message"), Some(&direct.data), detail),
        PushBody::Subscribe(subscribe) => TapLine { offset: subscribe.offset, ..line("subscribe") },
        PushBody::Connect(result) => TapLine { count: Some(result.subs.len() as u64), ..line("connect") },
        PushBody::Refresh(_) => line("refresh"),
        PushBody::Other => line("unknown"),
    }
}

fn with_data(line: TapLine, data: Option<&Opaque<'_>>, detail: Detail) -> TapLine {
    let Some(data) = data else { return line };
    let bytes = data.as_bytes().len();
    let is_shown = detail == Detail::Data && bytes <= DATA_BYTES_MAX;
    let shown = is_shown.then(|| match data {
        Opaque::Json(json) => json.get().to_owned(),
        Opaque::Bytes(bytes) => JsonData::from_any(bytes).get().to_owned(),
    });
    let data = shown.and_then(|json| RawValue::from_string(json).ok());
    TapLine { bytes: bytes as u64, data, ..line }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tidewire::Timestamp;
    use tidewire_protocol::{Encoding, RefreshRequest, SubscribeRequest};

    use super::super::watch::Seat;
    use super::*;
    use crate::hub::outbox::Frame;
    use crate::publication::Form;

    fn shown(form: Form, what: What, detail: Detail) -> String {
        let seat = Arc::new(Seat { watched: Arc::default(), client: "c".into(), form });
        let lines = lines_of(&Seen { at: Timestamp::default(), seat, what }, detail);
        lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect::<Vec<_>>().join("\n")
    }

    fn forms() -> [Form; 2] {
        [Encoding::Json, Encoding::Protobuf].map(|encoding| Form { encoding, ..Form::default() })
    }

    #[test]
    fn no_token_is_ever_shown() {
        for form in forms() {
            for method in [
                Method::Refresh(RefreshRequest { token: "secret".into() }),
                Method::Subscribe(SubscribeRequest {
                    channel: "a".into(),
                    token: "secret".into(),
                    ..SubscribeRequest::default()
                }),
            ] {
                let frame = Command { id: 7, method }.encode(form.encoding);
                let shown = shown(form, What::Commands(frame), Detail::Data);
                assert!(shown.contains("\"id\":7") && !shown.contains("secret"), "{shown}");
            }
        }
    }

    #[test]
    fn data_is_shown_where_it_is_asked_for_in_either_encoding_and_direction() {
        for form in forms() {
            let both = [form, Form { is_unidirectional: true, ..form }];
            for form in both {
                let data = Opaque::text("hello");
                let push = Push::publication("a", Publication { data, offset: 3, ..Publication::default() });
                let frame = form.push(push);
                let size = shown(form, What::Frame(frame.clone()), Detail::Size);
                assert!(size.contains(r#""what":"push""#) && !size.contains("hello"), "{size}");
                let all = shown(form, What::Frame(frame), Detail::Data);
                assert!(all.contains(r#""channel":"a","offset":3,"bytes":7,"data":"hello""#), "{all}");
            }
        }
    }

    #[test]
    fn pings_are_passed_over_and_what_cannot_be_read_is_said_to_be_there() {
        for form in forms() {
            let ping = form.encoding.ping();
            assert_eq!(shown(form, What::Frame(Frame::new(ping.clone())), Detail::Data), "");
            assert_eq!(shown(form, What::Commands(ping), Detail::Data), "");
            let strange = shown(form, What::Commands(Bytes::from_static(b"\xff\xff")), Detail::Data);
            assert!(
                strange.contains(r#""what":"command","client":"c","kind":"unknown","bytes":2"#),
                "{strange}"
            );
        }
    }
}
