//! What the kernel holds against what it should hold: the pure part of a reconcile.

use std::{collections::BTreeMap, time::Duration};

use fleetknock_core::{port::Protocol, source::Source};

use super::{Desired, Element};

/// Remaining times that differ by no more than this agree: ipset counts in seconds, and time passes between the dump and
/// the comparison.
const TOLERANCE: Duration = Duration::from_secs(2);

/// ipset counts milliseconds in 32 bits and so takes no longer time than this, in seconds; both drivers keep to it.
const SECONDS_MAX: u64 = 2_147_483;

/// What the kernel holds, with remaining times; `None` never ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) openings: BTreeMap<Element, Option<Duration>>,
    pub(crate) bans: BTreeMap<Source, Option<Duration>>,
}

/// What has to be changed so that the kernel holds what it should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) open: Vec<(Element, Duration)>,
    pub(crate) close: Vec<Element>,
    pub(crate) ban: Vec<(Source, Duration)>,
    pub(crate) unban: Vec<Source>,
    /// As in [`Repairs`](super::Repairs).
    pub(crate) said: Vec<String>,
}

pub(crate) fn compare(held: &Held, desired: &Desired) -> Difference {
    let mut said = Vec::new();
    let openings = desired.openings.iter().filter(|(element, _)| can_be_opened(element));
    let (open, close) = part(&held.openings, openings, "opening", &mut said);
    let (ban, unban) = part(&held.bans, desired.bans.iter(), "ban", &mut said);
    Difference { open, close, ban, unban, said }
}

fn part<'a, K: Ord + Copy + 'a>(
    held: &BTreeMap<K, Option<Duration>>,
    desired: impl Iterator<Item = (&'a K, &'a Duration)>,
    noun: &str,
    said: &mut Vec<String>,
) -> (Vec<(K, Duration)>, Vec<K>) {
    let desired: BTreeMap<K, Duration> =
        desired.filter_map(|(key, remaining)| Some((*key, bounded(*remaining)?))).collect();
    let (mut missing, mut wrong) = (0, 0);
    let mut set = Vec::new();
    for (key, wanted) in &desired {
        match held.get(key) {
            None => missing += 1,
            Some(Some(remaining)) if remaining.abs_diff(*wanted) <= TOLERANCE => continue,
            Some(_) => wrong += 1,
        }
        set.push((*key, *wanted));
    }
    let surplus: Vec<K> = held.keys().filter(|key| !desired.contains_key(key)).copied().collect();
    if missing > 0 {
        said.push(format!(
            "{} missing and {} been put back",
            count(missing, noun, "was", "were"),
            has(missing)
        ));
    }
    if wrong > 0 {
        said.push(format!("{} a wrong time left, which is mended", count(wrong, noun, "had", "had")));
    }
    if !surplus.is_empty() {
        said.push(removed(surplus.len(), noun));
    }
    (set, surplus)
}

/// How it is said that something surplus was removed.
pub(crate) fn removed(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} surplus {noun}{s} removed")
}

/// How it is said that ports of a kind differed.
pub(crate) fn ports_said(kind: &str, missing: usize, surplus: usize) -> impl Iterator<Item = String> {
    let were = if missing == 1 { "was" } else { "were" };
    let missing = (missing > 0).then(|| format!("{missing} of the {kind} ports {were} missing"));
    let surplus = (surplus > 0).then(|| removed(surplus, &format!("{kind} port")));
    missing.into_iter().chain(surplus)
}

fn count(number: usize, noun: &str, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {noun} {one}") } else { format!("{number} {noun}s {many}") }
}

fn has(number: usize) -> &'static str {
    if number == 1 { "has" } else { "have" }
}

/// Only TCP and UDP have ports to be opened.
pub(crate) fn can_be_opened(element: &Element) -> bool {
    element.port.protocol() != Protocol::Icmp
}

/// The time as kernels take it; `None` when nothing is left.
pub(crate) fn bounded(remaining: Duration) -> Option<Duration> {
    (!remaining.is_zero()).then(|| remaining.min(Duration::from_secs(SECONDS_MAX)))
}

/// Whole milliseconds, rounded up; never 0, which would mean for ever.
pub(crate) fn milliseconds(remaining: Duration) -> Option<u64> {
    let remaining = bounded(remaining)?;
    u64::try_from(remaining.as_nanos().div_ceil(1_000_000)).ok()
}

/// Whole seconds, rounded up; never 0, which would mean for ever.
pub(crate) fn seconds(remaining: Duration) -> Option<u32> {
    let remaining = bounded(remaining)?;
    u32::try_from(remaining.as_nanos().div_ceil(1_000_000_000)).ok()
}

#[cfg(test)]
mod tests;
