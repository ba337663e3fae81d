//! What the command understands, and who does it.

use std::{cell::OnceCell, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use fleetknock_core::identity::FleetName;
use fleetknock_runtime::tls;

use crate::{
    apply, backup, ban, check, close, completions, confirm, controllers::Controllers, delete, describe,
    explain, get, import, knock, log, open, output, pki, token, top, watch,
};

/// Port knocking for a fleet: knock, and operate doors, hosts, openings, bans and controllers.
#[derive(Debug, Parser)]
#[command(name = "fleetknock", version, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

const AFTER_HELP: &str =
    "Exit codes: 0 done, 1 not found or refused, 64 wrong usage, 65 wrong file or field, 66 file cannot be \
read, 69 no controller can be reached, 75 try again, 77 not permitted.

Examples:
  fleetknock knock tcp/7412@edge-1.example udp/23981@db-1.example --then-wait tcp/22@bastion.example
  fleetknock apply -f doors/
  fleetknock get openings --door bastion-ssh
  fleetknock get controllers --controller https://10.0.0.1:7600,https://10.0.0.2:7600 \
      --tls-cert alice.crt --tls-key alice.key --tls-ca ca.crt
  fleetknock open bastion-ssh --source 203.0.113.5 --for 60s --reason 'ticket 4711'";

/// What every command that asks a controller takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Global {
    /// The controller to ask; of several, the next one is asked when one cannot answer [default:
    /// https://127.0.0.1:7600, with --insecure http://127.0.0.1:7600]
    #[arg(long, global = true, value_name = "URL", value_delimiter = ',')]
    pub(crate) controller: Vec<String>,
    /// Mutual TLS.
    #[command(flatten)]
    pub(crate) tls: tls::Settings,
    /// A file with a token (fleetknock token create) that only you can read, in place of --tls-cert and --tls-key;
    /// without it the environment variable FLEETKNOCK_TOKEN may hold the token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    // Without a default of clap's: subcommands of pki have a flag of this name as well, which it would reach.
    /// The fleet, as certificates name it [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) fleet: Option<FleetName>,
    /// Talk to the controller in plain text: anybody on the way can read and change it
    #[arg(long, global = true)]
    pub(crate) insecure: bool,
    /// How long an answer of one controller may take [default: 10s; for knock --then-wait 5s]
    #[arg(long, global = true, value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Option<Duration>,
    /// A YAML file with these settings: controller, tls-cert, tls-key, tls-ca, token-file, fleet, insecure,
    /// timeout
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Apply(apply::Apply),
    Backup(backup::Backup),
    Ban(ban::Ban),
    Check(check::Check),
    Close(close::Close),
    Completions(completions::Completions),
    Confirm(confirm::Confirm),
    Delete(delete::Delete),
    Describe(describe::Describe),
    EnrollToken(token::EnrollToken),
    Explain(explain::Explain),
    Get(get::Get),
    Import(import::Import),
    Knock(knock::Knock),
    Log(log::Log),
    Open(open::Open),
    Pki(pki::Pki),
    Restore(backup::restore::Restore),
    Token(token::Token),
    Top(top::Top),
    Unban(ban::Unban),
    Watch(watch::Watch),
}

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let out = &mut output::Out::standard();
    let global = &cli.global;
    let cell = OnceCell::new();
    // Knocking and reading files need no controller, nor valid settings for one.
    let controllers = || {
        let checked = Controllers::new(global)?;
        anyhow::Ok(cell.get_or_init(|| checked))
    };
    let result = match cli.command {
        Command::Check(command) => check::run(&command, out),
        Command::Completions(command) => completions::run(&command, out),
        Command::Import(command) => import::run(&command, out),
        Command::Pki(command) => pki::run(&command, out),
        Command::Knock(command) => knock::run(command, global.timeout, out).await,
        Command::Apply(command) => apply::run(&command, controllers()?, out).await,
        Command::Backup(command) => backup::run(&command, controllers()?, out).await,
        Command::Ban(command) => ban::run(&command, controllers()?, out).await,
        Command::Close(command) => close::run(&command, controllers()?, out).await,
        Command::Confirm(command) => confirm::run(&command, controllers()?, out).await,
        Command::Delete(command) => delete::run(&command, controllers()?, out).await,
        Command::Describe(command) => describe::run(&command, controllers()?, out).await,
        Command::Explain(command) => explain::run(&command, controllers()?, out).await,
        Command::EnrollToken(command) => token::enroll(&command, controllers()?, out).await,
        Command::Get(command) => get::run(&command, controllers()?, out).await,
        Command::Log(command) => log::run(&command, controllers()?, out).await,
        Command::Open(command) => open::run(&command, controllers()?, out).await,
        Command::Restore(command) => backup::restore::run(&command, controllers()?, out).await,
        Command::Token(command) => token::run(&command, controllers()?, out).await,
        Command::Top(command) => top::run(&command, controllers()?, out).await,
        Command::Unban(command) => ban::unban(&command, controllers()?, out).await,
        Command::Watch(command) => watch::run(&command, controllers()?, out).await,
    };
    if let Some(controllers) = cell.get() {
        for passed_over in controllers.passed_over() {
            out.warning(passed_over)?;
        }
    }
    result
}

/// A time such as `15s` or `1m30s`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write a time like 15s or 1m30s".to_owned())?;
    if time.is_zero() { Err("a time must be above zero".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }

    #[test]
    fn times_need_a_unit_and_are_not_zero() {
        assert_eq!(time("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "0s", "soon"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
