//! The latest attempt of a source at a door, and what went wrong with it.
//!
//! The steps are looked for in order, without asking for `within` and whatever lies between: the longest such chain is
//! what the person meant. What the matcher has against it is the verdict.

use std::{cmp::Reverse, time::Duration};

use crate::{door::Sequence, host::HostName, knock::Observation, time::Timestamp};

use super::{Complete, Host, Outcome, Question, Seen, Verdict};

/// Knocks further apart than this, and than twice the door's `within`, belong to different attempts.
const APART: Duration = Duration::from_secs(30);

/// An attempt that failed, or is under way.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) verdict: Verdict,
    /// Accepted steps.
    pub(super) done: usize,
    /// When its last knock that concerns the door was captured.
    pub(super) last: Timestamp,
}

/// What keeps a step from being seen on every host where it may be knocked.
pub(super) enum Obstacle {
    NoHost,
    Away(Vec<HostName>),
    InUse(Vec<HostName>),
}

impl Obstacle {
    pub(super) fn verdict(self, step: usize) -> Verdict {
        match self {
            Self::NoHost => Verdict::NoHost { step },
            Self::Away(hosts) => Verdict::HostAway { step, hosts },
            Self::InUse(hosts) => Verdict::PortInUse { step, hosts },
        }
    }
}

/// What keeps a step (from 0) from being seen, if it can be seen nowhere.
pub(super) fn obstacle(question: &Question<'_>, sequence: &Sequence, step: usize) -> Option<Obstacle> {
    let hosts = chosen(question, sequence, step);
    if hosts.is_empty() {
        return Some(Obstacle::NoHost);
    }
    let port = sequence.steps[step].port;
    if hosts.iter().any(|host| host.connected && !host.uses(port)) {
        return None;
    }
    let names = |keep: &dyn Fn(&&&Host<'_>) -> bool| -> Vec<HostName> {
        hosts.iter().filter(keep).map(|host| host.name.clone()).collect()
    };
    let in_use = names(&|host| host.connected);
    Some(if in_use.is_empty() { Obstacle::Away(names(&|_| true)) } else { Obstacle::InUse(in_use) })
}

/// Hosts of a step on which it would not be seen.
fn doubtful(question: &Question<'_>, sequence: &Sequence, step: usize) -> Vec<HostName> {
    let port = sequence.steps[step].port;
    let hosts = chosen(question, sequence, step);
    hosts.iter().filter(|host| !host.connected || host.uses(port)).map(|host| host.name.clone()).collect()
}

fn chosen<'a>(question: &'a Question<'_>, sequence: &Sequence, step: usize) -> Vec<&'a Host<'a>> {
    let selector = &sequence.steps[step].hosts;
    question.hosts.iter().filter(|host| host.is_chosen(selector)).collect()
}

/// The knocks of one attempt, in the order of their times.
struct Burst<'a> {
    question: &'a Question<'a>,
    sequence: &'a Sequence,
    knocks: Vec<&'a Seen>,
}

/// The latest attempt after the last complete knock, if there is one.
pub(super) fn latest(
    question: &Question<'_>,
    sequence: &Sequence,
    complete: Option<&Complete>,
) -> Option<Attempt> {
    let mut knocks: Vec<&Seen> = Vec::new();
    for seen in question.knocks {
        let copies = |other: &&Seen| copies(&seen.observation, &other.observation);
        if complete.is_none_or(|complete| before(&complete.end, &seen.observation))
            && !question.knocks.iter().any(|other| copies(&other) && is_earlier(other, seen))
        {
            knocks.push(seen);
        }
    }
    knocks.sort_by_key(|seen| (seen.observation.time, seen.observation.id));
    let burst = Burst { question, sequence, knocks }.cut()?;
    Some(burst.judge())
}

/// Whether this is the packet of the other, sent again.
fn copies(packet: &Observation, other: &Observation) -> bool {
    packet.fingerprint != 0
        && (packet.fingerprint, packet.id.host, packet.port) == (other.fingerprint, other.id.host, other.port)
}

fn is_earlier(other: &Seen, seen: &Seen) -> bool {
    place(&other.observation) < place(&seen.observation)
}

fn place(knock: &Observation) -> (u32, u64) {
    (knock.id.boot, knock.id.counter)
}

/// Whether the one was certainly before the other, as the matcher means it.
fn before(one: &Observation, other: &Observation) -> bool {
    if one.id.host == other.id.host {
        return place(one) < place(other);
    }
    one.time + one.uncertainty < other.time.before(other.uncertainty)
}

