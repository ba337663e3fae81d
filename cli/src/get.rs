//! `fleetknock get`: lists.

use std::collections::BTreeSet;

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::source::Source;
use fleetknock_proto::{limits, v1};
use fleetknock_runtime::exit;

use crate::{
    controllers::Controllers,
    kind::{Code, Kind, Label, Since},
    output::{Format, Out},
};

/// List doors, hosts, openings, bans, attempts, controllers or events
///
/// Lists are complete: every page is asked for. When a controller does not answer the one that is asked, a warning says
/// that what only it knows is missing. Events are those of the audit trail, oldest first: the last 10,000, of at most 90
/// days; bans by policy are not among them (see: fleetknock watch, and the audit logs of the controllers).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock get doors
  fleetknock get door bastion-ssh -o yaml --reveal
  fleetknock get hosts -l role=edge -o wide
  fleetknock get openings --source 203.0.113.5 --ended
  fleetknock get attempts --door bastion-ssh
  fleetknock get controllers -o wide
  fleetknock get events --since 1h -o wide
  fleetknock get events --code door-applied,door-deleted --actor 'user alice' -o json")]
pub(crate) struct Get {
    /// What to list; the singular works too
    kind: Kind,
    /// Only this one: a door's, host's or controller's name, an opening's id, a ban's or attempt's source
    name: Option<String>,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Show the steps of doors, in json and yaml
    #[arg(long)]
    reveal: bool,
    /// Only openings, attempts and events of this door
    #[arg(long, value_name = "NAME")]
    door: Option<String>,
    /// Only openings, attempts and events of this source
    #[arg(long, value_name = "ADDRESS")]
    source: Option<Source>,
    /// Only doors and hosts with this label; several must all be there
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// Openings that ended within the last hour too
    #[arg(long)]
    ended: bool,
    /// Only events since then: how long ago, or a time like 2026-11-22T15:30:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only events of these codes, such as door-applied
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    code: Vec<Code>,
    /// Only events of this actor, such as 'user alice'
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
}

pub(crate) async fn run(command: &Get, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    command.check()?;
    let format = command.output;
    let reveal = command.reveal;
    let door = || command.door.clone().unwrap_or_default();
    let source = || command.source.map(|source| source.to_string()).unwrap_or_default();
    let page_size = limits::PAGE_MAX as u32;
    let mut unanswered = Unanswered::new();
    match (command.kind, command.name.clone()) {
        (Kind::Door, Some(name)) => {
            let request = v1::GetDoorRequest { name, reveal };
            out.one(
                format,
                &controllers.read(async |mut client| client.get_door(request.clone()).await).await?,
            )?;
        }
        (Kind::Door, None) => {
            let mut doors = pages(async |page_token| {
                let request = v1::ListDoorsRequest { page_size, page_token, reveal };
                let page =
                    controllers.read(async |mut client| client.list_doors(request.clone()).await).await?;
                Ok((page.doors, page.next_page_token))
            })
            .await?;
            doors.retain(|door| {
                command.labels.iter().all(|Label(key, value)| door.labels.get(key) == Some(value))
            });
            out.list(format, &doors)?;
        }
        (Kind::Host, Some(name)) => {
            let request = v1::GetHostRequest { name };
            out.one(
                format,
                &controllers.read(async |mut client| client.get_host(request.clone()).await).await?,
            )?;
        }
        (Kind::Host, None) => {
            let match_labels: std::collections::HashMap<_, _> =
                command.labels.iter().map(|Label(key, value)| (key.clone(), value.clone())).collect();
            let hosts = pages(async |page_token| {
                let request =
                    v1::ListHostsRequest { page_size, page_token, match_labels: match_labels.clone() };
                let page =
                    controllers.read(async |mut client| client.list_hosts(request.clone()).await).await?;
                unanswered.extend(page.unanswered);
                Ok((page.hosts, page.next_page_token))
            })
            .await?;
            out.list(format, &hosts)?;
        }
        (Kind::Opening, Some(id)) => {
            let request = v1::GetOpeningRequest { id };
            out.one(
                format,
                &controllers.read(async |mut client| client.get_opening(request.clone()).await).await?,
            )?;
        }
        (Kind::Opening, None) => {
            let openings = pages(async |page_token| {
                let (door, source, ended) = (door(), source(), command.ended);
                let request = v1::ListOpeningsRequest { page_size, page_token, door, source, ended };
                let page =
                    controllers.read(async |mut client| client.list_openings(request.clone()).await).await?;
                unanswered.extend(page.unanswered);
                Ok((page.openings, page.next_page_token))
            })
            .await?;
            out.list(format, &openings)?;
        }
        (Kind::Ban, Some(source)) => {
            let request = v1::GetBanRequest { source };
            out.one(
                format,
                &controllers.read(async |mut client| client.get_ban(request.clone()).await).await?,
            )?;
        }
        (Kind::Ban, None) => {
            let bans = pages(async |page_token| {
                let request = v1::ListBansRequest { page_size, page_token };
                let page =
                    controllers.read(async |mut client| client.list_bans(request.clone()).await).await?;
                Ok((page.bans, page.next_page_token))
            })
            .await?;
            out.list(format, &bans)?;
        }
        (Kind::Attempt, name) => {
            let source = name.unwrap_or_else(source);
            let attempts = pages(async |page_token| {
                let request =
                    v1::ListAttemptsRequest { page_size, page_token, door: door(), source: source.clone() };
                let page =
                    controllers.read(async |mut client| client.list_attempts(request.clone()).await).await?;
                unanswered.extend(page.unanswered);
                Ok((page.attempts, page.next_page_token))
            })
            .await?;
            out.list(format, &attempts)?;
        }
        (Kind::Controller, Some(name)) => {
            let request = v1::GetControllerRequest { name };
            out.one(
                format,
                &controllers.read(async |mut client| client.get_controller(request.clone()).await).await?,
            )?;
        }
        (Kind::Controller, None) => {
            let members = pages(async |page_token| {
                let request = v1::ListControllersRequest { page_size, page_token };
                let page = controllers
                    .read(async |mut client| client.list_controllers(request.clone()).await)
                    .await?;
                Ok((page.controllers, page.next_page_token))
            })
            .await?;
            out.list(format, &members)?;
        }
        (Kind::Event, _) => {
            let request = v1::ListEventsRequest {
                page_size,
                since_ms: command.since.map_or(0, |since| since.millis(out.now())),
                door: door(),
                source: source(),
                kinds: command.code.iter().map(|Code(kind)| (*kind).into()).collect(),
                actor: command.actor.clone().unwrap_or_default(),
                ..v1::ListEventsRequest::default()
            };
            let events = pages(async |page_token| {
                let request = v1::ListEventsRequest { page_token, ..request.clone() };
                let page =
                    controllers.read(async |mut client| client.list_events(request.clone()).await).await?;
                Ok((page.events, page.next_page_token))
            })
            .await?;
            out.list(format, &events)?;
        }
    }
    say_unanswered(&unanswered, out)?;
    Ok(())
}

