//! `fleetknock describe`: everything about one thing, for people.

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::time::Timestamp;
use fleetknock_proto::{limits, v1};
use fleetknock_runtime::exit;

use crate::{
    controllers::Controllers,
    get::{Unanswered, pages, say_unanswered},
    kind::Kind,
    output::{Out, ago, aligned, remaining},
    resource::{
        guard_sums, host_state, labels, millis, mode, opening_state, ports, rolls_back, selector, sequence,
        some,
    },
};

mod controller;
mod host;

/// Show everything about one door, host, opening, ban or controller
///
/// Shows what `get` shows and what belongs to it; of a host and a controller also what is wrong and what to do.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock describe door bastion-ssh
  fleetknock describe host edge-1
  fleetknock describe opening 01k2v7
  fleetknock describe controller ctl-2")]
pub(crate) struct Describe {
    /// doors, hosts, openings, bans or controllers; the singular works too
    kind: Kind,
    /// A door's, host's or controller's name, an opening's id, a ban's source
    name: String,
}

pub(crate) async fn run(command: &Describe, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let name = command.name.clone();
    let now = out.now();
    let mut unanswered = Unanswered::new();
    let text = match command.kind {
        Kind::Door => {
            let request = v1::GetDoorRequest { name, reveal: false };
            let door = controllers.read(async |mut client| client.get_door(request.clone()).await).await?;
            let openings = openings(controllers, &door.name, &mut unanswered).await?;
            let observed = observed(controllers, &door, &mut unanswered).await?;
            describe_door(&door, &openings, observed, now)
        }
        Kind::Host => {
            let request = v1::GetHostRequest { name };
            host::describe(
                &controllers.read(async |mut client| client.get_host(request.clone()).await).await?,
                now,
            )
        }
        Kind::Opening => {
            let request = v1::GetOpeningRequest { id: name };
            let opening = controllers.read(async |mut client| client.get_opening(request.clone()).await);
            describe_opening(&opening.await?, now)
        }
        Kind::Ban => {
            let request = v1::GetBanRequest { source: name };
            let ban = controllers.read(async |mut client| client.get_ban(request.clone()).await);
            describe_ban(&ban.await?, now)
        }
        Kind::Controller => {
            let request = v1::GetControllerRequest { name };
            let member = controllers.read(async |mut client| client.get_controller(request.clone()).await);
            controller::describe(&member.await?, now)
        }
        Kind::Event => {
            let error =
                anyhow!("events cannot be described; 'fleetknock get events -o yaml' shows all there is");
            return Err(exit::coded(exit::USAGE, error));
        }
        Kind::Attempt => {
            let error =
                anyhow!("attempts cannot be described; 'fleetknock get attempts SOURCE' shows all there is");
            return Err(exit::coded(exit::USAGE, error));
        }
    };
    out.raw(&text)?;
    say_unanswered(&unanswered, out)?;
    Ok(())
}

async fn openings(
    controllers: &Controllers,
    door: &str,
    unanswered: &mut Unanswered,
) -> anyhow::Result<Vec<v1::Opening>> {
    pages(async |page_token| {
        let request = v1::ListOpeningsRequest {
            page_size: limits::PAGE_MAX as u32,
            page_token,
            door: door.to_owned(),
            source: String::new(),
            ended: false,
        };
        let page = controllers.read(async |mut client| client.list_openings(request.clone()).await).await?;
        unanswered.extend(page.unanswered);
        Ok((page.openings, page.next_page_token))
    })
    .await
}

/// What the hosts of a door that only observes would have dropped on its ports, as far as they are connected.
async fn observed(
    controllers: &Controllers,
    door: &v1::Door,
    unanswered: &mut Unanswered,
) -> anyhow::Result<Option<u64>> {
    let spec = door.spec.clone().unwrap_or_default();
    if spec.mode() != v1::DoorMode::Observe {
        return Ok(None);
    }
    let hosts = pages(async |page_token| {
        let match_labels = spec.open_hosts.as_ref().map(|hosts| hosts.match_labels.clone());
        let request = v1::ListHostsRequest {
            page_size: limits::PAGE_MAX as u32,
            page_token,
            match_labels: match_labels.unwrap_or_default(),
        };
        let page = controllers.read(async |mut client| client.list_hosts(request.clone()).await).await?;
        unanswered.extend(page.unanswered);
        Ok((page.hosts, page.next_page_token))
    });
    Ok(Some(observed_by(door, &hosts.await?)))
}

