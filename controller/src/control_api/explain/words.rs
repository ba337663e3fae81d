//! Says a verdict, and what each knock was, in plain short sentences with the numbers.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use fleetknock_core::{
    door::{Door, DoorName, Knock, yaml::time_text},
    explain::{Explained, Outcome, Verdict},
    host::HostName,
    knock::ObservationId,
    port::Port,
    source::Source,
    time::Timestamp,
};
use fleetknock_proto::v1 as pb;

use super::{NAMED_MAX, gathered::Knocked};
use crate::wire;

/// What the words may tell, and of whom.
pub(super) struct Words<'a> {
    /// Whether ports and hosts of steps may be told.
    pub(super) reveal: bool,
    pub(super) source: Source,
    pub(super) now: Timestamp,
    /// The ports of all doors' steps.
    pub(super) secret: &'a BTreeSet<Port>,
    /// Doors that do not admit the source, by the ports of their steps.
    pub(super) barred: &'a HashMap<Port, DoorName>,
    /// What verdicts say of single knocks.
    pub(super) notes: HashMap<ObservationId, String>,
    pub(super) knocks: HashMap<ObservationId, &'a Knocked>,
}

type Told = (pb::ExplainCode, String, String);

fn told(code: pb::ExplainCode, message: String, remedy: impl Into<String>) -> Told {
    (code, message, remedy.into())
}

