//! Who follows which source, and where a knock goes from here.
//!
//! Pure. The *owner* of a source is the first of the members in an order that is the source's own: rendezvous hashing
//! (Thaler and Ravishankar, 1998), by which a member that leaves moves only the sources that it owned, and those to the
//! next in their order.
//!
//! ```text
//!   from an own agent      owner is here, or up ────────────────▶ there
//!   (0 hops)               owner is dead ───────────────────────▶ the next in the order takes its place
//!                          owner is cut off from here ──────────▶ the first other that is up relays (1 hop)
//!   relayed (1 hop)        owner is here, or up ────────────────▶ there
//!                          cut off from here as well ───────────▶ the first in the order that is here or up
//!   (2 hops)               ─────────────────────────────────────▶ here
//! ```
//!
//! Routing brings one source's knocks together; it never decides whether something opens. When controllers disagree
//! about who is alive, a knock may be followed at two places: the store's transaction keeps that to one opening.

use std::hash::Hasher as _;

use fleetknock_core::{host::HostName, source::Source};
use siphasher::sip::SipHasher24;

use crate::store::Revision;

/// Members that may own sources; those beyond, by name, own none.
pub const MEMBERS_MAX: usize = 64;

/// After so many hops a knock is judged where it is.
pub const HOPS_MAX: u32 = 2;

/// How a peer can be reached from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Not dialled to an end yet.
    #[default]
    Connecting,
    /// It does not answer: it is cut off, or frozen, or slow.
    Cut,
    /// Its address refuses connections, or somebody else answers there: its process is gone.
    Dead,
    /// It takes knocks.
    Up,
}

/// Where a knock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// It is judged here.
    Here,
    /// It is forwarded to this peer.
    To(&'a HostName),
}

/// The members as seen from one controller.
#[derive(Clone, Debug)]
pub struct Router {
    me: HostName,
    members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: HostName,
    epoch: Revision,
    /// `None`: this controller itself.
    link: Option<Link>,
}

impl Router {
    /// Knows nobody yet: everything is judged here.
    pub fn new(me: HostName) -> Self {
        Self { me, members: Vec::new() }
    }

    /// Takes in who is a member now. A member whose epoch changed begins anew. Says whether any source may have moved.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = (HostName, Revision)>) -> bool {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort();
        members.truncate(MEMBERS_MAX);
        let fresh: Vec<_> = members
            .into_iter()
            .map(|(name, epoch)| {
                let known = self.members.iter().find(|known| known.name == name && known.epoch == epoch);
                let link = (name != self.me).then(|| known.and_then(|known| known.link).unwrap_or_default());
                Member { name, epoch, link }
            })
            .collect();
        let moved = fresh != self.members;
        self.members = fresh;
        moved
    }

    /// Takes in how a peer can be reached now, if it still is the member of that epoch. Says whether any source may have
    /// moved.
    pub fn set_link(&mut self, name: &HostName, epoch: Revision, link: Link) -> bool {
        let peer = self.members.iter_mut().find(|member| member.name == *name && member.epoch == epoch);
        match peer.and_then(|member| member.link.as_mut()) {
            Some(before) if *before != link => {
                // From being dialled to being out of reach nothing goes anywhere else.
                let moved = !matches!((*before, link), (Link::Connecting, Link::Cut));
                *before = link;
                moved
            }
            _ => false,
        }
    }

    /// How a peer can be reached now; nothing for one that is no member.
    pub fn link(&self, name: &HostName) -> Option<Link> {
        self.members.iter().find(|member| member.name == *name)?.link
    }

    /// Whether this controller is one of the members.
    pub fn is_member(&self) -> bool {
        self.members.iter().any(|member| member.link.is_none())
    }

    /// Whether nobody else is a member.
    pub fn is_alone(&self) -> bool {
        self.members.iter().all(|member| member.link.is_none())
    }

    /// The owner of a source by membership alone; nothing when nobody is a member.
    pub fn owner(&self, source: Source) -> Option<&HostName> {
        self.members.iter().max_by_key(|member| weight(member, source)).map(|member| &member.name)
    }

    /// Whether this controller follows a source, as far as it knows who is alive.
    pub fn is_here(&self, source: Source) -> bool {
        match self.order(source).find(|member| member.link != Some(Link::Dead)) {
            Some(first) => first.link.is_none(),
            None => true,
        }
    }

    /// Where a knock of this source goes that was forwarded that often.
    pub fn route(&self, source: Source, hops: u32) -> Route<'_> {
        if hops >= HOPS_MAX || self.is_alone() {
            return Route::Here;
        }
        let mut alive = self.order(source).filter(|member| member.link != Some(Link::Dead));
        let Some(first) = alive.next() else {
            return Route::Here;
        };
        let chosen = match first.link {
            None => return Route::Here,
            Some(Link::Up) => Some(first),
            // A relay may reach the owner. It must be another one: judging here at once would split the source's knocks
            // between here and the owner.
            Some(_) if hops == 0 => alive.find(|member| member.link == Some(Link::Up)),
            // Nobody on the way reaches the owner. All relays choose the same one in its place.
            Some(_) => alive.find(|member| matches!(member.link, None | Some(Link::Up))),
        };
        match chosen {
            Some(Member { link: Some(_), name, .. }) => Route::To(name),
            _ => Route::Here,
        }
    }

    /// The members in the order of a source, the owner first.
    fn order(&self, source: Source) -> impl Iterator<Item = &Member> {
        let mut order: Vec<_> = self.members.iter().map(|member| (weight(member, source), member)).collect();
        order.sort_unstable_by(|(a, member), (b, other)| b.cmp(a).then_with(|| member.name.cmp(&other.name)));
        order.into_iter().map(|(_, member)| member)
    }
}

/// The same in every version and on every machine: SipHash-2-4 with a fixed key of the name, a zero byte and the
/// source's 16 octets. The name breaks ties.
fn weight(member: &Member, source: Source) -> (u64, std::cmp::Reverse<&HostName>) {
    let mut hasher = SipHasher24::new_with_keys(0x666c_6565_746b_6e6f, 0x636b_2d6f_776e_6572);
    hasher.write(member.name.as_str().as_bytes());
    hasher.write(&[0]);
    hasher.write(&source.octets());
    (hasher.finish(), std::cmp::Reverse(&member.name))
}

#[cfg(test)]
mod tests;
