//! What the controller's notes of the knocks that it judges cost: two matchers take the same knocks in turns, batch by
//! batch, one of them with the notes.
//!
//! Turns within one run, timed by the thread's own processor time: what else the machine does falls on both alike.

use std::{io::Write, time::Duration};

use anyhow::ensure;
use fleetknock_controller::{matching::Notes, metrics::Metrics};
use fleetknock_core::{
    knock::Observation,
    matcher::{Decision, Matcher, READ_AHEAD},
    time::Timestamp,
};
use nix::time::{ClockId, clock_gettime};

use crate::matcher::{BATCH, Bench, NOISE, SOURCES, STEPS, matcher};

/// What it may cost of the matcher's throughput.
const RATIO_MAX: f64 = 1.05;

/// Runs all mixes and writes a line for each.
///
/// # Errors
/// When the notes cost more than a twentieth, or the clock cannot be read.
pub(crate) fn run(out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "notes of judged knocks, one core, {SOURCES} sources in flight; at most {RATIO_MAX:.2}")?;
    writeln!(out, "{:<40} {:>9} {:>9} {:>9}", "", "bare ns", "noted ns", "ratio")?;
    let mixes: [(&str, &[(u32, &str)]); 3] = [
        ("spoofed first knocks", &[(0, STEPS[0]), (SOURCES, STEPS[0])]),
        ("noise", &[(0, NOISE[0]), (0, NOISE[1]), (SOURCES, NOISE[0])]),
        ("knocks of 3 steps", &[(0, STEPS[0]), (0, STEPS[1]), (0, STEPS[2])]),
    ];
    let mut dearest = (0.0_f64, "");
    for (name, stages) in mixes {
        let [bare, noted] = mix(stages)?;
        let each = |spent: Duration| spent.as_nanos() as f64 / (f64::from(SOURCES) * stages.len() as f64);
        let ratio = noted.as_secs_f64() / bare.as_secs_f64();
        writeln!(out, "{name:<40} {:>9.0} {:>9.0} {ratio:>9.3}", each(bare), each(noted))?;
        if ratio > dearest.0 {
            dearest = (ratio, name);
        }
    }
    let (ratio, name) = dearest;
    ensure!(
        ratio <= RATIO_MAX,
        "the notes cost {ratio:.3} of the matcher alone for {name}, more than {RATIO_MAX:.2}"
    );
    Ok(())
}

/// The processor time that these stages took without the notes, and with them.
fn mix(stages: &[(u32, &str)]) -> anyhow::Result<[Duration; 2]> {
    let mut bench = Bench::new(true)?;
    let mut other = matcher()?;
    let (mut notes, metrics) = (Notes::new(bench.now), Metrics::default());
    let (mut decisions, mut spent) = (Vec::with_capacity(BATCH), [Duration::ZERO; 2]);
    let mut completed = [0_usize; 2];
    for (from, port) in stages {
        bench.prepare(*from, port)?;
        let Bench { matcher: bare, batch: all, now, .. } = &mut bench;
        for (number, batch) in all.chunks(BATCH).enumerate() {
            // Whoever comes second finds the batch in the cache.
            for noted in [number % 2 == 0, number % 2 != 0] {
                decisions.clear();
                let begun = processor_time()?;
                if noted {
                    judge(&mut other, batch, *now, &mut decisions, &mut notes);
                    notes.publish(&metrics);
                } else {
                    judge_bare(bare, batch, *now, &mut decisions);
                }
                spent[usize::from(noted)] += processor_time()?.saturating_sub(begun);
                completed[usize::from(noted)] += decisions.len();
            }
        }
    }
    ensure!(completed[0] == completed[1], "the two decided differently: {completed:?}");
    ensure!(
        metrics.knocks_judged() == u64::from(SOURCES) * stages.len() as u64,
        "only {} knocks were noted",
        metrics.knocks_judged()
    );
    Ok(spent)
}

fn judge_bare(matcher: &mut Matcher, batch: &[Observation], now: Timestamp, decisions: &mut Vec<Decision>) {
    for group in batch.chunks(READ_AHEAD) {
        matcher.read_ahead(group);
        for observation in group {
            matcher.observe(observation, now, decisions);
        }
    }
}

/// As the controller's matching does.
fn judge(
    matcher: &mut Matcher,
    batch: &[Observation],
    now: Timestamp,
    decisions: &mut Vec<Decision>,
    notes: &mut Notes,
) {
    for group in batch.chunks(READ_AHEAD) {
        matcher.read_ahead(group);
        for observation in group {
            let known = decisions.len();
            let verdict = matcher.observe(observation, now, decisions);
            for decision in &decisions[known..] {
                if let Decision::Complete(complete) = decision {
                    notes.completed(observation, now, complete);
                }
            }
            notes.judged(observation, now, verdict);
        }
    }
}

/// For how long this thread has had a processor: clock_gettime(2), `CLOCK_THREAD_CPUTIME_ID`, which counts to the
/// nanosecond, where the scheduler's statistics count to the tick.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
