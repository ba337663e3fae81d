//! `fleetknock check`: judges doors without a controller.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::{
    door::{Door, Knock, Mode, strength},
    port::{Port, Protocol},
};
use fleetknock_runtime::exit;

use crate::{files, output::Out};

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
    let session = std::env::var("SSH_CONNECTION").ok().as_deref().and_then(session_port);
    let mut problems = doors.problems;
    for found in &doors.found {
        let report = strength::check(&found.door, command.hosts);
        out.line(summary(&found.place, &found.door, report.bits))?;
        let warnings =
            report.warnings.iter().cloned().chain(session.and_then(|port| lockout(&found.door, port)));
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

/// The port at which the session came in that this command runs in: the last of the four words of SSH_CONNECTION
/// (ssh(1), section ENVIRONMENT).
fn session_port(connection: &str) -> Option<Port> {
    let words: Vec<_> = connection.split(' ').collect();
    let [_, _, _, port] = words.as_slice() else { return None };
    Port::new(Protocol::Tcp, port.parse().ok()?).ok()
}

/// A warning when the door would guard the port of the operator's own session.
fn lockout(door: &Door, session: Port) -> Option<String> {
    let guards = door.mode() == Mode::Enforce && door.opens().ports.contains(&session);
    guards.then(|| {
        format!(
            "this door guards {session}, by which your own session came in: on the hosts of this door only knocking lets \
             new sessions in; name a management network in the agents' settings first"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sessions_port_is_the_last_word() {
        assert_eq!(session_port("203.0.113.5 50123 192.0.2.1 22"), "tcp/22".parse().ok());
        assert_eq!(session_port("2001:db8::5 50123 2001:db8::1 2222"), "tcp/2222".parse().ok());
        for wrong in ["", "a b c", "a b c d", "a b c 0", "a b c 22 e"] {
            assert_eq!(session_port(wrong), None, "{wrong}");
        }
    }
}
