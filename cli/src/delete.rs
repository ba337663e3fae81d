//! `fleetknock delete`: doors, hosts and bans by name, or the doors of files.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use fleetknock_proto::v1;
use fleetknock_runtime::exit;

use crate::{controllers::Controllers, files, kind::Kind, output::Out};

/// Delete doors, forget hosts, lift bans
///
/// A deleted door's openings are withdrawn. A host can be forgotten while it is not connected.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock delete door bastion-ssh
  fleetknock delete -f doors/
  fleetknock delete host old-edge-1 old-edge-2
  fleetknock delete ban 203.0.113.5")]
pub(crate) struct Delete {
    /// doors, hosts or bans; the singular works too
    #[arg(required_unless_present = "files")]
    kind: Option<Kind>,
    /// Names of doors or hosts, sources of bans
    #[arg(required_unless_present = "files")]
    names: Vec<String>,
    /// The doors that a file, the files of a directory, or standard input (-) declare
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", conflicts_with_all = ["kind", "names"])]
    files: Vec<PathBuf>,
    /// Cut the connections that came in through a deleted door too
    #[arg(long)]
    kill_connections: bool,
}

pub(crate) async fn run(command: &Delete, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let (kind, names) = match command.kind {
        Some(kind) => (kind, command.names.clone()),
        None => {
            let doors = files::read(&command.files)?;
            for problem in &doors.problems {
                out.problem(problem)?;
            }
            if !doors.problems.is_empty() {
                return Err(exit::coded(exit::DATA, anyhow!("nothing was deleted")));
            }
            (Kind::Door, doors.found.iter().map(|found| found.door.name().to_string()).collect())
        }
    };
    let mut last = None;
    for name in names {
        match one(kind, &name, command.kill_connections, controllers).await {
            Ok(line) => out.line(line)?,
            // The others are deleted all the same; the last error is the command's.
            Err(error) => {
                if let Some(earlier) = last.replace(error) {
                    out.problem(format!("{earlier:#}"))?;
                }
            }
        }
    }
    last.map_or(Ok(()), Err)
}

async fn one(
    kind: Kind,
    name: &str,
    kill_connections: bool,
    controllers: &Controllers,
) -> anyhow::Result<String> {
    Ok(match kind {
        Kind::Door => {
            let request = v1::DeleteDoorRequest { name: name.to_owned(), kill_connections };
            let answer =
                controllers.write(async |mut client| client.delete_door(request.clone()).await).await?;
            match answer.openings_withdrawn {
                0 => format!("door/{name} deleted"),
                1 => format!("door/{name} deleted, 1 opening withdrawn"),
                count => format!("door/{name} deleted, {count} openings withdrawn"),
            }
        }
        Kind::Host => {
            let request = v1::DeleteHostRequest { name: name.to_owned() };
            controllers.write(async |mut client| client.delete_host(request.clone()).await).await?;
            format!("host/{name} forgotten")
        }
        Kind::Ban => {
            let request = v1::UnbanSourceRequest { source: name.to_owned() };
            controllers.write(async |mut client| client.unban_source(request.clone()).await).await?;
            format!("ban/{name} lifted")
        }
        Kind::Opening => {
            let error = anyhow!("openings are not deleted; close them with 'fleetknock close {name}'");
            return Err(exit::coded(exit::USAGE, error));
        }
        Kind::Controller => {
            let error =
                anyhow!("controllers are not deleted; stop '{name}', and it leaves the fleet by itself");
            return Err(exit::coded(exit::USAGE, error));
        }
        Kind::Event => {
            let error = anyhow!("events are not deleted; the oldest give way to new ones");
            return Err(exit::coded(exit::USAGE, error));
        }
        Kind::Attempt => {
            let error = anyhow!("attempts are not deleted; 'fleetknock ban {name}' stops a source");
            return Err(exit::coded(exit::USAGE, error));
        }
    })
}
