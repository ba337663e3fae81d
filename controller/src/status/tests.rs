//! How an opening stands on a host, through its life.

use std::time::Duration;

use super::*;
use crate::record::{By, Withdrawn};

#[test]
fn an_opening_is_pending_until_the_host_says_so() {
    let (mut statuses, opening) = (Statuses::default(), opening());
    assert_eq!(state(&statuses, &opening, 1), State::Pending);
    assert!(statuses.add(&opening, &host(), report(1, State::Applied)));
    assert!(!statuses.add(&opening, &host(), report(1, State::Applied)), "said again is no news");
    assert_eq!(state(&statuses, &opening, 1), State::Applied);
    assert_eq!(state(&statuses, &opening, 30), State::Expired);
}

#[test]
fn a_refresh_is_pending_again_and_an_old_report_does_not_count_for_it() {
    let (mut statuses, mut opening) = (Statuses::default(), opening());
    statuses.add(&opening, &host(), report(1, State::Applied));
    opening.generation = 2;
    assert_eq!(state(&statuses, &opening, 1), State::Pending);
    assert!(statuses.add(&opening, &host(), report(2, State::Applied)));
    assert!(!statuses.add(&opening, &host(), report(1, State::Failed { reason: "late".into() })));
    assert_eq!(state(&statuses, &opening, 1), State::Applied);
}

#[test]
fn a_failure_stays_visible_and_a_withdrawal_outweighs_it() {
    let (mut statuses, mut opening) = (Statuses::default(), opening());
    let failed = State::Failed { reason: "no such table".into() };
    statuses.add(&opening, &host(), report(1, failed.clone()));
    assert_eq!(state(&statuses, &opening, 60), failed);
    opening.withdrawn =
        Some(Withdrawn { at: Timestamp::ZERO, reason: String::new(), kill_connections: false });
    assert_eq!(state(&statuses, &opening, 60), State::Withdrawn);
}

#[test]
fn a_host_speaks_only_for_openings_on_it() {
    let (mut statuses, opening) = (Statuses::default(), opening());
    assert!(!statuses.add(&opening, &"other".parse().unwrap(), report(1, State::Applied)));
    assert!(!statuses.add(&opening, &host(), report(2, State::Applied)), "a refresh that never was");
    assert_eq!(state(&statuses, &opening, 1), State::Pending);
}

#[test]
fn of_what_several_controllers_were_told_the_last_word_on_the_latest_refresh_counts() {
    let opening = OpeningRecord { generation: 2, ..opening() };
    let at = |second, report| Report { at: Timestamp::ZERO + Duration::from_secs(second), ..report };
    let failed = State::Failed { reason: "no such table".into() };
    let said = [
        at(3, report(2, State::Applied)),
        at(9, report(1, State::Applied)),
        at(5, report(2, failed.clone())),
    ];
    for order in [[0_usize, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut reports = Reports::default();
        for position in order {
            reports.merge(host(), said[position].clone());
        }
        assert_eq!(reports.of(&opening, Timestamp::ZERO)[0].state, failed, "{order:?}");
    }
}

fn state(statuses: &Statuses, opening: &OpeningRecord, second: u64) -> State {
    let reports = statuses.reports(&opening.id).cloned().unwrap_or_default();
    let rows = reports.of(opening, Timestamp::ZERO + Duration::from_secs(second));
    assert_eq!(rows.len(), 1);
    rows[0].state.clone()
}

fn report(generation: u64, state: State) -> Report {
    Report { generation, state, at: Timestamp::ZERO, took_us: 20 }
}

fn host() -> HostName {
    "bastion-1".parse().unwrap()
}

fn opening() -> OpeningRecord {
    OpeningRecord {
        id: "op-1".to_owned(),
        door: "bastion-ssh".parse().unwrap(),
        source: "203.0.113.5".parse().unwrap(),
        ports: ["tcp/22".parse().unwrap()].into(),
        hosts: [host()].into(),
        opened: Timestamp::ZERO,
        refreshed: Timestamp::ZERO,
        expires: Timestamp::from_millis(30_000),
        generation: 1,
        by: By::Knock,
        reason: String::new(),
        knocked: None,
        answered: Vec::new(),
        withdrawn: None,
        trace: None,
    }
}