impl Words<'_> {
    /// Notes what a verdict says of a knock, for the list of knocks.
    pub(super) fn note(&mut self, door: &Door, explained: &Explained) {
        let (name, total) = (door.name(), explained.total);
        let note = match &explained.verdict {
            Verdict::TooSlow { step, late, knock, .. } => {
                (*knock, format!("step {step} of {total} of door {name}, too late by {}", seconds(*late)))
            }
            Verdict::WrongKnock { after, knock } => (
                *knock,
                format!("a miss: it failed the attempt at door {name} after step {after} of {total}"),
            ),
            Verdict::WrongHost { step, knock } => (
                *knock,
                format!("a miss: the port of step {step} of door {name}, on another host than it asks for"),
            ),
            _ => return,
        };
        self.notes.entry(note.0).or_insert(note.1);
    }

    /// A knock as the caller may see it.
    pub(super) fn knock(&self, knock: &Knocked) -> pb::KnockSeen {
        let port = knock.seen.observation.port;
        let hidden = !self.reveal && self.secret.contains(&port);
        pb::KnockSeen {
            port: (!hidden).then(|| port.into()),
            hidden,
            outcome: wire::knock_outcome(knock.seen.outcome).into(),
            message: self.said(knock),
            judged_us: knock.seen.judged.as_micros(),
            // Nothing that tells equal packets from others: it is between controllers.
            fingerprint: 0,
            ..knock.said.clone()
        }
    }

    fn said(&self, knock: &Knocked) -> String {
        let pb::KnockSeen { door, step, of, .. } = &knock.said;
        if let Some(note) = self.notes.get(&knock.seen.observation.id)
            && !knock.seen.outcome.is_complete()
        {
            return note.clone();
        }
        match knock.seen.outcome {
            Outcome::Step => format!("step {step} of {of} of door {door}"),
            Outcome::Completed => {
                let doors: Vec<_> = knock.completed.iter().map(String::as_str).collect();
                let which = if step == of { "the last step" } else { "the last report that was missing" };
                format!("{which}: complete at door {}", doors.join(", "))
            }
            Outcome::Refused => {
                let reasons: Vec<_> = knock
                    .refused
                    .iter()
                    .map(|(door, (reason, _))| format!("door {door}: {reason}"))
                    .collect();
                format!("the last step: complete, and not answered; {}", reasons.join("; "))
            }
            Outcome::Repeat => "a repeat: harmless".to_owned(),
            Outcome::Waiting => "a later step, before those that precede it".to_owned(),
            Outcome::Miss => match self.barred.get(&knock.seen.observation.port) {
                Some(door) => format!("a miss: {} lies outside the sources of door {door}", self.source),
                None => "a miss: no next step of any door".to_owned(),
            },
            Outcome::Banned => "ignored: the source was banned".to_owned(),
            Outcome::TooLate => {
                let late = knock.seen.judged.since(knock.seen.observation.time);
                format!("ignored: its report came {} after it, too late to count", seconds(late))
            }
            Outcome::Future => "ignored: it lies in the future, so its host's clock is wrong".to_owned(),
            Outcome::Ping => "ignored: a ping of a length that no door uses".to_owned(),
            Outcome::NoRoom => "ignored: as many sources as may be are followed already".to_owned(),
            Outcome::Known => String::new(),
        }
    }

    /// A verdict: its code, what happened, and what to do.
    pub(super) fn verdict(&self, door: &Door, verdict: &Verdict, total: usize) -> Told {
        let name = door.name();
        match verdict {
            Verdict::Open { .. }
            | Verdict::OpenInPart { .. }
            | Verdict::FirewallFailed { .. }
            | Verdict::TargetAway { .. }
            | Verdict::NoTarget => self.granted(door, verdict),
            Verdict::Expired { at } => {
                let remedy = format!("knock again, or raise spec.opens.for of door {name}");
                let held = time_text(door.opens().duration);
                let message = format!("it was open until {at}; the door opens for {held}");
                told(pb::ExplainCode::Expired, message, remedy)
            }
            Verdict::Withdrawn { at, reason } => {
                let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                let remedy = "ask who closed it (fleetknock get events), and knock again";
                told(pb::ExplainCode::Withdrawn, format!("it was open, and was closed at {at}{why}"), remedy)
            }
            Verdict::Banned { until: Some(until) } => {
                let left = time_text(Duration::from_secs(until.since(self.now).as_secs().max(1)));
                let message = format!("{} is banned for another {left}: its knocks are ignored", self.source);
                let remedy = format!("fleetknock unban {}, or wait; then knock again", self.source);
                told(pb::ExplainCode::Banned, message, remedy)
            }
            Verdict::Banned { until: None } => {
                let message = format!("{} was banned when it knocked; the ban is over", self.source);
                told(pb::ExplainCode::Banned, message, "knock again")
            }
            Verdict::NotAdmitted => {
                let networks: Vec<_> =
                    door.sources().iter().take(NAMED_MAX).map(ToString::to_string).collect();
                let message = format!("{} may not knock at door {name}: spec.sources lacks it", self.source);
                let remedy =
                    format!("knock from {}, or add the address to spec.sources", networks.join(", "));
                told(pb::ExplainCode::NotAdmitted, message, remedy)
            }
            Verdict::Refused { reason, waits } => {
                let message = format!("the knock was complete and could not be answered: {reason}");
                let remedy = match waits {
                    true => "it is tried again for a few seconds; then knock again",
                    false => "mend that, and knock again",
                };
                told(pb::ExplainCode::Refused, message, remedy)
            }
            Verdict::Observes(inner) => {
                let (_, message, remedy) = self.verdict(door, inner, total);
                let message =
                    format!("door {name} only observes and keeps nothing closed; its knock: {message}");
                let guard = "to have its ports kept closed, set spec.mode to enforce".to_owned();
                let remedy =
                    if remedy.is_empty() { guard } else { format!("{guard}; for the knock: {remedy}") };
                told(pb::ExplainCode::Observes, message, remedy)
            }
            Verdict::NothingSeen => told(
                pb::ExplainCode::NothingSeen,
                format!("no knock of {} was seen on any host", self.source),
                "check that you knock the hosts' own addresses and that no firewall or address translation lies \
                 between: another source address may have arrived",
            ),
            Verdict::NoStep { knocks } => told(
                pb::ExplainCode::NoStep,
                format!(
                    "{} seen, none of them a step of this door",
                    wire::counted(*knocks, "knock was", "knocks were")
                ),
                "check the ports, and that the knock is for this door",
            ),
            other => self.attempt(door, other, total),
        }
    }

    /// Of a door that is granted.
    fn granted(&self, door: &Door, verdict: &Verdict) -> Told {
        let ports: Vec<_> = door.opens().ports.iter().map(ToString::to_string).collect();
        let ports = ports.join(", ");
        match verdict {
            Verdict::Open { until } => {
                let left = time_text(Duration::from_secs(until.since(self.now).as_secs()));
                let message = format!("it is open for {} at {ports}, for another {left}", self.source);
                told(pb::ExplainCode::Open, message, "")
            }
            Verdict::OpenInPart { pending, open_on } => told(
                pb::ExplainCode::OpenInPart,
                format!(
                    "it is open on {open_on} of {} hosts; not said yet: {}",
                    open_on + pending.len(),
                    names(pending)
                ),
                "ask again in a second; if it stays so, look at those hosts with fleetknock describe host",
            ),
            Verdict::FirewallFailed { failed } => {
                let hosts: Vec<_> =
                    failed.iter().take(NAMED_MAX).map(|(host, why)| format!("{host} ({why})")).collect();
                let message =
                    format!("it was granted, and the firewall could not open on {}", hosts.join(", "));
                let remedy = "look at the host with fleetknock describe host, and at its agent's log";
                told(pb::ExplainCode::FirewallFailed, message, remedy)
            }
            Verdict::TargetAway { hosts } => told(
                pb::ExplainCode::HostAway,
                format!("it was granted, and is not known to be open on {}: not connected", names(hosts)),
                "start fleetknock-agent there, or mend its way to the controllers",
            ),
            _ => told(
                pb::ExplainCode::NoHost,
                format!("it was granted, and no host matched spec.opens.hosts ({})", door.opens().hosts),
                "correct spec.opens.hosts, or the hosts' labels",
            ),
        }
    }

    /// Of an attempt that failed or is under way.
    fn attempt(&self, door: &Door, verdict: &Verdict, total: usize) -> Told {
        let Knock::Sequence(sequence) = door.knock();
        let within = time_text(sequence.within);
        let step = |step: usize| format!("step {step} of {total}");
        match verdict {
            Verdict::TooSlow { step: first, late, took, .. } => {
                let message = format!(
                    "{} came {} too late: the door wants all steps within {within}, and they took {}",
                    step(*first),
                    seconds(*late),
                    seconds(*took)
                );
                told(pb::ExplainCode::TooSlow, message, "knock faster, or raise spec.knock.within")
            }
            Verdict::WrongKnock { after, knock } => told(
                pb::ExplainCode::WrongKnock,
                format!(
                    "after {} came a wrong knock, {}: it failed the attempt",
                    step(*after),
                    self.at(*knock)
                ),
                "knock only the steps, with nothing else between them from the same address",
            ),
            Verdict::WrongOrder { early, before } => told(
                pb::ExplainCode::WrongOrder,
                format!("step {early} came before step {before}"),
                "knock the steps in their order, a little apart when they go to different hosts",
            ),
            Verdict::WrongHost { step: at, knock } => {
                let asked = match self.reveal {
                    true => format!(": it is for {}", sequence.steps[at - 1].hosts),
                    false => String::new(),
                };
                let message = format!(
                    "the port of {} was knocked {}, which the step does not name{asked}",
                    step(*at),
                    self.on(*knock)
                );
                told(pb::ExplainCode::WrongHost, message, "knock that step on a host that it names")
            }
            Verdict::Incomplete { done, later, deadline, doubtful } => {
                self.incomplete(door, (*done, total), *later, *deadline, doubtful)
            }
            Verdict::PortInUse { step: at, hosts } => {
                let on = self.hosts(hosts);
                let message = format!("{} cannot be seen: a local service has its port{on}", step(*at));
                let remedy = "choose another port for the step, or stop that service";
                told(pb::ExplainCode::PortInUse, message, remedy)
            }
            Verdict::HostAway { step: at, hosts } => {
                let which = self.hosts(hosts);
                let message = format!("{} cannot be seen: no host for it is connected{which}", step(*at));
                let remedy = "start fleetknock-agent there, or mend its way to the controllers";
                told(pb::ExplainCode::HostAway, message, remedy)
            }
            Verdict::NoHost { step: at } => {
                let asked = match self.reveal {
                    true => format!(" ({})", sequence.steps[at - 1].hosts),
                    false => String::new(),
                };
                let message = format!("no host of the fleet matches {}{asked}", step(*at));
                told(pb::ExplainCode::NoHost, message, "correct the step's hosts, or the hosts' labels")
            }
            // The others are told by their own.
            _ => told(pb::ExplainCode::Unspecified, String::new(), ""),
        }
    }

    fn incomplete(
        &self,
        door: &Door,
        (done, total): (usize, usize),
        later: Option<usize>,
        deadline: Option<Timestamp>,
        doubtful: &[HostName],
    ) -> Told {
        let Knock::Sequence(sequence) = door.knock();
        let next = done + 1;
        let so_far = match done {
            0 => String::new(),
            1 => "step 1 was right; ".to_owned(),
            done => format!("steps 1 to {done} were right; "),
        };
        let mut message = format!("{so_far}step {next} of {total} was not seen");
        if let Some(later) = later {
            message.push_str(&format!(", though step {later} was"));
        }
        match deadline.filter(|_| done > 0) {
            Some(deadline) if deadline > self.now => {
                message.push_str(&format!("; {} are left", seconds(deadline.since(self.now))));
            }
            Some(_) => message.push_str(&format!("; the {} for it are over", time_text(sequence.within))),
            None => {}
        }
        let mut remedy = match (self.reveal, sequence.steps.get(done)) {
            (true, Some(step)) => format!("knock {} on {}", step.port, step.hosts),
            _ => format!("knock step {next} too"),
        };
        if deadline.is_some_and(|deadline| deadline <= self.now) || done == 0 {
            remedy.push_str(", beginning with step 1");
        }
        if later.is_some() {
            remedy.push_str("; if you did, the packet was lost or dropped on its way");
        }
        if !doubtful.is_empty() && self.reveal {
            remedy.push_str(&format!("; not on {}, where it cannot be seen now", names(doubtful)));
        }
        told(pb::ExplainCode::Incomplete, message, remedy)
    }

    /// `, on db-1`, for those who may know it.
    fn hosts(&self, hosts: &[HostName]) -> String {
        if self.reveal { format!(": {}", names(hosts)) } else { String::new() }
    }

    /// `on web-1 0.8 s ago`, which the source knows: it knocked there.
    fn on(&self, knock: ObservationId) -> String {
        self.knocks
            .get(&knock)
            .map_or_else(|| "on another host".to_owned(), |knock| format!("on {}", knock.said.host))
    }

    /// `tcp/9999 on web-1`; without the port when it is a step's.
    fn at(&self, knock: ObservationId) -> String {
        let Some(known) = self.knocks.get(&knock) else { return "elsewhere".to_owned() };
        let port = known.seen.observation.port;
        match self.reveal || !self.secret.contains(&port) {
            true => format!("{port} on {}", known.said.host),
            false => format!("on {}", known.said.host),
        }
    }
}

fn names(hosts: &[HostName]) -> String {
    listed(&hosts.iter().map(HostName::as_str).collect::<Vec<_>>())
}

/// The first of these names, and how many more there are.
pub(super) fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `3.2 s`, or milliseconds below a second.
pub(super) fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        0 => format!("{} us", duration.as_micros()),
        millis @ 1..1_000 => format!("{millis} ms"),
        millis => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
    }
}
