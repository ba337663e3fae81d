//! Small programs for labs: an echo service and a bounded flood that run inside hosts, and a lab that only stands there.

use std::{
    env,
    io::{self, Write},
    net::SocketAddrV4,
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result, bail};
use fleetknock_lab::{Lab, flood, serve};

const USAGE: &str = "usage: fleetknock-lab serve [--tcp PORT]… [--udp PORT]… [--name NAME]
       fleetknock-lab flood --to ADDRESS --port PORT --rate PACKETS_PER_SECOND --seconds SECONDS
       fleetknock-lab hold     makes a lab of one host and keeps it until it is told to stop";

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((command, flags)) = arguments.split_first() else { bail!("{USAGE}") };
    match command.as_str() {
        "serve" => {
            let name = values(flags, "--name")?.pop().unwrap_or_else(|| "lab".to_owned());
            let ports = |flag| {
                values(flags, flag)?.iter().map(|port| Ok(port.parse()?)).collect::<Result<Vec<u16>>>()
            };
            serve::serve(&ports("--tcp")?, &ports("--udp")?, &name, &mut io::stdout())
        }
        "flood" => {
            let one =
                |flag| values(flags, flag)?.pop().with_context(|| format!("{flag} is missing\n{USAGE}"));
            let to = SocketAddrV4::new(one("--to")?.parse()?, one("--port")?.parse()?);
            let flooded = flood::flood(to, one("--rate")?.parse()?, one("--seconds")?.parse()?)?;
            writeln!(
                io::stdout(),
                "sent {} refused {} in {:?}",
                flooded.sent,
                flooded.refused,
                flooded.took
            )?;
            Ok(())
        }
        "hold" => hold(),
        _ => bail!("{USAGE}"),
    }
}

/// A lab with one host and a program in it, named on standard output.
fn hold() -> Result<()> {
    let lab = Lab::new("hold")?;
    let host = lab.host("one")?;
    let sleeper = host.spawn("sleeper", &["sleep", "600"])?;
    let mut out = io::stdout();
    writeln!(out, "{} {}", lab.prefix(), sleeper.pid())?;
    out.flush()?;
    loop {
        thread::park();
    }
}

/// All values of a flag, in order.
fn values(flags: &[String], wanted: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pair in flags.chunks(2) {
        let [flag, value] = pair else { bail!("{} has no value\n{USAGE}", pair[0]) };
        if !["--tcp", "--udp", "--name", "--to", "--port", "--rate", "--seconds"].contains(&flag.as_str()) {
            bail!("unknown flag {flag}\n{USAGE}");
        }
        if flag == wanted {
            found.push(value.clone());
        }
    }
    Ok(found)
}
