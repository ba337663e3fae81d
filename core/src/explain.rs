//! Why a source's knock opened a door, or did not.
//!
//! Pure: what controllers remember of a source's knocks, the door, the hosts, the ban and the opening go in; a
//! [`Verdict`] with its numbers comes out. Whether a knock was complete is never decided here: the [matcher]
//! itself is asked again, with the same knocks in the same order. What is left, the knocks after the last complete one,
//! is looked at by `attempt`, which tells what went wrong with the latest attempt.
//!
//! Of several things that hold, the one is told that must be mended first: what is open; that nothing is kept closed;
//! a ban; that the source may not knock at all; that a complete knock could not be answered; what keeps the next needed
//! step from being seen; then what the person did.

use std::time::Duration;

use crate::{
    door::{Door, Knock, Mode, Sequence},
    host::{HostId, HostName, HostSelector, Labels},
    knock::{Observation, ObservationId},
    matcher::{self, Decision, Limits, Matcher},
    port::{Port, PortRange},
    source::Source,
    time::Timestamp,
};

use self::attempt::Attempt;

mod attempt;

#[cfg(test)]
mod tests;

/// What a knock was when it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was known already. Never remembered.
    Known,
    /// Its source was banned.
    Banned,
    /// There was no room for another source.
    NoRoom,
    /// An echo request of a length that no door uses.
    Ping,
    /// It lay in the future.
    Future,
    /// It was older than anybody waits for.
    TooLate,
    /// Neither progress nor a repeat.
    Miss,
    /// A packet, or an accepted step, again.
    Repeat,
    /// A later step; those before might yet be reported.
    Waiting,
    /// The next step.
    Step,
    /// The last one.
    Completed,
    /// The last one, and the door could not be opened.
    Refused,
}

impl Outcome {
    /// Whether the matcher took it in.
    pub fn is_followed(self) -> bool {
        self >= Self::Miss
    }

    /// Whether it completed a door.
    pub fn is_complete(self) -> bool {
        self >= Self::Completed
    }
}

/// A knock as it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What was seen, in the fleet's time.
    pub observation: Observation,
    /// When it was judged.
    pub judged: Timestamp,
    /// What it was, at whichever door it got furthest.
    pub outcome: Outcome,
}

/// A host of the fleet as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// By which knocks name it.
    pub id: HostId,
    /// Its name.
    pub name: &'a HostName,
    /// Its labels.
    pub labels: &'a Labels,
    /// Whether its agent is connected to some controller, or may be.
    pub connected: bool,
    /// Ports of the knock space on which its own services wait, so that nothing sent there is a knock.
    pub in_use: &'a [PortRange],
}

impl Host<'_> {
    fn is_chosen(&self, selector: &HostSelector) -> bool {
        selector.matches(self.name, self.labels)
    }

    fn uses(&self, port: Port) -> bool {
        self.in_use.iter().any(|range| range.contains(port))
    }
}

/// A complete knock at the door that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The knock that completed it.
    pub end: ObservationId,
    /// Why, for people.
    pub reason: String,
    /// It is tried again for a while yet.
    pub waits: bool,
}

/// What a host says of an opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnHost {
    /// It is in the kernel.
    Applied,
    /// The firewall did not take it, and why.
    Failed(String),
    /// The host has said nothing yet.
    Pending,
}

/// How an opening stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds, on these hosts.
    Active(Vec<(HostName, OnHost)>),
    /// Its time is over.
    Expired,
    /// It was taken back, and why.
    Withdrawn(String),
}

/// The latest opening of the door for the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its id.
    pub id: String,
    /// When it was last granted.
    pub granted: Timestamp,
    /// When its time is over, or it was taken back.
    pub ends: Timestamp,
    /// How it stands.
    pub standing: Standing,
}

/// All that is asked about one door.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The door.
    pub door: &'a Door,
    /// Every host of the fleet.
    pub hosts: &'a [Host<'a>],
    /// Who knocked.
    pub source: Source,
    /// What it knocked, in the order in which it was judged, each knock once.
    pub knocks: &'a [Seen],
    /// Until when it is banned.
    pub ban: Option<Timestamp>,
    /// The latest opening, if its record is kept.
    pub opening: Option<Opening>,
    /// Complete knocks of the source at this door that were not answered.
    pub refusals: &'a [Refusal],
    /// The fleet's time.
    pub now: Timestamp,
}

