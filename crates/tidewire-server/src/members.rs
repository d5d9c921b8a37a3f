//! The members of a channel on their way to the wire.

use std::borrow::Cow;

use tidewire::{Presence, Present};
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::{ClientInfo, PresenceResult, PresenceStatsResult};

use crate::config::ChannelRule;
use crate::failure::Failure;
use crate::tenants::Tenant;

/// Members that are read at once.
const PAGE_MEMBERS: usize = 1_000;

/// The members of a channel, where its rule lets them be asked for.
///
/// # Errors
/// 108 where it does not.
pub(crate) fn of(tenant: &Tenant, rule: &ChannelRule, channel: &str) -> Result<Presence, Failure> {
    if !rule.presence {
        return Err(Failure::new(ErrorCode::NOT_AVAILABLE, "not available: channel has no presence"));
    }
    Ok(tenant.handle.presence(channel)?)
}

/// How many they are.
///
/// # Errors
/// Those of the engine.
pub(crate) async fn stats(presence: &Presence) -> Result<PresenceStatsResult, Failure> {
    let stats = presence.stats().await?;
    let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(PresenceStatsResult { num_clients: narrow(stats.members), num_users: narrow(stats.users) })
}

/// All of them, page by page.
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

/// Members as the wire has them: each under its connection's id.
pub(crate) fn as_result(members: &[Present]) -> PresenceResult<'_> {
    PresenceResult { presence: members.iter().filter_map(as_entry).collect() }
}

/// `None` for one that something else than a gateway put there.
fn as_entry(member: &Present) -> Option<(Cow<'_, str>, ClientInfo<'_>)> {
    let info = serde_json::from_slice(&member.info).ok()?;
    Some((Cow::Borrowed(&*member.id), info))
}
