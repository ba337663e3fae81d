//! How much one message may hold. Senders keep to these; receivers refuse more.

use std::time::Duration;

/// An encoded message, in bytes.
pub const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// Observations in a batch.
pub const OBSERVATIONS_MAX: usize = 4_096;
/// Labels on a host or a door, or in a selector.
pub const LABELS_MAX: usize = fleetknock_core::host::LABELS_MAX;
/// Ranges of ports in use by a host's services.
pub const IN_USE_MAX: usize = 1_024;
/// Addresses of a host, and networks in a list of networks.
pub const ADDRESSES_MAX: usize = 256;
/// Names in a selector.
pub const NAMES_MAX: usize = 1_024;
/// Openings in a message; withdrawals, bans and results too.
pub const OPENINGS_MAX: usize = 4_096;
/// The most entries that one page of a list holds.
pub const PAGE_MAX: usize = 1_000;
/// Entries in a page when the request does not say.
pub const PAGE_DEFAULT: usize = 100;
/// Characters of a free text that a caller gives, such as the reason of a ban.
pub const TEXT_MAX: usize = 512;

/// The shortest time that a change of a door may wait to be confirmed: a person must be able to.
pub const CONFIRM_WITHIN_MIN: Duration = Duration::from_secs(5);
/// The longest such time.
pub const CONFIRM_WITHIN_MAX: Duration = Duration::from_secs(3600);

/// The size of a page that a request asks for.
pub fn page_size(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(PAGE_MAX) {
        0 => PAGE_DEFAULT,
        asked => asked.min(PAGE_MAX),
    }
}
/// The most bytes of a backup in one message.
pub const BACKUP_PART_MAX: usize = 64 * 1024;
/// The largest backup in bytes. The embedded store holds twice as much, of which openings and controllers are left out.
pub const BACKUP_MAX: usize = 256 * 1024 * 1024;