/// The names of controllers that did not answer the one that was asked.
pub(crate) type Unanswered = BTreeSet<String>;

/// A list is still a list without what some controllers know, but not one to take for complete.
pub(crate) fn say_unanswered(unanswered: &Unanswered, out: &mut Out) -> std::io::Result<()> {
    for name in unanswered {
        out.warning(format!(
            "controller {name} does not answer; what only it knows is missing (see: fleetknock describe controller \
             {name})"
        ))?;
    }
    Ok(())
}

impl Get {
    /// A filter that would be passed over is refused: the list would seem to be what it is not.
    fn check(&self) -> anyhow::Result<()> {
        let named = self.name.is_some() && self.kind != Kind::Attempt;
        let by_use = matches!(self.kind, Kind::Opening | Kind::Attempt | Kind::Event) && !named;
        let of_events = self.kind == Kind::Event;
        let by_label = matches!(self.kind, Kind::Door | Kind::Host) && !named;
        let wrong = [
            ("--door", self.door.is_some() && !by_use),
            ("--source", self.source.is_some() && (!by_use || self.name.is_some())),
            ("--label", !self.labels.is_empty() && !by_label),
            ("--ended", self.ended && (self.kind != Kind::Opening || named)),
            ("--reveal", self.reveal && self.kind != Kind::Door),
            ("--since", self.since.is_some() && !of_events),
            ("--code", !self.code.is_empty() && !of_events),
            ("--actor", self.actor.is_some() && !of_events),
            ("a name", self.name.is_some() && of_events),
        ];
        match wrong.iter().find(|(_, wrong)| *wrong) {
            Some((flag, _)) => Err(exit::coded(
                exit::USAGE,
                anyhow!("{flag} does not go with this list; see 'fleetknock get --help'"),
            )),
            None => Ok(()),
        }
    }
}

/// Asks for page after page until there is none. A controller that gives the same token twice is not asked forever.
pub(crate) async fn pages<T>(
    mut page: impl AsyncFnMut(String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let (items, next) = page(token.clone()).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        if next == token {
            return Err(exit::coded(
                exit::SOFTWARE,
                anyhow!("the controller gives the same page again and again"),
            ));
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_page_is_asked_for_and_a_loop_ends() {
        let all = pages(async |token: String| {
            let number: usize = token.parse().unwrap_or(0);
            Ok((vec![number], if number < 3 { (number + 1).to_string() } else { String::new() }))
        });
        assert_eq!(all.await.unwrap(), [0, 1, 2, 3]);
        let stuck = pages(async |_| Ok((vec![()], "same".to_owned())));
        assert!(stuck.await.is_err());
    }

    #[test]
    fn filters_that_do_not_apply_are_refused() {
        use clap::Parser as _;
        let check = |args: &str| {
            let cli = crate::args::Cli::try_parse_from(format!("fleetknock get {args}").split(' ')).unwrap();
            let crate::args::Command::Get(get) = cli.command else { panic!() };
            get.check()
        };
        for fine in [
            "doors",
            "door a --reveal",
            "hosts -l a=b",
            "openings --door a --source 192.0.2.1 --ended",
            "attempts 192.0.2.1 --door a",
            "controllers",
            "ctl ctl-1",
            "events --since 1h --code door-applied,opening-granted --actor a --door a --source 192.0.2.1",
        ] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "doors --door a",
            "bans --source 192.0.2.1",
            "openings -l a=b",
            "opening x --ended",
            "hosts --reveal",
            "host a -l a=b",
            "controllers -l a=b",
            "ctl --door a",
            "events x",
            "events --ended",
            "doors --since 1h",
            "bans --actor a",
            "hosts --code repaired",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