fn observed_by(door: &v1::Door, hosts: &[v1::Host]) -> u64 {
    let ports = door.spec.as_ref().map(|spec| spec.open_ports.as_slice()).unwrap_or_default();
    let counts = hosts.iter().filter(|host| door.hosts.contains(&host.name)).flat_map(|host| {
        host.guard_counts.iter().filter(|count| count.port.as_ref().is_some_and(|port| ports.contains(port)))
    });
    guard_sums(counts).1
}

fn describe_door(door: &v1::Door, openings: &[v1::Opening], observed: Option<u64>, now: Timestamp) -> String {
    let spec = door.spec.clone().unwrap_or_default();
    let sequence = sequence(door);
    let steps = sequence.length.max(sequence.steps.len() as u32);
    let mut text = facts([
        ("Name", door.name.clone()),
        ("Labels", labels(&door.labels)),
        (
            "Knock",
            format!("{steps} steps within {}, {:.1} bits", millis(sequence.within_ms), door.strength_bits),
        ),
        ("Sources", if spec.sources.is_empty() { "any".to_owned() } else { spec.sources.join(", ") }),
        ("Opens", ports(&spec.open_ports)),
        ("On", selector(spec.open_hosts.as_ref())),
        ("For", millis(spec.open_for_ms)),
        (
            "Mode",
            observed.map_or_else(
                || mode(&spec).to_owned(),
                |packets| format!("{}, {packets} packets would have been dropped", mode(&spec)),
            ),
        ),
        ("Hosts now", some(&door.hosts.join(", "))),
        ("Created", when(door.created_ms, now)),
        ("Updated", when(door.updated_ms, now)),
        ("Revision", door.revision.to_string()),
        ("Rolls back", some(&rolls_back(door, now))),
        ("Openings", door.active_openings.to_string()),
    ]);
    let rows = openings.iter().map(|opening| {
        let left = remaining(Timestamp::from_millis(opening.expires_ms), now);
        vec![format!("  {}", opening.source), left, opening.id.clone(), opening.opened_by.clone()]
    });
    text.push_str(&aligned(&rows.collect::<Vec<_>>()));
    text
}

fn describe_opening(opening: &v1::Opening, now: Timestamp) -> String {
    let state = match opening.state() {
        v1::OpeningState::Active => {
            format!("active, {} left", remaining(Timestamp::from_millis(opening.expires_ms), now))
        }
        v1::OpeningState::Withdrawn => format!("withdrawn: {}", some(&opening.closed_reason)),
        state => opening_state(state).to_owned(),
    };
    let mut text = facts([
        ("Id", opening.id.clone()),
        ("Door", opening.door.clone()),
        ("Source", opening.source.clone()),
        ("Ports", ports(&opening.ports)),
        ("State", state),
        ("Opened", when(opening.opened_ms, now)),
        ("Opened by", some(&opening.opened_by)),
        (
            "Refreshed",
            format!(
                "{} times, last {}",
                opening.generation.saturating_sub(1),
                when(opening.refreshed_ms, now)
            ),
        ),
        ("Expires", Timestamp::from_millis(opening.expires_ms).to_string()),
        ("Hosts", opening.hosts.len().to_string()),
    ]);
    let rows = opening.hosts.iter().map(|host| {
        let took = if host.took_us == 0 { "-".to_owned() } else { format!("{}us", host.took_us) };
        vec![
            format!("  {}", host.host),
            host_state(host.state()).to_owned(),
            took,
            format!("{} ago", ago(host.changed_ms, now)),
            host.reason.clone(),
        ]
    });
    text.push_str(&aligned(&rows.collect::<Vec<_>>()));
    text
}

