//! `fleetknock close`: the end of openings before their time.

use anyhow::anyhow;
use clap::{ArgGroup, Args};
use fleetknock_core::source::Source;
use fleetknock_proto::v1;
use fleetknock_runtime::exit;

use crate::{
    controllers::{Controllers, REFUSED},
    output::Out,
};

/// Withdraw openings
///
/// Withdraws one opening by its id, or all of a door, of a source, or of a source at a door.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["id", "door", "source"]))]
#[command(after_help = "Examples:
  fleetknock close 01k2v7
  fleetknock close --source 203.0.113.5 --kill-connections
  fleetknock close --door bastion-ssh --reason 'maintenance'")]
pub(crate) struct Close {
    /// The opening's id
    #[arg(conflicts_with_all = ["door", "source"])]
    id: Option<String>,
    /// All openings of this door
    #[arg(long, value_name = "NAME")]
    door: Option<String>,
    /// All openings of this source
    #[arg(long, value_name = "ADDRESS")]
    source: Option<Source>,
    /// Cut the connections that came in through it too
    #[arg(long)]
    kill_connections: bool,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) async fn run(command: &Close, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let request = v1::CloseRequest {
        id: command.id.clone().unwrap_or_default(),
        door: command.door.clone().unwrap_or_default(),
        source: command.source.map(|source| source.to_string()).unwrap_or_default(),
        kill_connections: command.kill_connections,
        reason: command.reason.clone(),
    };
    let answer = controllers.write(async |mut client| client.close(request.clone()).await).await?;
    if answer.closed.is_empty() {
        let error = anyhow!("nothing was open; see 'fleetknock get openings'");
        return Err(exit::coded(REFUSED, error));
    }
    for opening in &answer.closed {
        out.line(format!("opening/{} withdrawn: {} at {}", opening.id, opening.source, opening.door))?;
    }
    Ok(())
}
