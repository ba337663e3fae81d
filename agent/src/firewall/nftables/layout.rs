//! Our table: its chains and rules.
//!
//! ```text
//! hook prerouting, priority -150: after connection tracking (-200), before destination NAT (-100), so that published
//! container ports and NodePorts are seen as the outside names them
//!
//! chain prerouting                         chain gate
//!   iif lo                     return        fib daddr type unicast           return   not for this host: transit
//!   l4proto . dport @guard     goto gate     saddr . l4proto . sport @cut4/6  drop     the end of a cut connection
//!   l4proto . dport @observed  goto watch    ct state established,related     return
//!                                            saddr @mgmt4/6                   return
//! chain refuse                               saddr @ban4/6                    goto refuse
//!   update @dropped { l4proto . dport        saddr . l4proto . dport @open4/6 mark, accept
//!   counter }                  drop                                           goto refuse
//!   counter                    drop
//!                                          chain watch: as the gate, but cut connections live, and it goes to notice
//! chain notice
//!   update @noticed { l4proto . dport counter }
//! ```
//!
//! Ports of doors that only observe go another way than guarded ones, on which nothing can be dropped. What is counted is
//! counted in elements that the rules make themselves: they stay when a port is guarded, observed or neither in turn, and
//! cost no lookup before the end of the way. The sets have room for every port there is.
//!
//! Broadcast, multicast and anycast destinations are this host's as much as its own addresses, so only `unicast` passes
//! as transit. A packet too short to have ports matches no rule and passes.

use super::{
    super::{
        kernel::{
            INET, IPV4, IPV6, NFTABLES, Request,
            attributes::{Attribute, Reader},
        },
        settings::MarkBit,
    },
    TABLE,
    expressions::{
        self, Expression, Header, Meta, Register, accept, back, count, count_in, drop, equal, go_to,
        load_connection_state, load_destination_type, load_meta, load_payload, look_up, mask_and_xor,
        store_mark, unequal,
    },
    sets::Set,
};

/// `NFT_MSG_*` of `linux/netfilter/nf_tables.h`.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
pub(super) const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
pub(super) const GET_RULE: u8 = 7;
const DELETE_RULE: u8 = 8;

/// `NFTA_TABLE_*`.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;

/// `NFTA_CHAIN_*` and `NFTA_HOOK_*`.
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

/// `NFTA_RULE_*`.
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;