fn describe_ban(ban: &v1::Ban, now: Timestamp) -> String {
    facts([
        ("Source", ban.source.clone()),
        ("Reason", some(&ban.reason)),
        ("By", some(&ban.by)),
        ("Since", when(ban.since_ms, now)),
        ("Expires", Timestamp::from_millis(ban.expires_ms).to_string()),
        ("Remaining", remaining(Timestamp::from_millis(ban.expires_ms), now)),
    ])
}

fn facts<const N: usize>(facts: [(&str, String); N]) -> String {
    aligned(&facts.map(|(name, value)| vec![format!("{name}:"), value]))
}

/// One below the other, each indented by two spaces.
fn indented<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    aligned(&lines.map(|line| vec![format!("  {line}")]).collect::<Vec<_>>())
}

/// Such as `2026-11-22T15:30:11.250Z (5m ago)`.
fn when(ms: u64, now: Timestamp) -> String {
    if ms == 0 { "-".to_owned() } else { format!("{} ({} ago)", Timestamp::from_millis(ms), ago(ms, now)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_that_observes_sums_its_own_ports_on_its_own_hosts() {
        let port = |number| v1::Port { protocol: 1, port: number };
        let count = |number, observed| v1::GuardCount { port: Some(port(number)), dropped: 9, observed };
        let host =
            |name: &str, guard_counts| v1::Host { name: name.into(), guard_counts, ..v1::Host::default() };
        let spec = v1::DoorSpec {
            open_ports: vec![port(80), port(443)],
            mode: v1::DoorMode::Observe.into(),
            ..v1::DoorSpec::default()
        };
        let hosts = vec!["a".to_owned(), "b".to_owned()];
        let door = v1::Door { name: "web".into(), spec: Some(spec), hosts, ..v1::Door::default() };
        let hosts = [
            host("a", vec![count(80, 3), count(22, 50)]),
            host("b", vec![count(443, 4)]),
            host("c", vec![count(80, 100)]),
        ];
        assert_eq!(observed_by(&door, &hosts), 7);
        let text = describe_door(&door, &[], Some(7), Timestamp::ZERO);
        assert!(text.contains("observe, 7 packets would have been dropped\n"), "{text}");
    }

    #[test]
    fn an_opening_lists_its_hosts() {
        let host = |host: &str, state: v1::HostOpeningState, took_us, reason: &str| v1::OpeningOnHost {
            host: host.into(),
            state: state.into(),
            reason: reason.into(),
            changed_ms: 1_795_361_410_000,
            took_us,
        };
        let opening = v1::Opening {
            id: "01k2".into(),
            door: "ssh".into(),
            source: "203.0.113.5".into(),
            ports: vec![v1::Port { protocol: 1, port: 22 }],
            state: v1::OpeningState::Active.into(),
            opened_ms: 1_795_361_400_000,
            refreshed_ms: 1_795_361_400_000,
            expires_ms: 1_795_361_430_000,
            generation: 1,
            opened_by: "knock".into(),
            closed_reason: String::new(),
            hosts: vec![
                host("a", v1::HostOpeningState::Applied, 21, ""),
                host("bastion-2", v1::HostOpeningState::Failed, 0, "no such\u{1b}[2J set"),
            ],
        };
        assert_eq!(
            describe_opening(&opening, Timestamp::from_millis(1_795_361_411_500)),
            "Id:         01k2
Door:       ssh
Source:     203.0.113.5
Ports:      tcp/22
State:      active, 19s left
Opened:     2026-11-22T15:30:00.000Z (11s ago)
Opened by:  knock
Refreshed:  0 times, last 2026-11-22T15:30:00.000Z (11s ago)
Expires:    2026-11-22T15:30:30.000Z
Hosts:      2
  a          applied  21us  1s ago
  bastion-2  failed   -     1s ago  no such\u{fffd}[2J set
"
        );
    }
}
