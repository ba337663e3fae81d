//! What the events of openings and bans say: in the audit trail, and in the stream for changes that came without one.

use fleetknock_proto::v1 as pb;

use super::{Stamp, entry};
use crate::{
    record::{AuditRecord, BanRecord, OpeningRecord},
    wire,
};

/// An opening that was granted, refreshed or withdrawn.
pub fn opening(opening: &OpeningRecord, stamp: Stamp<'_>) -> AuditRecord {
    let (kind, message) = said_of_opening(opening, opening.generation == 1);
    entry(kind, stamp, message).about_opening(opening)
}

/// A source that was banned, or whose ban was changed.
pub fn ban(ban: &BanRecord, stamp: Stamp<'_>) -> AuditRecord {
    entry(pb::EventKind::SourceBanned, stamp, said_of_ban(ban)).about_source(ban.source)
}

/// What happened to an opening, in one sentence. `is_new`: there was none that lasted before.
pub(crate) fn said_of_opening(opening: &OpeningRecord, is_new: bool) -> (pb::EventKind, String) {
    let OpeningRecord { hosts, expires, by, reason, .. } = opening;
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    match &opening.withdrawn {
        Some(how) => (pb::EventKind::OpeningWithdrawn, format!("withdrawn: {}", how.reason)),
        None if is_new => {
            let on = wire::counted(hosts.len(), "host", "hosts");
            let message = format!("opened on {on} until {expires} by {by}{why}");
            (pb::EventKind::OpeningGranted, message)
        }
        None => (pb::EventKind::OpeningRefreshed, format!("extended to {expires} by {by}{why}")),
    }
}

/// The same of a ban.
pub(crate) fn said_of_ban(ban: &BanRecord) -> String {
    format!("banned until {} by {}: {}", ban.expires, ban.by, ban.reason)
}
