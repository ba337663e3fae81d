//! `fleetknock check`: judges doors without a controller.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::door::{Door, Knock, Mode, strength};
use fleetknock_runtime::exit;

use crate::{files, output::Out, session::Session};

/// Judge doors without a controller: form, strength, and whether they could lock you out
///
/// Reads doors, computes how hard their knocks are to guess, and says what would be refused.
#[derive(Args, Debug)]
#[command(
    after_help = "The strength of a knock is the sum over its steps of log2(ports x hosts / hosts at which the \
step counts): 16 bits for a TCP or UDP step at any host, three more at one host of eight. Below 32 bits it is \
refused, as are ports that only rise or only fall, and repeated ports.

Examples:
  fleetknock check bastion.yaml
  fleetknock check doors/ --hosts 8"
)]
pub(crate) struct Check {
    /// Files of doors, directories of such files, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Accept knocks that are easy to guess
    #[arg(long)]
    weak: bool,
    /// How many hosts the fleet has; without it the hosts of steps add nothing
    #[arg(long, value_name = "NUMBER")]
    hosts: Option<usize>,
}

pub(crate) fn run(command: &Check, out: &mut Out) -> anyhow::Result<()> {
    let doors = files::read(&command.files)?;
    let session = Session::own();
    let mut problems = doors.problems;
    for found in &doors.found {
        let report = strength::check(&found.door, command.hosts);
        out.line(summary(&found.place, &found.door, report.bits))?;
        let warnings = report
            .warnings
            .iter()
            .cloned()
            .chain(session.as_ref().and_then(|session| session.lockout(&found.door, None)));
        for warning in warnings {
            out.warning(format!("{}: {warning}", found.place))?;
        }
        for weakness in report.problems {
            if command.weak {
                out.warning(format!("{}: {weakness}", found.place))?;
            } else {
                problems.push(format!("{}: {weakness}; or pass --weak", found.place));
            }
        }
    }
    for problem in &problems {
        out.problem(problem)?;
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(exit::coded(exit::DATA, anyhow!("1 problem was found"))),
        count => Err(exit::coded(exit::DATA, anyhow!("{count} problems were found"))),
    }
}

fn summary(place: &str, door: &Door, bits: f64) -> String {
    let Knock::Sequence(sequence) = door.knock();
    let ports: Vec<_> = door.opens().ports.iter().map(ToString::to_string).collect();
    format!(
        "{place}: door '{}': {bits:.1} bits in {} steps; opens {} on {}{}",
        door.name(),
        sequence.steps.len(),
        ports.join(", "),
        door.opens().hosts,
        if door.mode() == Mode::Observe { "; only observes" } else { "" }
    )
}
