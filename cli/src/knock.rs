//! `fleetknock knock`: the client. It needs no controller, and no privilege.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::port::Protocol;
use fleetknock_runtime::exit;

use crate::{args::time, controllers::REFUSED, output::Out};

mod packet;
mod target;
mod wait;

use target::Target;

/// How long to wait for a port to open unless the user says.
const WAIT: Duration = Duration::from_secs(5);
/// Targets of one knock: a door has at most 32 steps.
const TARGETS_MAX: usize = fleetknock_core::door::STEPS_MAX;

/// Knock: send packets in order, and wait until a port opens
///
/// Sends one packet to each target, in order: a TCP SYN, a UDP datagram, or an ICMP echo request with a payload of that
/// many bytes. A TCP knock is closed at once, so that the kernel never sends its SYN again.
///
/// The steps of a knock are secrets: they are not shown without --verbose, but a shell may keep this line in its history.
#[derive(Args, Debug)]
#[command(
    after_help = "All targets are knocked at by one address family, because a door follows one source address.

Examples:
  fleetknock knock tcp/7412@203.0.113.5 udp/23981@db-1.example icmp/731@edge-2.example
  fleetknock knock tcp/7412@[2001:db8::5] tcp/51003@2001:db8::6 --then-wait tcp/22@bastion.example --retry 2"
)]
pub(crate) struct Knock {
    /// Where to knock, in order
    #[arg(required = true, num_args = 1..=TARGETS_MAX, value_name = "PROTOCOL/PORT@HOST")]
    targets: Vec<Target>,
    /// Time between two knocks
    ///
    /// Packets to different hosts may overtake each other on their way, and each agent stamps them by its own clock.
    /// The default is longer than either difference, so that the order is seen as it was meant.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "100ms")]
    delay: Duration,
    /// Then wait until this TCP port takes connections, for as long as --timeout says
    #[arg(long, value_name = "tcp/PORT@HOST")]
    then_wait: Option<Target>,
    /// Knock again, up to this many times, when the port did not open
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "then_wait")]
    retry: u8,
    /// Use IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Use IPv6 only
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Show the ports that are knocked at
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn run(command: Knock, timeout: Option<Duration>, out: &mut Out) -> anyhow::Result<()> {
    let timeout = timeout.unwrap_or(WAIT);
    if let Some(target) = &command.then_wait
        && target.port.protocol() != Protocol::Tcp
    {
        let protocol = target.port.protocol();
        let error = anyhow!(
            "whether a {protocol} port is open cannot be told from outside (--then-wait); wait for a tcp port, or leave \
             it out"
        );
        return Err(exit::coded(exit::USAGE, error));
    }
    let mut all: Vec<&Target> = command.targets.iter().collect();
    all.extend(&command.then_wait);
    let addresses = target::resolve(&all, family(&command), timeout).await?;
    let (steps, waited) = addresses.split_at(command.targets.len());

    for round in 0..=command.retry {
        if round > 0 {
            out.remark(format!("knocking again, {round} of {}", command.retry))?;
        }
        send_all(&command, steps, out).await?;
        let (Some(target), Some(address)) = (&command.then_wait, waited.first()) else { return Ok(()) };
        let since = Instant::now();
        match wait::until_open(*address, target.port.number(), timeout).await {
            wait::Outcome::Open => {
                let took = since.elapsed().as_secs_f64();
                out.line(format!("{} at {} is open, {took:.2}s after the knock", target.port, target.host))?;
                return Ok(());
            }
            wait::Outcome::Refused => out.warning(format!(
                "{} refuses connections at {}: the port may be open with nothing listening on it",
                target.host, target.port
            ))?,
            wait::Outcome::Silent => {}
        }
    }
    let target = command.then_wait.as_ref().map(|target| format!("{} at {}", target.port, target.host));
    let error = anyhow!(
        "{} did not open within {}; check the steps and their order, that this address may knock, and that it is not \
         banned",
        target.unwrap_or_default(),
        humantime::format_duration(timeout)
    );
    Err(exit::coded(REFUSED, error))
}

async fn send_all(command: &Knock, addresses: &[IpAddr], out: &mut Out) -> anyhow::Result<()> {
    let count = command.targets.len();
    for (index, (target, address)) in command.targets.iter().zip(addresses).enumerate() {
        if index > 0 {
            tokio::time::sleep(command.delay).await;
        }
        let number = index + 1;
        packet::send(target.port, *address).map_err(|error| {
            let code = error.exit_code();
            exit::coded(code, anyhow!("knock {number} of {count} was not sent to {}: {error}", target.host))
        })?;
        if command.verbose {
            out.line(format!(
                "knock {number} of {count} sent to {} ({address}) at {}",
                target.host, target.port
            ))?;
        } else {
            out.line(format!("knock {number} of {count} sent to {}", target.host))?;
        }
    }
    Ok(())
}

fn family(command: &Knock) -> Option<target::Family> {
    match (command.ipv4, command.ipv6) {
        (true, _) => Some(target::Family::V4),
        (_, true) => Some(target::Family::V6),
        _ => None,
    }
}