/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`.
pub(super) const PREROUTING: u32 = 0;
pub(super) const INPUT: u32 = 1;
/// `NF_IP_PRI_MANGLE`.
const PRIORITY: i32 = -150;
/// `NF_ACCEPT`.
const POLICY_ACCEPT: u32 = 1;
/// `LOOPBACK_IFINDEX`: the index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
/// `NF_CT_STATE_BIT` of established and of related.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `RTN_UNICAST` of `linux/rtnetlink.h`.
const UNICAST: u32 = 1;
/// Longer than the fifteen minutes for which TCP sends again by default (tcp(7), `tcp_retries2`).
pub(super) const CUT_MS: u64 = 20 * 60 * 1000;

/// One of our chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    Prerouting,
    Gate,
    Refuse,
    Watch,
    Notice,
}

impl Chain {
    /// Each after those to which it goes.
    pub(super) const ALL: [Self; 5] = [Self::Refuse, Self::Gate, Self::Notice, Self::Watch, Self::Prerouting];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Gate => "gate",
            Self::Refuse => "refuse",
            Self::Watch => "watch",
            Self::Notice => "notice",
        }
    }

    fn definition(self) -> Vec<Attribute> {
        let mut attributes =
            vec![Attribute::text(CHAIN_TABLE, TABLE), Attribute::text(CHAIN_NAME, self.name())];
        if self == Self::Prerouting {
            let hook = vec![
                Attribute::number32(HOOK_NUMBER, PREROUTING),
                Attribute::number32(HOOK_PRIORITY, PRIORITY.cast_unsigned()),
            ];
            attributes.push(Attribute::nest(CHAIN_HOOK, hook));
            attributes.push(Attribute::number32(CHAIN_POLICY, POLICY_ACCEPT));
            attributes.push(Attribute::text(CHAIN_TYPE, "filter"));
        }
        attributes
    }

    fn create(self) -> Request {
        Request::new(NFTABLES, NEW_CHAIN, INET, self.definition()).creating()
    }

    /// Which of our chains is listed, if it is one and is as we define it.
    pub(super) fn listed(reader: Reader<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|chain| {
            let hooked = reader.bytes(CHAIN_HOOK).is_some();
            hooked == (*chain == Self::Prerouting)
                && chain.definition().iter().all(|attribute| attribute.is_in(reader))
        })
    }

    /// Its rules, in order.
    pub(super) fn rules(self, mark: MarkBit) -> Vec<Vec<Expression>> {
        match self {
            Self::Prerouting => {
                let lo = vec![
                    load_meta(Meta::InterfaceIn, Register::First),
                    equal(Register::First, &LOOPBACK.to_ne_bytes()),
                    back(),
                ];
                let [guarded, observed] =
                    [(Set::Guard, Self::Gate), (Set::Observed, Self::Watch)].map(|(set, chain)| {
                        let mut rule = Vec::from(load_service());
                        rule.extend([look_up(set.name(), Register::First), go_to(chain.name())]);
                        rule
                    });
                vec![lo, guarded, observed]
            }
            Self::Gate => way(mark, true, Self::Refuse),
            Self::Refuse => {
                let mut counted = Vec::from(load_service());
                counted.extend([count_in(Set::Dropped.name(), Register::First), drop()]);
                // Whatever cannot be counted by port.
                vec![counted, vec![count(), drop()]]
            }
            Self::Watch => way(mark, false, Self::Notice),
            Self::Notice => {
                let mut counted = Vec::from(load_service());
                counted.push(count_in(Set::Noticed.name(), Register::First));
                vec![counted]
            }
        }
    }

    /// Lists its rules.
    pub(super) fn list_rules(self) -> Request {
        list_rules(INET, TABLE, self.name())
    }

    /// Replaces its rules, within a batch.
    fn set_rules(self, mark: MarkBit) -> impl Iterator<Item = Request> {
        let flush = vec![Attribute::text(RULE_TABLE, TABLE), Attribute::text(RULE_CHAIN, self.name())];
        let rules = self.rules(mark).into_iter().map(move |rule| {
            // NLM_F_APPEND: behind the others.
            new_rule(INET, TABLE, self.name(), &rule, None).with(netlink_packet_core::NLM_F_APPEND)
        });
        std::iter::once(Request::new(NFTABLES, DELETE_RULE, INET, flush)).chain(rules)
    }
}

/// The protocol and the destination port, as the sets of ports have them.
fn load_service() -> [Expression; 2] {
    [
        load_meta(Meta::TransportProtocol, Register::First),
        load_payload(Header::Transport, 2, 2, Register::FirstSecond),
    ]
}

/// The way of a packet to a port of ours; it ends in a chain for those without an opening.
fn way(mark: MarkBit, cuts: bool, end: Chain) -> Vec<Vec<Expression>> {
    let transit =
        vec![load_destination_type(Register::First), equal(Register::First, &UNICAST.to_ne_bytes()), back()];
    let established = vec![
        load_connection_state(Register::First),
        mask_and_xor(Register::First, ESTABLISHED_OR_RELATED, 0),
        unequal(Register::First, &[0; 4]),
        back(),
    ];
    let mut rules = vec![transit];
    let cut: &[_] = if cuts { &[(Version::Four, Set::Cut4), (Version::Six, Set::Cut6)] } else { &[] };
    for (version, set) in cut {
        let mut rule = version.load_source();
        rule.extend([
            version.load_protocol(),
            version.load_port(0),
            look_up(set.name(), Register::First),
            drop(),
        ]);
        rules.push(rule);
    }
    rules.push(established);
    for (version, set) in [(Version::Four, Set::Management4), (Version::Six, Set::Management6)] {
        let mut rule = version.load_source();
        rule.extend([look_up(set.name(), Register::First), back()]);
        rules.push(rule);
    }
    for (version, set) in [(Version::Four, Set::Ban4), (Version::Six, Set::Ban6)] {
        let mut rule = version.load_source();
        rule.extend([look_up(set.name(), Register::First), go_to(end.name())]);
        rules.push(rule);
    }
    for (version, set) in [(Version::Four, Set::Open4), (Version::Six, Set::Open6)] {
        let mut rule = version.load_source();
        rule.extend([
            version.load_protocol(),
            version.load_port(2),
            look_up(set.name(), Register::First),
            load_meta(Meta::Mark, Register::First),
            mask_and_xor(Register::First, !mark.bit(), mark.bit()),
            store_mark(Register::First),
            accept(),
        ]);
        rules.push(rule);
    }
    rules.push(vec![go_to(end.name())]);
    rules
}

#[derive(Clone, Copy)]
enum Version {
    Four,
    Six,
}

impl Version {
    /// Goes on for packets of this version, with their source address in the first register.
    fn load_source(self) -> Vec<Expression> {
        let (protocol, offset, length) = match self {
            Self::Four => (IPV4, 12, 4),
            Self::Six => (IPV6, 8, 16),
        };
        vec![
            load_meta(Meta::NetworkProtocol, Register::First),
            equal(Register::First, &[protocol]),
            load_payload(Header::Network, offset, length, Register::First),
        ]
    }

    fn load_protocol(self) -> Expression {
        let register = match self {
            Self::Four => Register::FirstSecond,
            Self::Six => Register::Second,
        };
        load_meta(Meta::TransportProtocol, register)
    }

    /// The source port is at offset 0, the destination port at 2, in TCP (RFC 9293) and UDP (RFC 768).
    fn load_port(self, offset: u32) -> Expression {
        let register = match self {
            Self::Four => Register::FirstThird,
            Self::Six => Register::SecondSecond,
        };
        load_payload(Header::Transport, offset, 2, register)
    }
}

/// What the accept rule in an operator's own chain does: it accepts what carries our mark.
pub(super) fn accept_marked(mark: MarkBit) -> Vec<Expression> {
    vec![
        load_meta(Meta::Mark, Register::First),
        mask_and_xor(Register::First, mark.bit(), 0),
        unequal(Register::First, &[0; 4]),
        accept(),
    ]
}

pub(super) fn new_rule(
    family: u8,
    table: &str,
    chain: &str,
    rule: &[Expression],
    userdata: Option<&[u8]>,
) -> Request {
    let expressions = rule.iter().map(Expression::attribute).collect();
    let mut attributes = vec![
        Attribute::text(RULE_TABLE, table),
        Attribute::text(RULE_CHAIN, chain),
        Attribute::nest(RULE_EXPRESSIONS, expressions),
    ];
    attributes.extend(userdata.map(|bytes| Attribute::bytes(RULE_USERDATA, bytes)));
    Request::new(NFTABLES, NEW_RULE, family, attributes).creating()
}

pub(super) fn delete_rule(family: u8, table: &str, chain: &str, handle: u64) -> Request {
    let attributes = vec![
        Attribute::text(RULE_TABLE, table),
        Attribute::text(RULE_CHAIN, chain),
        Attribute::number64(RULE_HANDLE, handle),
    ];
    Request::new(NFTABLES, DELETE_RULE, family, attributes)
}

pub(super) fn list_rules(family: u8, table: &str, chain: &str) -> Request {
    let attributes = vec![Attribute::text(RULE_TABLE, table), Attribute::text(RULE_CHAIN, chain)];
    Request::new(NFTABLES, GET_RULE, family, attributes)
}

/// Lists the tables of our family.
pub(super) fn list_tables() -> Request {
    Request::new(NFTABLES, GET_TABLE, INET, Vec::new())
}

/// Whether this is our table; if so, whether it is in force.
pub(super) fn is_our_table(reader: Reader<'_>) -> Option<bool> {
    (reader.text(TABLE_NAME) == Some(TABLE)).then(|| reader.number32(TABLE_FLAGS).unwrap_or(0) == 0)
}

/// Removes our table, whether it exists or not, within a batch.
pub(super) fn remove_table() -> [Request; 2] {
    let name = || vec![Attribute::text(TABLE_NAME, TABLE)];
    [
        Request::new(NFTABLES, NEW_TABLE, INET, name()).creating(),
        Request::new(NFTABLES, DELETE_TABLE, INET, name()),
    ]
}

/// Makes our table anew, with empty sets, within a batch.
pub(super) fn new_table(mark: MarkBit) -> Vec<Request> {
    let mut requests = Vec::from(remove_table());
    requests
        .push(Request::new(NFTABLES, NEW_TABLE, INET, vec![Attribute::text(TABLE_NAME, TABLE)]).creating());
    requests.extend(Set::ALL.into_iter().map(Set::create));
    requests.extend(Chain::ALL.into_iter().map(Chain::create));
    requests.extend(new_rules(mark));
    requests
}

/// Replaces all rules, within a batch.
pub(super) fn new_rules(mark: MarkBit) -> impl Iterator<Item = Request> {
    Chain::ALL.into_iter().flat_map(move |chain| chain.set_rules(mark))
}

/// Whether the kernel lists this rule.
pub(super) fn is_listed(rule: &[Expression], listed: Reader<'_>) -> bool {
    listed.nest(RULE_EXPRESSIONS).is_some_and(|listed| expressions::are_listed(rule, listed))
}
