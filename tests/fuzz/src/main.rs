//! Runs targets for as long as wanted, runs one input again, or writes the corpus anew.

use std::{
    env, fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use fleetknock_fuzz::{
    Target, corpus,
    engine::{self, EXECUTIONS, SEED, Settings, Work},
    targets,
};

/// Throws bytes at everything that reads what comes from outside.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Mutants of each target.
    #[arg(long, default_value_t = EXECUTIONS)]
    executions: u64,
    /// What the mutants follow from; another one gives others.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Only these targets; may be repeated.
    #[arg(long)]
    target: Vec<String>,
    /// Threads that share the work.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes the corpus of every target anew.
    Corpus,
    /// Runs one input, such as a crash that was kept, and lets it panic.
    Replay {
        /// Which target.
        target: String,
        /// A file with the input.
        file: PathBuf,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Corpus) => write_corpus(),
        Some(Command::Replay { target, file }) => replay(target, file),
        None => run(&arguments),
    }
}

fn write_corpus() -> anyhow::Result<ExitCode> {
    let mut out = stdout().lock();
    for target in targets::ALL {
        writeln!(out, "{}: {} files", target.name, corpus::write(target)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(target: &str, file: &Path) -> anyhow::Result<ExitCode> {
    let target = named(target)?;
    let input = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let start = std::time::Instant::now();
    (target.run)(&input);
    writeln!(
        stdout(),
        "{}: {} bytes, every promise was kept, {:.1?}",
        target.name,
        input.len(),
        start.elapsed()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let chosen: Vec<&Target> = match arguments.target.as_slice() {
        [] => targets::ALL.iter().collect(),
        names => names.iter().map(|name| named(name)).collect::<Result<_, _>>()?,
    };
    let mut works = vec![];
    for target in chosen {
        let files = corpus::committed(target)?;
        works.push(Work { target: *target, corpus: files.into_iter().map(|(_, bytes)| bytes).collect() });
    }
    let settings = Settings {
        executions: arguments.executions,
        seed: arguments.seed,
        threads: usize::from(arguments.threads),
    };
    let outcome = engine::run(works, settings);
    let mut out = stdout().lock();
    for (name, count, took) in &outcome.done {
        writeln!(out, "{name}: {count} executions in {took:.1?}")?;
    }
    for crash in &outcome.crashes {
        let (_, command) = crash.keep(&kept())?;
        writeln!(out, "{crash}\n  replay: {command}")?;
    }
    Ok(if outcome.crashes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn named(name: &str) -> anyhow::Result<&'static Target> {
    let known: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
    targets::named(name)
        .with_context(|| format!("no target is named '{name}'; there are {}", known.join(", ")))
}

/// Where crashes are kept: within the target directory.
fn kept() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| PathBuf::from("target")).join("fuzz-crashes")
}
