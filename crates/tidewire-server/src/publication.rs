//! An event on its way between the wire and the library.
//!
//! What a JSON publication has beside its data - who published it, and labels - travels as CloudEvents extension
//! attributes of the event, so that services see it too.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use tidewire::{Channel, Event, Received};
use tidewire_protocol::{
    ClientInfo, Encoding, Filter, JsonData, Membership, Opaque, Publication, Push, PushBody, delta,
};

use crate::gateway::authenticate::Identity;
use crate::hub::outbox::Frame;

/// The CloudEvents `type` of what clients and the server API publish.
const EVENT_TYPE: &str = "tidewire.publication";
/// The `type` of the live events that tell who came to a channel and who went.
const JOIN_TYPE: &str = "tidewire.join";
const LEAVE_TYPE: &str = "tidewire.leave";
const USER: &str = "user";
const CONNECTION: &str = "connection";
const CONNECTION_INFO: &str = "connectioninfo";
const TAGS: &str = "tags";

/// Data over this many bytes travels whole: finding what has changed in it would hold up the other subscribers for
/// milliseconds.
const DELTA_DATA_BYTES_MAX: usize = 64 * 1024;

/// Labels of a publication.
pub(crate) type Tags<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// The event that a client publishes.
pub(crate) fn event_of_client(data: Vec<u8>, connection: &str, identity: &Identity) -> Event {
    let event = Event::new(EVENT_TYPE, data).with_extension(CONNECTION, connection);
    let event = if identity.user.is_empty() { event } else { event.with_extension(USER, &identity.user) };
    match &identity.info {
        Some(info) => event.with_extension(CONNECTION_INFO, info),
        None => event,
    }
}

/// The event that the server API publishes.
pub(crate) fn event_of_api(data: Bytes, tags: &Tags<'_>) -> Event {
    let event = Event::new(EVENT_TYPE, data);
    if tags.is_empty() {
        return event;
    }
    // A map of strings can always be written.
    event.with_extension(TAGS, &serde_json::to_string(tags).unwrap_or_default())
}

/// Whether somebody came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Movement {
    Join,
    Leave,
}

/// The event that tells who came or went; `member` is a [`ClientInfo`] as JSON.
pub(crate) fn event_of_movement(movement: Movement, member: Bytes) -> Event {
    Event::new(if movement == Movement::Join { JOIN_TYPE } else { LEAVE_TYPE }, member)
}

/// The push of such an event; `None` for any other event.
pub(crate) fn movement_of(event: &Event) -> Option<PushBody<'_>> {
    let is_join = match event.event_type() {
        JOIN_TYPE => true,
        LEAVE_TYPE => false,
        _ => return None,
    };
    let member = Membership { info: serde_json::from_slice(event.data()).ok()? };
    Some(if is_join { PushBody::Join(member) } else { PushBody::Leave(member) })
}

/// What of an event is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum View {
    /// All of it, in clear.
    #[default]
    Whole,
    /// Nothing that its contract marks as personal, and nothing that is sealed.
    Redacted,
}

/// How what a connection is sent is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    /// Whether pushes stand alone, because no reply ever comes.
    pub(crate) is_unidirectional: bool,
    pub(crate) view: View,
    /// Whether data may come as what has changed since the event before; JSON data is a string then.
    pub(crate) is_delta: bool,
}

impl Form {
    /// A push as it is written to such a connection.
    pub(crate) fn push(self, push: Push<'_>) -> Frame {
        Frame::new(match self.is_unidirectional {
            true => push.encode_bare(self.encoding),
            false => push.encode(self.encoding),
        })
    }
}

/// An event made ready to be written into frames: its data is checked once.
pub(crate) struct Prepared<'e> {
    event: &'e Event,
    /// As it is without deltas.
    data: Opaque<'e>,
    info: Option<JsonData<'e>>,
    offset: u64,
    form: Form,
}