impl<'a> Burst<'a> {
    fn matches(&self, step: usize, knock: &Observation) -> bool {
        let step = &self.sequence.steps[step];
        let host = || self.question.hosts.iter().find(|host| host.id == knock.id.host);
        step.port == knock.port
            && (step.hosts.is_any() || host().is_some_and(|host| host.is_chosen(&step.hosts)))
    }

    fn total(&self) -> usize {
        self.sequence.steps.len()
    }

    fn concerns(&self, knock: &Observation) -> bool {
        self.sequence.steps.iter().any(|step| step.port == knock.port)
    }

    /// The knocks around the last one that concerns the door, if one does.
    fn cut(mut self) -> Option<Self> {
        let last = self.knocks.iter().rposition(|seen| self.concerns(&seen.observation))?;
        let apart = APART.max(self.sequence.within.saturating_mul(2));
        let near = |pair: &[&Seen]| pair[1].observation.time.since(pair[0].observation.time) <= apart;
        let begin = (0..last).rev().find(|&at| !near(&self.knocks[at..=at + 1])).map_or(0, |at| at + 1);
        let end = (last + 1..self.knocks.len()).find(|&at| !near(&self.knocks[at - 1..=at]));
        self.knocks.truncate(end.unwrap_or(self.knocks.len()));
        self.knocks.drain(..begin);
        Some(self)
    }

    fn judge(mut self) -> Attempt {
        let concerning = self.knocks.iter().filter(|seen| self.concerns(&seen.observation));
        let last = concerning.map(|seen| seen.observation.time).max().unwrap_or(Timestamp::ZERO);
        if let Some(seen) = self.knocks.last()
            && seen.outcome == Outcome::Banned
        {
            return Attempt { verdict: Verdict::Banned { until: None }, done: 0, last };
        }
        self.knocks.retain(|seen| seen.outcome.is_followed());
        let mut chain = self.longest(&self.knocks);
        // Who failed and began anew asks about the new attempt.
        while let Some(end) = chain.last().copied() {
            let rest: Vec<_> =
                self.knocks.iter().copied().filter(|seen| before(end, &seen.observation)).collect();
            let anew = self.longest(&rest);
            let Some(first) = anew.first() else { break };
            if !self.has_failed(&chain, first) && self.repeats(&chain, first) {
                break;
            }
            (self.knocks, chain) = (rest, anew);
        }
        let (verdict, done) = self.verdict(&chain);
        Attempt { verdict, done, last }
    }

    /// Whether nothing could come of the chain any more when that knock came.
    fn has_failed(&self, chain: &[&Observation], next: &Observation) -> bool {
        chain.len() == self.total()
            || self.slow(chain).is_some()
            || self.wrong(chain).is_some_and(|(wrong, _)| !before(next, wrong))
    }

