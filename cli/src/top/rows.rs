//! What stands in the lists: texts in columns, what needs a look first.

use std::{cmp::Reverse, time::Duration};

use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1;

use super::model::{Pane, Wall};
use crate::{
    kind::event_kind,
    output::{ago, clean, remaining},
    resource::{offset, port, some},
};

/// A clock further off the fleet's time is drifting; `OverviewResponse.hosts_drifting` counts the same.
const DRIFTING_US: u64 = 500_000;
/// So is one that is not known better than this.
const UNCERTAIN_US: u64 = 100_000;
/// An opening or attempt that ends within this time is about to.
const SOON: Duration = Duration::from_secs(5);

/// Whether it needs a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Bad,
    Odd,
    Fine,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// What it is, among its list's.
    pub(super) key: String,
    pub(super) cells: Vec<String>,
    pub(super) alarm: Alarm,
    /// Whose it is.
    pub(super) source: Option<String>,
}

impl Row {
    fn new(key: impl Into<String>, cells: impl IntoIterator<Item = String>, alarm: Alarm) -> Self {
        let cells = cells.into_iter().map(|cell| clean(&cell)).collect();
        Self { key: key.into(), cells, alarm, source: None }
    }

    fn of(mut self, source: &str) -> Self {
        self.source = Some(source.to_owned()).filter(|source| !source.is_empty());
        self
    }
}

/// All rows of a list by the fleet's time; what needs a look, or ends first, stands above.
pub(super) fn of(wall: &Wall, pane: Pane, now: Timestamp) -> Vec<Row> {
    let Some(seen) = wall.seen() else {
        return if pane == Pane::Events { wall.events().map(event).collect() } else { Vec::new() };
    };
    match pane {
        Pane::Hosts => {
            let mut rows: Vec<_> = seen.hosts.iter().map(|found| host(found, now)).collect();
            rows.sort_by(|a, b| (a.alarm, &a.key).cmp(&(b.alarm, &b.key)));
            rows
        }
        Pane::Attempts => {
            let mut all: Vec<_> = seen.attempts.iter().collect();
            all.sort_by_key(|found| (Reverse(found.steps_done), found.deadline_ms));
            all.into_iter().map(|found| attempt(found, now)).collect()
        }
        Pane::Openings => {
            let mut all: Vec<_> = seen.openings.iter().collect();
            all.sort_by_key(|found| found.expires_ms);
            all.into_iter().map(|found| opening(found, now)).collect()
        }
        Pane::Bans => {
            let mut all: Vec<_> = seen.bans.iter().collect();
            all.sort_by_key(|found| found.expires_ms);
            all.into_iter().map(|found| ban(found, now)).collect()
        }
        Pane::Events => wall.events().map(event).collect(),
    }
}

fn host(host: &v1::Host, now: Timestamp) -> Row {
    let off = host.clock_offset_us.unsigned_abs() > DRIFTING_US || host.clock_uncertainty_us > UNCERTAIN_US;
    let (state, alarm) = match (host.connected, off) {
        (false, _) => ("cut off", Alarm::Bad),
        (true, true) => ("drifting", Alarm::Odd),
        (true, false) => ("up", Alarm::Fine),
    };
    let more = if !host.connected {
        match host.last_seen_ms {
            0 => "never seen".to_owned(),
            seen => format!("seen {} ago", ago(seen, now)),
        }
    } else if off {
        format!("clock {}", offset(host.clock_offset_us, host.clock_uncertainty_us).unwrap_or_default())
    } else {
        host.warnings.first().cloned().unwrap_or_default()
    };
    let alarm = if alarm == Alarm::Fine && !host.warnings.is_empty() { Alarm::Odd } else { alarm };
    Row::new(&host.name, [host.name.clone(), state.to_owned(), more], alarm)
}

fn attempt(attempt: &v1::Attempt, now: Timestamp) -> Row {
    let end = Timestamp::from_millis(attempt.deadline_ms);
    let cells = [
        attempt.source.clone(),
        progress(attempt.steps_done, attempt.steps_total),
        remaining(end, now),
        attempt.door.clone(),
        attempt.last_host.clone(),
    ];
    Row::new(format!("{} {}", attempt.source, attempt.door), cells, ending(end, now)).of(&attempt.source)
}

