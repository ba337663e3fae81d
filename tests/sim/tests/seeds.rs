//! Every seed keeps every promise, a seed replays exactly, and what is done wrong on purpose is found.
//!
//! `FLEETKNOCK_SIM_SEEDS=COUNT` runs so many seeds, `FLEETKNOCK_SIM_SEED=N` only that one.

#![cfg(test)]

use std::{env, thread};

use fleetknock_sim::{Options, Outcome, Sabotage, run};

/// Seeds in a run of all tests: about ten seconds.
const SEEDS: u64 = 2_000;
/// Threads that share them.
const THREADS: u64 = 2;
/// Seeds among which a deliberate fault must be found. The rarest shows in about one of two thousand.
const SABOTAGED: u64 = 8_000;

fn simulate(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    run(Options { seed, sabotage, trace: false }).unwrap()
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn replay(seed: u64) -> String {
    format!(
        "FLEETKNOCK_SIM_SEED={seed} cargo test -p fleetknock-sim --test seeds every_seed; \
             cargo run -p fleetknock-sim -- --seed {seed} --trace"
    )
}

#[test]
fn every_seed_keeps_every_promise() {
    let seeds = match number("FLEETKNOCK_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLEETKNOCK_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (first, last) = (seeds.start, seeds.end);
    let workers = (0..THREADS).map(|worker| {
        thread::spawn(move || {
            let mut failed = Vec::new();
            let (mut due, mut opened) = (0, 0);
            for seed in (first + worker..last).step_by(THREADS as usize) {
                let outcome = simulate(seed, None);
                due += outcome.stats.due;
                opened += outcome.stats.opened;
                failed.extend(outcome.failure.map(|failure| (seed, failure)));
            }
            (failed, due, opened)
        })
    });
    let (mut failed, mut due, mut opened) = (Vec::new(), 0, 0);
    for worker in workers.collect::<Vec<_>>() {
        let of_worker = worker.join().unwrap();
        failed.extend(of_worker.0);
        due += of_worker.1;
        opened += of_worker.2;
    }
    failed.sort();
    let said =
        failed.iter().map(|(seed, failure)| format!("\nseed {seed}: {failure}\n  replay: {}", replay(*seed)));
    assert!(failed.is_empty(), "{} of {} seeds:{}", failed.len(), last - first, said.collect::<String>());
    // A simulation in which nothing had to happen would keep every promise.
    assert!(last - first < 100 || due > 3 * (last - first) as u32, "only {due} knocks had to open");
    println!("{} seeds, {due} knocks had to open, {opened} opened", last - first);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..100 {
        let (one, other) = (simulate(seed, None), simulate(seed, None));
        assert_eq!((one.hash, one.events, one.stats), (other.hash, other.events, other.stats), "seed {seed}");
    }
    let traced = run(Options { seed: 7, sabotage: None, trace: true }).unwrap();
    assert_eq!(traced.hash, simulate(7, None).hash);
    assert!(traced.lines.iter().any(|line| line.contains("Completed")), "{:#?}", traced.lines);
    assert_ne!(simulate(1, None).hash, simulate(2, None).hash);
}

/// That a fault is found among the seeds, as that promise broken.
#[track_caller]
fn found(sabotage: Sabotage, promise: &str) {
    let failures = (0..SABOTAGED).filter_map(|seed| simulate(seed, Some(sabotage)).failure);
    let found = failures.into_iter().find(|failure| failure.contains(promise));
    assert!(found.is_some(), "{SABOTAGED} seeds did not find {sabotage:?}");
}

#[test]
fn a_late_answer_is_found() {
    found(Sabotage::AnswerLate, "after its last packet");
}

#[test]
fn a_second_answer_is_found() {
    found(Sabotage::AnswerTwice, "answered twice");
}

#[test]
fn a_second_answer_when_clocks_jump_is_found() {
    found(Sabotage::ForgetPackets, "answered twice");
}

#[test]
fn a_knock_that_is_given_up_is_found() {
    found(Sabotage::GiveUp, "opened nothing");
}

#[test]
fn an_answer_without_a_knock_is_found() {
    found(Sabotage::AnswerHalf, "without");
}

#[test]
fn a_decision_without_a_lease_is_found() {
    found(Sabotage::Unfenced, "is no member");
}

#[test]
fn an_opening_that_lasts_too_long_is_found() {
    found(Sabotage::TellLonger, "lets");
}

#[test]
fn a_knock_that_is_lost_when_sources_move_is_found() {
    found(Sabotage::NeverResend, "opened nothing");
}

#[test]
fn an_agent_that_is_kept_without_a_lease_is_found() {
    found(Sabotage::KeepAgents, "opened nothing");
}

#[test]
fn guard_that_an_empty_store_takes_off_is_found() {
    found(Sabotage::TakeAnyPicture, "took guard off");
}

#[test]
fn a_change_that_is_not_told_is_found() {
    found(Sabotage::ForgetToPush, "host ");
}
