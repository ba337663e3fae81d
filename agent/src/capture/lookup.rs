//! Asks the kernel which socket would take a packet, with a short memory and a limit.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use fleetknock_core::port::Port;

use super::{
    counters::Counters,
    judge::{SocketLookup, Use},
    netlink::{Netlink, SocketQuery},
    packet::Packet,
};

/// For so long an answer is good: a flood at one port asks 200 times a second.
pub(super) const MEMORY: Duration = Duration::from_millis(5);

/// Answers that are remembered. When full, all are forgotten.
const ANSWERS_MAX: usize = 8_192;

/// Questions in a second. At 2 microseconds each they take a tenth of a core.
pub(super) const QUESTIONS_MAX: u32 = 50_000;

/// A port of this host, and who sends to it when that made the difference.
type Key = (Port, IpAddr, Option<(IpAddr, u16)>);

/// What the kernel said lately. Pure.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// With the time until which they are good.
    known: HashMap<Key, (Use, Duration)>,
    second: u64,
    questions: u32,
}

impl Answers {
    /// An answer that is still good. A socket may be connected to one peer, so "used" is true for that peer only.
    pub(super) fn recall(&self, packet: &Packet, now: Duration) -> Option<Use> {
        let identity = &packet.identity;
        let peer = Some((identity.source, identity.peer));
        [peer, None].into_iter().find_map(|peer| {
            let (answer, until) = self.known.get(&(identity.port, identity.destination, peer))?;
            (*until > now).then_some(*answer)
        })
    }

    /// Whether another question may be asked in this second.
    pub(super) fn may_ask(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            (self.second, self.questions) = (now.as_secs(), 0);
        }
        self.questions = self.questions.saturating_add(1);
        self.questions <= QUESTIONS_MAX
    }

    /// Keeps an answer for [`MEMORY`].
    pub(super) fn learn(&mut self, packet: &Packet, answer: Use, now: Duration) {
        if self.known.len() >= ANSWERS_MAX {
            self.known.clear();
        }
        let identity = &packet.identity;
        let peer = (answer == Use::Used).then_some((identity.source, identity.peer));
        self.known.insert((identity.port, identity.destination, peer), (answer, now + MEMORY));
    }
}

/// The kernel's answers over sock_diag(7).
pub(super) struct Lookup {
    netlink: Netlink,
    answers: Answers,
    counters: Arc<Counters>,
    failed: bool,
}

impl Lookup {
    pub(super) fn new(netlink: Netlink, counters: Arc<Counters>) -> Self {
        Self { netlink, answers: Answers::default(), counters, failed: false }
    }
}

impl SocketLookup for Lookup {
    fn ask(&mut self, packet: &Packet, interface: u32, now: Duration) -> Use {
        if let Some(answer) = self.answers.recall(packet, now) {
            return answer;
        }
        if !self.answers.may_ask(now) {
            return Use::Unknown;
        }
        self.counters.lookups.increment();
        let identity = &packet.identity;
        let query = SocketQuery {
            protocol: identity.port.protocol(),
            states: u32::MAX,
            local: (identity.destination, identity.port.number()),
            remote: (identity.source, identity.peer),
            interface,
        };
        let answer = match self.netlink.finds(&query) {
            Ok(true) => Use::Used,
            Ok(false) => Use::Free,
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "cannot ask the kernel about a socket; using the list made once a second"
                    );
                }
                return Use::Unknown;
            }
        };
        self.answers.learn(packet, answer, now);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::packet::Identity;

    #[test]
    fn answers_are_good_for_a_moment_and_used_ones_for_their_peer_only() {
        let mut answers = Answers::default();
        let now = Duration::from_secs(1);
        let (first, second) = (packet(1), packet(2));
        assert_eq!(answers.recall(&first, now), None);
        answers.learn(&first, Use::Used, now);
        assert_eq!(answers.recall(&first, now), Some(Use::Used));
        assert_eq!(answers.recall(&second, now), None);
        answers.learn(&second, Use::Free, now);
        assert_eq!(answers.recall(&packet(3), now), Some(Use::Free));
        assert_eq!(answers.recall(&first, now), Some(Use::Used));
        assert_eq!(answers.recall(&first, now + MEMORY), None);
    }

    #[test]
    fn questions_and_answers_are_bounded() {
        let mut answers = Answers::default();
        let now = Duration::from_secs(7);
        let asked = (0..QUESTIONS_MAX * 2).filter(|_| answers.may_ask(now)).count();
        assert_eq!(asked, QUESTIONS_MAX as usize);
        assert!(answers.may_ask(now + Duration::from_secs(1)));
        for peer in 0..u16::MAX {
            answers.learn(&packet(peer), Use::Used, now);
            assert!(answers.known.len() <= ANSWERS_MAX);
        }
    }

    fn packet(peer: u16) -> Packet {
        let identity = Identity {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            port: "udp/40000".parse().unwrap(),
            peer,
            marks: [0, 0],
        };
        Packet { identity, fingerprint: 0 }
    }
}