/// Such as `■■□ 2/3`; numbers alone where a picture would be too long.
fn progress(done: u32, total: u32) -> String {
    if total > 8 {
        return format!("{done}/{total}");
    }
    let left = total.saturating_sub(done) as usize;
    format!("{}{} {done}/{total}", "■".repeat(done.min(total) as usize), "□".repeat(left))
}

fn opening(opening: &v1::Opening, now: Timestamp) -> Row {
    let applied = |on: &&v1::OpeningOnHost| on.state() == v1::HostOpeningState::Applied;
    let failed: Vec<_> =
        opening.hosts.iter().filter(|on| on.state() == v1::HostOpeningState::Failed).collect();
    let end = Timestamp::from_millis(opening.expires_ms);
    let hosts = format!("{}/{} hosts", opening.hosts.iter().filter(applied).count(), opening.hosts.len());
    let cells = [
        opening.source.clone(),
        remaining(end, now),
        failed.first().map_or(hosts, |on| format!("failed on {}", on.host)),
        opening.door.clone(),
    ];
    let alarm = if failed.is_empty() { ending(end, now) } else { Alarm::Bad };
    Row::new(&opening.id, cells, alarm).of(&opening.source)
}

fn ban(ban: &v1::Ban, now: Timestamp) -> Row {
    let left = remaining(Timestamp::from_millis(ban.expires_ms), now);
    Row::new(&ban.source, [ban.source.clone(), left, ban.reason.clone()], Alarm::Fine).of(&ban.source)
}

fn event(event: &v1::Event) -> Row {
    use v1::EventKind::{
        AuthenticationFailed, CallDenied, HostDisconnected, Impostor, Lagged, LeaseLost, OpeningFailed,
        PeerLost, SourceBanned, Warning,
    };
    let alarm = match event.kind() {
        OpeningFailed | LeaseLost | PeerLost | HostDisconnected | Impostor => Alarm::Bad,
        Warning | Lagged | SourceBanned | CallDenied | AuthenticationFailed => Alarm::Odd,
        _ => Alarm::Fine,
    };
    let named = [&event.door, &event.source, &event.host];
    let named: Vec<_> = named.into_iter().filter(|name| !name.is_empty()).map(String::as_str).collect();
    let cells =
        [clock_time(event.time_ms), event_kind(event.kind()), some(&named.join(" ")), event.message.clone()];
    Row::new(format!("{} {}", event.time_ms, cells[1..].join(" ")), cells, alarm).of(&event.source)
}

fn ending(end: Timestamp, now: Timestamp) -> Alarm {
    if end.since(now) <= SOON { Alarm::Odd } else { Alarm::Fine }
}

/// The time of day in UTC, such as `15:30:11`.
pub(super) fn clock_time(ms: u64) -> String {
    // RFC 3339: the time stands behind the T.
    let text = Timestamp::from_millis(ms).to_string();
    text.split('T').nth(1).and_then(|time| time.get(..8)).unwrap_or_default().to_owned()
}

/// An explanation as lines.
pub(super) fn explained(answer: &v1::ExplainResponse) -> Vec<String> {
    let mut lines = Vec::new();
    for door in &answer.doors {
        lines.push(format!("{}: {}", door.door, door.message));
        if !door.remedy.is_empty() {
            lines.push(format!("  {}", door.remedy));
        }
    }
    if answer.doors.is_empty() {
        lines.push("No door is concerned.".to_owned());
    }
    lines.push(String::new());
    lines.push(if answer.knocks.is_empty() {
        "No knocks are remembered.".to_owned()
    } else {
        "Knocks:".to_owned()
    });
    for knock in &answer.knocks {
        let port = knock.port.as_ref().map_or_else(|| "a step".to_owned(), port);
        let time = clock_time(knock.time_us / 1_000);
        lines.push(format!("  {time}  {}  {port}  {}", knock.host, knock.message));
    }
    // Controllers that did not answer are among them.
    if !answer.caveats.is_empty() {
        lines.push(String::new());
        lines.extend_from_slice(&answer.caveats);
    }
    lines.iter().map(|line| clean(line)).collect()
}

#[cfg(test)]
mod tests;
