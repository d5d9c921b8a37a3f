//! The members of a channel on their way to the wire.

use std::borrow::Cow;

use tidewire::{Presence, Present};
use tidewire_protocol::ClientInfo;
use tidewire_protocol::codes::ErrorCode;

use crate::failure::Failure;

/// Members that are read at once.
const PAGE_MEMBERS: usize = 1_000;

/// All members of a channel, page by page.
///
/// # Errors
/// Those of the engine, and 106 where there are more than `members_max`.
pub(crate) async fn all(presence: &Presence, members_max: usize) -> Result<Vec<Present>, Failure> {
    let (mut members, mut after) = (Vec::new(), None);
    loop {
        let page = presence.list(after, PAGE_MEMBERS).await?;
        members.extend(page.members);
        if members.len() > members_max {
            let message = format!("channel has over {members_max} members (limits.presence_members_max)");
            return Err(Failure::new(ErrorCode::LIMIT_EXCEEDED, message));
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(members),
        }
    }
}

/// A member under its connection's id. `None` for one that something else than a gateway put there.
pub(crate) fn as_entry(member: &Present) -> Option<(Cow<'_, str>, ClientInfo<'_>)> {
    let info = serde_json::from_slice(&member.info).ok()?;
    Some((Cow::Borrowed(&*member.id), info))
}
