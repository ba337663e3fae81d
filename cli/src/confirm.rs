//! `fleetknock confirm`: keeps changes of doors that would be rolled back otherwise.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{ArgGroup, Args};
use fleetknock_proto::{limits, v1};
use fleetknock_runtime::exit;

use crate::{
    controllers::{Controllers, REFUSED},
    files,
    get::pages,
    output::Out,
};

/// Keep changes that were applied with --confirm-within
///
/// A change that nobody confirms in time is rolled back: a new door is deleted, a changed one becomes what it was.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true).args(["names", "files", "all"]))]
#[command(after_help = "Examples:
  fleetknock apply -f bastion.yaml --confirm-within 60s
  fleetknock confirm bastion-ssh          # from a new session, to see that it still comes in
  fleetknock confirm -f doors/
  fleetknock confirm --all")]
pub(crate) struct Confirm {
    /// Names of doors
    names: Vec<String>,
    /// The doors that a file, the files of a directory, or standard input (-) declare
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Every door with a change that waits to be confirmed
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(command: &Confirm, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let names = if command.all {
        waiting(controllers).await?
    } else if command.files.is_empty() {
        command.names.clone()
    } else {
        let doors = files::read(&command.files)?;
        for problem in &doors.problems {
            out.problem(problem)?;
        }
        if !doors.problems.is_empty() {
            return Err(exit::coded(exit::DATA, anyhow!("nothing was confirmed")));
        }
        doors.found.iter().map(|found| found.door.name().to_string()).collect()
    };
    if names.is_empty() {
        let error = anyhow!(
            "nothing waits to be confirmed: every change was confirmed already or rolled back; see 'fleetknock get doors'"
        );
        return Err(exit::coded(REFUSED, error));
    }
    let mut last = None;
    for name in names {
        let request = v1::ConfirmDoorRequest { name: name.clone() };
        match controllers.write(async |mut client| client.confirm_door(request.clone()).await).await {
            Ok(_) => out.line(format!("door/{name} confirmed"))?,
            // The others are confirmed all the same; the last error is the command's.
            Err(error) => {
                if let Some(earlier) = last.replace(error.context(format!("door '{name}'"))) {
                    out.problem(format!("{earlier:#}"))?;
                }
            }
        }
    }
    last.map_or(Ok(()), Err)
}

async fn waiting(controllers: &Controllers) -> anyhow::Result<Vec<String>> {
    let doors = pages(async |page_token| {
        let request = v1::ListDoorsRequest { page_size: limits::PAGE_MAX as u32, page_token, reveal: false };
        let page = controllers.read(async |mut client| client.list_doors(request.clone()).await).await?;
        Ok((page.doors, page.next_page_token))
    });
    let waiting = doors.await?.into_iter().filter(|door| door.confirm_until_ms != 0);
    Ok(waiting.map(|door| door.name).collect())
}
