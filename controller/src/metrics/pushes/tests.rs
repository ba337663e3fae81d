//! Answers are measured once each, and are not waited for without end.

use std::time::{Duration, Instant};

use fleetknock_core::time::Timestamp;

use super::{Answer, Pushes, WAITING_MAX};
use crate::record::{By, OpeningRecord};

const KNOCKED: Timestamp = Timestamp::from_millis(1_000);

#[test]
fn each_answer_is_measured_once_and_the_last_one_completes() {
    let (mut pushes, at) = (Pushes::default(), Instant::now());
    pushes.note(&opening("a", 1), [7, 8], at);
    let later = |ms| at + Duration::from_millis(ms);
    let answer = |ms, complete| Answer { took: Duration::from_millis(ms), knocked: Some(KNOCKED), complete };
    assert_eq!(pushes.answered("a", 1, 9, true, later(1)), None, "it was not asked");
    assert_eq!(pushes.answered("a", 2, 7, true, later(1)), None, "that generation was not pushed");
    assert_eq!(pushes.answered("a", 1, 7, true, later(2)), Some(answer(2, false)));
    assert_eq!(pushes.answered("a", 1, 7, true, later(3)), None, "it answered already");
    assert_eq!(pushes.answered("a", 1, 8, true, later(5)), Some(answer(5, true)));
    assert_eq!(pushes.waiting, 0);
}

#[test]
fn an_opening_that_one_host_failed_to_take_is_never_complete() {
    let (mut pushes, at) = (Pushes::default(), Instant::now());
    pushes.note(&opening("a", 1), [7, 8], at);
    assert_eq!(pushes.answered("a", 1, 7, false, at), None);
    assert!(pushes.answered("a", 1, 8, true, at).is_some_and(|answer| !answer.complete));
}

#[test]
fn what_an_operator_opened_has_no_knock_to_measure_from() {
    let (mut pushes, at) = (Pushes::default(), Instant::now());
    let by = By::Operator;
    pushes.note(&OpeningRecord { by, ..opening("a", 1) }, [7], at);
    assert!(pushes.answered("a", 1, 7, true, at).is_some_and(|answer| answer.knocked.is_none()));
}

#[test]
fn a_refresh_takes_the_place_of_what_waited() {
    let (mut pushes, at) = (Pushes::default(), Instant::now());
    pushes.note(&opening("a", 1), [7, 8], at);
    pushes.note(&opening("a", 2), [7], at);
    assert_eq!(pushes.waiting, 1);
    assert!(pushes.answered("a", 2, 7, true, at).is_some_and(|answer| answer.complete));
}

#[test]
fn no_more_than_so_many_answers_are_waited_for() {
    let (mut pushes, at) = (Pushes::default(), Instant::now());
    pushes.note(&opening("a", 1), 0..WAITING_MAX as u64, at);
    pushes.note(&opening("b", 1), [7], at);
    assert_eq!(pushes.waiting, WAITING_MAX);
    assert_eq!(pushes.answered("b", 1, 7, true, at), None);
    pushes.forget("a");
    pushes.note(&opening("b", 1), [7], at);
    assert_eq!((pushes.waiting, pushes.openings.len()), (1, 1));
}

fn opening(id: &str, generation: u64) -> OpeningRecord {
    OpeningRecord {
        id: id.to_owned(),
        door: "bastion-ssh".parse().unwrap(),
        source: "203.0.113.5".parse().unwrap(),
        ports: ["tcp/22".parse().unwrap()].into(),
        hosts: ["bastion-1".parse().unwrap()].into(),
        opened: Timestamp::ZERO,
        refreshed: Timestamp::ZERO,
        expires: Timestamp::from_millis(30_000),
        generation,
        by: By::Knock,
        reason: String::new(),
        knocked: Some(KNOCKED),
        answered: Vec::new(),
        withdrawn: None,
        trace: None,
    }
}