    /// The longest chain of steps in order, the latest of those; `within` and wrong knocks aside.
    fn longest(&self, knocks: &[&'a Seen]) -> Vec<&'a Observation> {
        (1..=self.total()).rev().find_map(|length| self.chain(knocks, length)).unwrap_or_default()
    }

    /// The latest chain of that many steps. From its end backwards, the latest knock that may stand before the next.
    fn chain(&self, knocks: &[&'a Seen], length: usize) -> Option<Vec<&'a Observation>> {
        let mut ends: Vec<_> = knocks.iter().map(|seen| &seen.observation).collect();
        ends.retain(|knock| self.matches(length - 1, knock));
        ends.into_iter().rev().find_map(|end| {
            let mut chain = vec![end];
            for step in (0..length - 1).rev() {
                let next = knocks.iter().map(|seen| &seen.observation).filter(|knock| {
                    self.matches(step, knock)
                        && chain.iter().all(|later| later.id != knock.id && !before(later, knock))
                });
                chain.push(next.max_by_key(|knock| (knock.time, knock.id))?);
            }
            chain.reverse();
            Some(chain)
        })
    }

    /// Whether the knock repeats a step of the chain.
    fn repeats(&self, chain: &[&Observation], knock: &Observation) -> bool {
        (0..chain.len()).any(|step| self.matches(step, knock) && !before(knock, chain[step]))
    }

    fn verdict(&self, chain: &[&Observation]) -> (Verdict, usize) {
        let (done, total) = (chain.len(), self.total());
        let seen = |step: usize| self.knocks.iter().find(|seen| self.matches(step, &seen.observation));
        if done < total
            && seen(done).is_none()
            && let Some(obstacle) = obstacle(self.question, self.sequence, done)
        {
            return (obstacle.verdict(done + 1), done);
        }
        if let Some((wrong, after)) = self.wrong(chain) {
            return (self.blame(chain, wrong, after), done.min(after));
        }
        if let Some(slow) = self.slow(chain) {
            return (slow, done);
        }
        if done < total && seen(done).is_some() && done > 0 {
            return (Verdict::WrongOrder { early: done + 1, before: done }, done);
        }
        let deadline = chain.first().map(|first| first.time + self.sequence.within);
        let missing = done.min(total - 1);
        let doubtful = doubtful(self.question, self.sequence, missing);
        (Verdict::Incomplete { done: missing, later: None, deadline, doubtful }, missing)
    }

    /// The first wrong knock of the chain, and how many steps came before it.
    fn wrong(&self, chain: &[&Observation]) -> Option<(&'a Observation, usize)> {
        let whole = chain.len() == self.total();
        let all = self.knocks.iter().map(|seen| &seen.observation);
        let wrong = all.filter(|knock| {
            let stands = chain.iter().any(|step| step.id == knock.id) || self.repeats(chain, knock);
            let earlier = chain.first().is_some_and(|first| before(knock, first));
            let later = whole && chain.last().is_some_and(|last| before(last, knock));
            // Without a single step, only what concerns the door can tell anything.
            let unrelated = chain.is_empty() && !self.concerns(knock);
            !(stands || earlier || later || unrelated)
        });
        let wrong = wrong.min_by_key(|knock| (knock.time, Reverse(knock.id)))?;
        let after = chain.iter().filter(|step| !before(wrong, step) && step.time <= wrong.time).count();
        // It may have come before the first, for all that is known, and then would be none.
        Some((wrong, after.max(1).min(chain.len())))
    }

    /// What a wrong knock after that many right ones says.
    fn blame(&self, chain: &[&Observation], wrong: &Observation, after: usize) -> Verdict {
        let (done, total) = (chain.len(), self.total());
        let steps = &self.sequence.steps;
        let later = (done..total).find(|&step| self.matches(step, wrong));
        let needed_seen = |step: usize| self.knocks.iter().any(|seen| self.matches(step, &seen.observation));
        if let Some(later) = later {
            if later == done && done > 0 {
                // It came, but before the step that must precede it.
                return Verdict::WrongOrder { early: later + 1, before: (after + 1).min(done) };
            }
            let precedes = |seen: &&Seen| chain.last().is_some_and(|last| before(&seen.observation, last));
            if self
                .knocks
                .iter()
                .copied()
                .filter(|seen| self.matches(done, &seen.observation))
                .any(|seen| precedes(&seen))
            {
                return Verdict::WrongOrder { early: done + 1, before: done };
            }
            if let Some(missed) = (done..later).find(|&step| needed_seen(step)) {
                return Verdict::WrongOrder { early: later + 1, before: missed + 1 };
            }
            // Of what was knocked on another host, the host is told.
            let elsewhere = self.knocks.iter().find(|seen| {
                seen.observation.port == steps[done].port && !self.matches(done, &seen.observation)
            });
            if let Some(elsewhere) = elsewhere {
                return Verdict::WrongHost { step: done + 1, knock: elsewhere.observation.id };
            }
            let deadline = chain.first().map(|first| first.time + self.sequence.within);
            let doubtful = doubtful(self.question, self.sequence, done);
            return Verdict::Incomplete { done, later: Some(later + 1), deadline, doubtful };
        }
        let hit = (after..total).find(|&step| steps[step].port == wrong.port && !self.matches(step, wrong));
        match hit {
            Some(step) if step == after || done == 0 => {
                Verdict::WrongHost { step: step + 1, knock: wrong.id }
            }
            _ if chain.is_empty() => Verdict::NoStep { knocks: self.question.knocks.len() },
            _ => Verdict::WrongKnock { after, knock: wrong.id },
        }
    }

    /// Whether the chain took longer than the door waits.
    fn slow(&self, chain: &[&Observation]) -> Option<Verdict> {
        let first = chain.iter().map(|step| step.time).min()?;
        let last = chain.iter().map(|step| step.time).max()?;
        let took = last.since(first);
        let late = took.checked_sub(self.sequence.within).filter(|late| !late.is_zero())?;
        let step = chain.iter().position(|step| step.time.since(first) > self.sequence.within)?;
        let knock = chain.iter().find(|step| step.time == last)?.id;
        Some(Verdict::TooSlow { step: step + 1, late, took, knock })
    }
}
