//! `make bench`: knock-to-open against peers in one run, the push to a large fleet, and what the matcher costs.
//! It prints what was measured; one number is asserted: what the controller notes of the knocks that it judges may cost a
//! twentieth of judging them.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};

mod contender;
mod fanout;
mod knock_to_open;
mod matcher;
mod noting;
mod report;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let wanted: Vec<_> = env::args().skip(1).collect();
    let all = wanted.is_empty();
    let (mut knock, mut fan_out, mut match_, mut note) = (all, all, all, all);
    for word in &wanted {
        match word.as_str() {
            "fanout" => fan_out = true,
            "knock" => knock = true,
            "matcher" => match_ = true,
            "noting" => note = true,
            _ => {
                bail!("unknown benchmark {word}; usage: fleetknock-bench [knock] [fanout] [matcher] [noting]")
            }
        }
    }
    let mut out = io::stdout();
    if knock {
        knock_to_open::run(&mut out)?;
    }
    if fan_out {
        fanout::run(&mut out)?;
    }
    if match_ {
        matcher::run(&mut out)?;
    }
    if note {
        noting::run(&mut out)?;
    }
    Ok(())
}