impl<'e> Prepared<'e> {
    /// An event of `channel`; `offset` is 0 where subscribers are not to see one.
    pub(crate) fn new(channel: &Channel, event: &'e Event, offset: u64, form: Form) -> Self {
        // A service may write any text there; subscribers get it only if it is JSON.
        let info =
            event.extension(CONNECTION_INFO).and_then(|info| JsonData::from_json(info.as_bytes()).ok());
        let data = shown_bytes(channel, event, form.view);
        let data = match form.encoding {
            Encoding::Protobuf => Opaque::Bytes(data),
            Encoding::Json => as_json(data).into(),
        };
        Self { event, data, info, offset, form }
    }

    /// An event of a page of a stream.
    pub(crate) fn kept(channel: &Channel, received: &'e Received, form: Form) -> Self {
        Self::new(channel, &received.event, received.position.map_or(0, |position| position.offset), form)
    }

    /// The event as it stands in replies and pushes.
    pub(crate) fn publication(&self) -> Publication<'_> {
        let data = match &self.data {
            Opaque::Json(json) if self.form.is_delta => Opaque::text(json.get()),
            data => data.borrowed(),
        };
        self.publication_of(data)
    }

    fn publication_of<'p>(&'p self, data: Opaque<'p>) -> Publication<'p> {
        Publication {
            data,
            info: self.client_info(),
            offset: self.offset,
            tags: tags_of(self.event),
            ..Publication::default()
        }
    }

    /// The event as a push that holds only what has changed since `base`, where that is shorter.
    pub(crate) fn delta(&self, channel: &str, base: &[u8]) -> Option<Frame> {
        if base.len().max(self.data.as_bytes().len()) > DELTA_DATA_BYTES_MAX {
            return None;
        }
        let data = match &self.data {
            Opaque::Json(json) => {
                Opaque::text(&delta::create_text(std::str::from_utf8(base).ok()?, json.get())?)
            }
            Opaque::Bytes(bytes) => Opaque::Bytes(delta::create(base, bytes)?.into()),
        };
        let publication = Publication { delta: true, ..self.publication_of(data) };
        Some(self.form.push(Push::publication(channel, publication)))
    }

    /// What the delta of the next event starts from.
    pub(crate) fn base(&self) -> Box<[u8]> {
        self.data.as_bytes().into()
    }

    /// The event as a push of its own.
    pub(crate) fn push(&self, channel: &str) -> Frame {
        self.form.push(Push::publication(channel, self.publication()))
    }

    fn client_info(&self) -> Option<ClientInfo<'_>> {
        let client = self.event.extension(CONNECTION)?;
        Some(ClientInfo {
            user: self.event.extension(USER).unwrap_or_default().into(),
            client: client.into(),
            conn_info: self.info.as_ref().map(|info| info.as_raw().into()),
            chan_info: None,
        })
    }
}

/// The labels that an event was published with.
pub(crate) fn tags_of(event: &Event) -> Tags<'_> {
    event.extension(TAGS).and_then(|tags| serde_json::from_str(tags).ok()).unwrap_or_default()
}

/// Whether a filter lets an event with these labels through.
pub(crate) fn is_admitted(filter: &Filter, tags: &Tags<'_>) -> bool {
    filter.admits(|name| tags.get(name).map(AsRef::as_ref))
}

/// The data of an event as `view` has it, as JSON.
pub(crate) fn shown<'e>(channel: &Channel, event: &'e Event, view: View) -> JsonData<'e> {
    as_json(shown_bytes(channel, event, view))
}

fn as_json(data: Cow<'_, [u8]>) -> JsonData<'_> {
    match data {
        Cow::Borrowed(data) => JsonData::from_any(data),
        Cow::Owned(data) => JsonData::from_any(&data).into_owned(),
    }
}

fn shown_bytes<'e>(channel: &Channel, event: &'e Event, view: View) -> Cow<'e, [u8]> {
    let other = match view {
        View::Whole => channel.opened(event).map(|data| data.to_vec()),
        View::Redacted => channel.redacted(event).map(|data| data.to_string().into_bytes()),
    };
    other.map_or(Cow::Borrowed(event.data()), Cow::Owned)
}
