//! `fleetknock open`: an opening without a knock.

use std::time::Duration;

use clap::Args;
use fleetknock_core::{source::Source, time::Timestamp};
use fleetknock_proto::{convert, v1};

use crate::{
    args::time,
    controllers::Controllers,
    output::{Format, Out, remaining},
    resource::ports,
};

/// Open a door for a source without a knock
///
/// Opens a door's ports on its hosts for one source. Opening again refreshes the one opening.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  fleetknock open bastion-ssh --source 203.0.113.5 --for 60s --reason 'ticket 4711'")]
pub(crate) struct Open {
    /// The door
    door: String,
    /// For whom
    #[arg(long, value_name = "ADDRESS")]
    source: Source,
    /// For how long, at most 24h [default: as long as the door says]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
    /// How to write the opening
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

pub(crate) async fn run(command: &Open, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let request = v1::OpenRequest {
        door: command.door.clone(),
        source: command.source.to_string(),
        for_ms: command.duration.map_or(0, convert::millis),
        reason: command.reason.clone(),
    };
    let opening = controllers.write(async |mut client| client.open(request.clone()).await).await?;
    if let Some(format) = command.output {
        return Ok(out.one(format, &opening)?);
    }
    let left = remaining(Timestamp::from_millis(opening.expires_ms), out.now());
    out.line(format!(
        "opening/{} {}: {} open for {} on {} hosts, {left} left",
        opening.id,
        if opening.generation > 1 { "refreshed" } else { "created" },
        ports(&opening.ports),
        opening.source,
        opening.hosts.len(),
    ))?;
    Ok(())
}