/// Something that keeps a step from being seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is open until then, and every host says so.
    Open {
        /// When it ends.
        until: Timestamp,
    },
    /// It is granted, and these hosts have not said that it is open.
    OpenInPart {
        /// Which.
        pending: Vec<HostName>,
        /// On how many it is open.
        open_on: usize,
    },
    /// It is granted, and the firewall of a host did not take it.
    FirewallFailed {
        /// Which host, and why.
        failed: Vec<(HostName, String)>,
    },
    /// It is granted, and hosts that it opens are not connected.
    TargetAway {
        /// Which.
        hosts: Vec<HostName>,
    },
    /// It is granted, and no host matches what the door opens.
    NoTarget,
    /// It was open; its time was over then.
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It was open; it was taken back then.
    Withdrawn {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// The source is banned, or was when it knocked.
    Banned {
        /// Until when; `None`: the ban is over.
        until: Option<Timestamp>,
    },
    /// The source lies outside the door's networks.
    NotAdmitted,
    /// Nothing was seen of the source.
    NothingSeen,
    /// Knocks were seen, none of them at a step of this door.
    NoStep {
        /// How many.
        knocks: usize,
    },
    /// So far all was right, and the next step has not been seen.
    Incomplete {
        /// Accepted steps.
        done: usize,
        /// A later step that was seen all the same, from 1.
        later: Option<usize>,
        /// By when the last knock had to be sent.
        deadline: Option<Timestamp>,
        /// Hosts among those of the next step on which it would not be seen.
        doubtful: Vec<HostName>,
    },
    /// A wrong knock came after that many right ones.
    WrongKnock {
        /// Right ones before it.
        after: usize,
        /// Which.
        knock: ObservationId,
    },
    /// A step came before one that precedes it.
    WrongOrder {
        /// The step that came too early, from 1.
        early: usize,
        /// The step that it came before.
        before: usize,
    },
    /// A step's port, at a host that the step does not choose.
    WrongHost {
        /// Which step, from 1.
        step: usize,
        /// Where.
        knock: ObservationId,
    },
    /// Right, and too slow.
    TooSlow {
        /// The first step that came too late, from 1.
        step: usize,
        /// By how much the last of them did.
        late: Duration,
        /// How long it took in all.
        took: Duration,
        /// The last of them.
        knock: ObservationId,
    },
    /// A local service has the step's port wherever it may be knocked.
    PortInUse {
        /// Which step, from 1.
        step: usize,
        /// On which hosts.
        hosts: Vec<HostName>,
    },
    /// No host that the step chooses can see it.
    HostAway {
        /// Which step, from 1.
        step: usize,
        /// Hosts that are not connected.
        hosts: Vec<HostName>,
    },
    /// No host matches the step's selector.
    NoHost {
        /// Which step, from 1.
        step: usize,
    },
    /// The knock was complete, and could not be answered.
    Refused {
        /// Why, for people.
        reason: String,
        /// It is tried again for a while yet.
        waits: bool,
    },
    /// The door keeps nothing closed; this is what would hold otherwise.
    Observes(Box<Verdict>),
}

/// A verdict, and how far the latest attempt got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What is the matter.
    pub verdict: Verdict,
    /// Accepted steps of the latest attempt.
    pub done: usize,
    /// The door's steps.
    pub total: usize,
}

/// Explains one door.
pub fn explain(question: &Question<'_>) -> Explained {
    let Knock::Sequence(sequence) = question.door.knock();
    let total = sequence.steps.len();
    let completions = completions(question);
    let attempt = attempt::latest(question, sequence, completions.last());
    let opening = question.opening.as_ref();
    if let Some((opening, hosts)) = opening.and_then(|opening| match &opening.standing {
        Standing::Active(hosts) => Some((opening, hosts)),
        _ => None,
    }) {
        return Explained { verdict: granted(question, opening, hosts), done: total, total };
    }
    let verdict = closed(question, sequence, &completions, attempt.as_ref());
    let done = match (&verdict, &attempt) {
        (Verdict::Expired { .. } | Verdict::Withdrawn { .. } | Verdict::Refused { .. }, _) => total,
        (_, Some(attempt)) => attempt.done,
        (_, None) => 0,
    };
    let verdict = match question.door.mode() {
        Mode::Observe => Verdict::Observes(Box::new(verdict)),
        Mode::Enforce => verdict,
    };
    Explained { verdict, done, total }
}

/// A complete knock.
#[derive(Clone, Copy, Debug)]
struct Complete {
    end: Observation,
    /// Those who judged it say so too.
    judged: bool,
}

