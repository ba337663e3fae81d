//! Runs one seed, or many, and prints what happened.

use std::{
    io::{Write as _, stdout},
    process::ExitCode,
};

use clap::Parser;
use fleetknock_sim::{Options, Sabotage, run};

/// Simulates a whole fleet with a virtual clock and network.
#[derive(Debug, Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Prints every step of every seed.
    #[arg(long)]
    trace: bool,
    /// Lets controllers do something wrong.
    #[arg(long)]
    sabotage: Option<Sabotage>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = stdout().lock();
    let (mut failed, mut events, mut slowest) = (0, 0, 0);
    let (mut knocks, mut due, mut opened) = (0, 0, 0);
    let start = std::time::Instant::now();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.count) {
        let outcome = run(Options { seed, sabotage: arguments.sabotage, trace: arguments.trace })?;
        for line in &outcome.lines {
            writeln!(out, "{line}")?;
        }
        events += outcome.events;
        knocks += outcome.stats.knocks;
        due += outcome.stats.due;
        opened += outcome.stats.opened;
        slowest = slowest.max(outcome.stats.slowest_us);
        if let Some(failure) = outcome.failure {
            failed += 1;
            writeln!(out, "seed {seed}: {failure}")?;
        } else if arguments.count == 1 {
            writeln!(out, "seed {seed}: every promise was kept, trace {:016x}", outcome.hash)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(
        out,
        "{} seeds, {failed} failed; {events} events in {seconds:.1} s; {knocks} complete knocks, {due} had to open, \
         {opened} opened, the slowest after {:.3} s",
        arguments.count,
        slowest as f64 / 1e6
    )?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
