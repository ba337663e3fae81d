//! `fleetknock log`: what a controller or a host's agent logs, for a while.

use std::time::Duration;

use clap::{Args, Subcommand};
use fleetknock_core::{host::HostName, time::Timestamp};
use fleetknock_proto::{
    convert,
    v1::{SetLogRequest, set_log_request::Whose},
};

use crate::{
    args::time,
    controllers::Controllers,
    output::{Out, remaining},
};

/// Change what a controller or a host's agent logs, for a while
///
/// It goes back by itself to what the program was started with. Every change is in the audit trail.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock log host db-1 fleetknock_agent=debug --for 10m
  fleetknock log controller info,fleetknock_controller=debug
  fleetknock log controller ctl-2 debug
  fleetknock log host db-1 --reset")]
pub(crate) struct Log {
    #[command(subcommand)]
    whose: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// What a host's agent logs
    ///
    /// The agent is told over its stream to whichever controller it is connected to.
    #[command(after_help = "Example:
  fleetknock log host db-1 fleetknock_agent=debug --for 10m")]
    Host {
        /// Which host
        name: HostName,
        #[command(flatten)]
        order: Order,
    },
    /// What a controller logs: the one that answers, or another one by its name
    #[command(
        override_usage = "fleetknock log controller [NAME] <FILTER> [--for <TIME>]\n       fleetknock log controller [NAME] --reset",
        after_help = "Example:
  fleetknock log controller ctl-2 debug --for 5m"
    )]
    Controller {
        /// The controller's name, where it is not the one that answers
        name: Option<String>,
        #[command(flatten)]
        order: Order,
    },
}

#[derive(Args, Debug)]
struct Order {
    /// Such as debug or info,fleetknock_agent=debug
    #[arg(conflicts_with = "reset")]
    filter: Option<String>,
    /// For how long [default: 10m]
    #[arg(long = "for", value_name = "TIME", value_parser = time, conflicts_with = "reset")]
    duration: Option<Duration>,
    /// Log as it was started, at once
    #[arg(long)]
    reset: bool,
}

pub(crate) async fn run(command: &Log, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let (whose, said, filter, order) = match &command.whose {
        Program::Host { name, order } => {
            (Whose::Host(name.to_string()), format!("host/{name}"), order.filter.clone(), order)
        }
        // Of one word, it is the filter.
        Program::Controller { name, order } => {
            let (name, filter) = match (&order.filter, order.reset) {
                (None, false) => (None, name.clone()),
                (filter, _) => (name.clone(), filter.clone()),
            };
            let said =
                name.as_ref().map_or_else(|| "controller".to_owned(), |name| format!("controller/{name}"));
            (Whose::Controller(name.unwrap_or_default()), said, filter, order)
        }
    };
    let filter = match (filter, order.reset) {
        (Some(filter), false) if !filter.is_empty() => filter,
        (_, true) => String::new(),
        _ => {
            let reason = anyhow::anyhow!("what is to be logged? give a filter such as debug, or --reset");
            return Err(fleetknock_runtime::exit::coded(fleetknock_runtime::exit::USAGE, reason));
        }
    };
    let request =
        SetLogRequest { whose: Some(whose), filter, for_ms: order.duration.map_or(0, convert::millis) };
    let answer = controllers.write(async |mut client| client.set_log(request.clone()).await).await?;
    if answer.until_ms == 0 {
        out.line(format!("{said} logs as it was started"))?;
    } else {
        let left = remaining(Timestamp::from_millis(answer.until_ms), out.now());
        out.line(format!("{said} logs {}, {left} left", request.filter))?;
    }
    Ok(())
}