/// The complete knocks, in the order of their times: those that the matcher finds when it is shown the knocks
/// again, and those that were found when they came.
fn completions(question: &Question<'_>) -> Vec<Complete> {
    let config = matcher::Config {
        limits: Limits { sources: 1, ..Limits::default() },
        bans: None,
        ..matcher::Config::default()
    };
    let mut matcher = Matcher::new(config, 0);
    matcher.set_doors([question.door]);
    matcher.set_hosts(question.hosts.iter().map(|host| (host.id, host.name, host.labels)));
    let mut decisions = Vec::new();
    let mut found = Vec::new();
    for seen in question.knocks.iter().filter(|seen| seen.outcome.is_followed()) {
        matcher.observe(&seen.observation, seen.judged, &mut decisions);
        let again = decisions.drain(..).find_map(|decision| match decision {
            Decision::Complete(completion) => Some(completion.end),
            Decision::Ban { .. } | Decision::Failed(_) => None,
        });
        let refused = question.refusals.iter().any(|refusal| refusal.end == seen.observation.id);
        let end = again.unwrap_or(seen.observation.id);
        if (again.is_some() || refused)
            && let Some(end) = question.knocks.iter().find(|seen| seen.observation.id == end)
        {
            found.push(Complete { end: end.observation, judged: refused || seen.outcome.is_complete() });
        }
    }
    found.sort_by_key(|complete| (complete.end.time, complete.end.id));
    found
}

/// Of a door that is open for the source.
fn granted(question: &Question<'_>, opening: &Opening, hosts: &[(HostName, OnHost)]) -> Verdict {
    if hosts.is_empty() {
        return Verdict::NoTarget;
    }
    let failed: Vec<_> = hosts
        .iter()
        .filter_map(|(host, on)| match on {
            OnHost::Failed(reason) => Some((host.clone(), reason.clone())),
            _ => None,
        })
        .collect();
    if !failed.is_empty() {
        return Verdict::FirewallFailed { failed };
    }
    let pending: Vec<_> =
        hosts.iter().filter(|(_, on)| *on == OnHost::Pending).map(|(host, _)| host.clone()).collect();
    let away = |host: &&HostName| question.hosts.iter().any(|known| known.name == *host && !known.connected);
    let away: Vec<_> = pending.iter().filter(away).cloned().collect();
    match (pending.is_empty(), away.is_empty()) {
        (true, _) => Verdict::Open { until: opening.ends },
        (false, false) => Verdict::TargetAway { hosts: away },
        (false, true) => Verdict::OpenInPart { open_on: hosts.len() - pending.len(), pending },
    }
}

/// Of a door that is not open for the source.
fn closed(
    question: &Question<'_>,
    sequence: &Sequence,
    completions: &[Complete],
    attempt: Option<&Attempt>,
) -> Verdict {
    if let Some(until) = question.ban.filter(|until| *until > question.now) {
        return Verdict::Banned { until: Some(until) };
    }
    if !question.door.admits(question.source) {
        return Verdict::NotAdmitted;
    }
    let ended = question.opening.as_ref();
    if let Some(attempt) = attempt
        && ended.is_none_or(|opening| opening.granted < attempt.last)
    {
        return attempt.verdict.clone();
    }
    let last = completions.last();
    let answered = |complete: &Complete| {
        ended.is_some_and(|opening| opening.granted + opening_slack(complete) >= complete.end.time)
    };
    if let Some(complete) = last.filter(|complete| !answered(complete)) {
        return unanswered(question, complete);
    }
    if let Some(opening) = ended {
        return match &opening.standing {
            Standing::Withdrawn(reason) => Verdict::Withdrawn { at: opening.ends, reason: reason.clone() },
            _ => Verdict::Expired { at: opening.ends },
        };
    }
    if let Some((step, obstacle)) = (0..sequence.steps.len()).find_map(|step| {
        let obstacle = attempt::obstacle(question, sequence, step)?;
        Some((step, obstacle))
    }) {
        return obstacle.verdict(step + 1);
    }
    match question.knocks.len() {
        0 => Verdict::NothingSeen,
        knocks => Verdict::NoStep { knocks },
    }
}

/// Clocks of hosts and controllers agree to no more than that.
fn opening_slack(complete: &Complete) -> Duration {
    complete.end.uncertainty + Duration::from_millis(500)
}

/// Of a complete knock that left no opening behind.
fn unanswered(question: &Question<'_>, complete: &Complete) -> Verdict {
    if let Some(refusal) = question.refusals.iter().rev().find(|refusal| refusal.end == complete.end.id) {
        return Verdict::Refused { reason: refusal.reason.clone(), waits: refusal.waits };
    }
    if !complete.judged {
        let reason = "no controller saw all of it, or the door was applied after it";
        return Verdict::Refused { reason: reason.to_owned(), waits: false };
    }
    let over = complete.end.time + question.door.opens().duration;
    if over <= question.now {
        return Verdict::Expired { at: over };
    }
    let reason = "its opening is not written yet, or was cleared away";
    Verdict::Refused { reason: reason.to_owned(), waits: true }
}
