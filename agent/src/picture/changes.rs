//! What the firewall has to do after a message of the controller, in the order in which it is to be done.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use fleetknock_core::source::Source;

use super::{OpeningId, Picture};
use crate::firewall::{Element, Guard};

/// What the firewall has to do, from top to bottom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The guard, when it changed.
    pub guard: Option<Guard>,
    /// Elements that no opening needs any more.
    pub close: Vec<Element>,
    /// Whose established connections are cut.
    pub cut: Vec<Element>,
    /// Bans that are taken back.
    pub unban: Vec<Source>,
    /// Bans, and how much longer.
    pub ban: Vec<(Source, Duration)>,
    /// Elements that stay for less long than before, because the opening that needed them longest was withdrawn.
    pub shorten: Vec<(Element, Duration)>,
    /// Openings, with their elements and how much longer each is needed by any opening.
    pub open: Vec<Opened>,
    /// Openings that cannot be held.
    pub refused: Vec<Refused>,
    /// Bans beyond the limit.
    pub bans_left_out: usize,
}

/// One opening that the kernel shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its id.
    pub id: OpeningId,
    /// Of the order.
    pub generation: u64,
    /// What to add to the kernel's sets.
    pub elements: Vec<(Element, Duration)>,
}

/// An opening that cannot be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its id.
    pub id: OpeningId,
    /// Of the order.
    pub generation: u64,
    /// Why, for people.
    pub reason: String,
}

impl Changes {
    /// Whether the kernel is left as it is.
    pub fn is_empty(&self) -> bool {
        self.guard.is_none()
            && self.close.is_empty()
            && self.cut.is_empty()
            && self.unban.is_empty()
            && self.ban.is_empty()
            && self.shorten.is_empty()
            && self.open.is_empty()
    }
}

/// What a message touched, gathered while it is taken in.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) guard: bool,
    pub(super) touched: HashSet<Element>,
    pub(super) cut: BTreeSet<Element>,
    pub(super) unbanned: BTreeSet<Source>,
    pub(super) banned: BTreeMap<Source, Instant>,
    pub(super) refused: Vec<Refused>,
    pub(super) bans_left_out: usize,
    ordered: Vec<(OpeningId, u64, bool)>,
}

impl Work {
    pub(super) fn ordered(&mut self, id: &OpeningId, generation: u64, news: bool) {
        self.ordered.push((id.clone(), generation, news));
    }

    pub(super) fn finish(mut self, picture: &Picture, now: Instant, only_news: bool) -> Changes {
        let mut open = Vec::with_capacity(self.ordered.len());
        for (id, generation, news) in self.ordered {
            if only_news && !news {
                continue;
            }
            let Some(held) = picture.openings.get(&id) else {
                continue;
            };
            let mut elements = Vec::with_capacity(held.ports.len());
            for element in held.elements() {
                if let Some(deadline) = picture.deadline(element, now) {
                    self.touched.remove(&element);
                    elements.push((element, deadline.duration_since(now)));
                }
            }
            open.push(Opened { id, generation, elements });
        }
        let (mut close, mut shorten) = (Vec::new(), Vec::new());
        for element in self.touched {
            match picture.deadline(element, now) {
                Some(deadline) => shorten.push((element, deadline.duration_since(now))),
                None => close.push(element),
            }
        }
        close.sort_unstable();
        shorten.sort_unstable();
        self.unbanned.retain(|source| !self.banned.contains_key(source));
        let remaining = |(source, deadline): (Source, Instant)| (source, deadline.duration_since(now));
        Changes {
            guard: self.guard.then(|| picture.guard()),
            close,
            cut: self.cut.into_iter().collect(),
            unban: self.unbanned.into_iter().collect(),
            ban: self.banned.into_iter().map(remaining).collect(),
            shorten,
            open,
            refused: self.refused,
            bans_left_out: self.bans_left_out,
        }
    }
}
