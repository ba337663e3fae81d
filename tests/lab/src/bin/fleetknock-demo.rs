//! The demo: `make demo`, or `make demo KEEP=1` to play with the lab afterwards.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};
use fleetknock_lab::demo::{self, Options};

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
    let mut options =
        Options { keep: false, colour: io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() };
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--keep" => options.keep = true,
            "--stop" => return demo::stop(),
            _ => bail!("unknown argument {argument}; usage: fleetknock-demo [--keep | --stop]"),
        }
    }
    demo::run(options, &mut io::stdout())
}
