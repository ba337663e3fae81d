//! `fleetknock ban` and `fleetknock unban`.

use std::time::Duration;

use clap::Args;
use fleetknock_core::{source::Source, time::Timestamp};
use fleetknock_proto::{convert, v1};

use crate::{
    args::time,
    controllers::Controllers,
    output::{Out, remaining},
};

/// Ignore a source: its knocks do not count and its openings are withdrawn
///
/// A ban stops knocking and opening, on the whole fleet; other traffic of the source goes on.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  fleetknock ban 203.0.113.5 --for 1h --reason 'scans us'")]
pub(crate) struct Ban {
    /// Whom
    source: Source,
    /// For how long [default: as long as the policy says]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
}

/// Lift the ban of a source
///
/// The source may knock again at once; openings that the ban withdrew do not come back.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  fleetknock unban 203.0.113.5")]
pub(crate) struct Unban {
    /// Whom
    source: Source,
}

pub(crate) async fn run(command: &Ban, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let request = v1::BanSourceRequest {
        source: command.source.to_string(),
        for_ms: command.duration.map_or(0, convert::millis),
        reason: command.reason.clone(),
    };
    let ban = controllers.write(async |mut client| client.ban_source(request.clone()).await).await?;
    let left = remaining(Timestamp::from_millis(ban.expires_ms), out.now());
    out.line(format!("ban/{} set, {left} left", ban.source))?;
    Ok(())
}

pub(crate) async fn unban(command: &Unban, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let request = v1::UnbanSourceRequest { source: command.source.to_string() };
    controllers.write(async |mut client| client.unban_source(request.clone()).await).await?;
    out.line(format!("ban/{} lifted", command.source))?;
    Ok(())
}
