//! The expressions of which our rules consist, as netlink attributes.
//!
//! Numbers and names are those of `linux/netfilter/nf_tables.h`; registers are named as the kernel lists them, so that a
//! rule can be compared with what was asked for. netlink-packet-netfilter has no type for `fib`, `ct` and `counter`.

use super::super::kernel::attributes::{Attribute, Reader};

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// `NF_DROP` and `NF_ACCEPT` of `linux/netfilter.h`; `NFT_GOTO` and `NFT_RETURN`.
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// A place of 4 or 16 bytes in which expressions leave values for those that follow.
#[derive(Clone, Copy)]
pub(super) enum Register {
    /// The first 16 bytes, or 4 when only so many are used, and the 4-byte places behind its first.
    First,
    FirstSecond,
    FirstThird,
    /// The second 16 bytes, and the 4-byte place behind its first.
    Second,
    SecondSecond,
}

impl Register {
    fn number(self) -> u32 {
        match self {
            Self::First => 1,
            Self::FirstSecond => 9,
            Self::FirstThird => 10,
            Self::Second => 2,
            Self::SecondSecond => 13,
        }
    }
}

/// `NFT_META_*`.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Mark = 3,
    InterfaceIn = 4,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
#[derive(Clone, Copy)]
pub(super) enum Header {
    Network = 1,
    Transport = 2,
}

/// One expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Expression {
    name: &'static str,
    data: Vec<Attribute>,
}

impl Expression {
    /// How it is sent within a rule's list.
    pub(super) fn attribute(&self) -> Attribute {
        let data = Attribute::nest(DATA, self.data.clone());
        Attribute::nest(LIST_ELEMENT, vec![Attribute::text(NAME, self.name), data])
    }

    fn is_listed(&self, listed: Reader<'_>) -> bool {
        let data = listed.nest(DATA).unwrap_or(Reader::new(&[]));
        listed.text(NAME) == Some(self.name) && self.data.iter().all(|attribute| attribute.is_in(data))
    }
}

/// Whether the kernel lists exactly these expressions.
pub(super) fn are_listed(expressions: &[Expression], listed: Reader<'_>) -> bool {
    listed.iter().count() == expressions.len()
        && expressions
            .iter()
            .zip(listed.iter())
            .all(|(expression, (_, listed))| expression.is_listed(Reader::new(listed)))
}

/// Whether a rule with these expressions lets no packet pass, whatever packet it is.
pub(super) fn drop_everything(listed: Reader<'_>) -> bool {
    let mut drops = false;
    for (_, expression) in listed.iter() {
        let expression = Reader::new(expression);
        let data = expression.nest(DATA).unwrap_or(Reader::new(&[]));
        match expression.text(NAME) {
            Some("counter" | "log") => {}
            Some("reject") => drops = true,
            // iptables-nft carries the targets of iptables, here REJECT, by name.
            Some("target") if data.text(1) == Some("REJECT") => drops = true,
            Some("immediate") => {
                let code =
                    data.nest(2).and_then(|data| data.nest(VERDICT)).and_then(|verdict| verdict.number32(1));
                drops |= code == Some(NF_DROP.cast_unsigned());
            }
            _ => return false,
        }
    }
    drops
}

pub(super) fn load_meta(key: Meta, into: Register) -> Expression {
    let data = vec![Attribute::number32(1, into.number()), Attribute::number32(2, key as u32)];
    Expression { name: "meta", data }
}

pub(super) fn store_mark(from: Register) -> Expression {
    let data = vec![Attribute::number32(2, Meta::Mark as u32), Attribute::number32(3, from.number())];
    Expression { name: "meta", data }
}

/// The states a connection is in, as a mask in the host's byte order.
pub(super) fn load_connection_state(into: Register) -> Expression {
    // `NFT_CT_STATE` is key 0.
    Expression { name: "ct", data: vec![Attribute::number32(1, into.number()), Attribute::number32(2, 0)] }
}

/// The type of the destination address in the routing table: `RTN_*`, in the host's byte order.
pub(super) fn load_destination_type(into: Register) -> Expression {
    // `NFT_FIB_RESULT_ADDRTYPE` and `NFTA_FIB_F_DADDR`.
    let data =
        vec![Attribute::number32(1, into.number()), Attribute::number32(2, 3), Attribute::number32(3, 2)];
    Expression { name: "fib", data }
}

pub(super) fn load_payload(header: Header, offset: u32, length: u32, into: Register) -> Expression {
    let data = vec![
        Attribute::number32(1, into.number()),
        Attribute::number32(2, header as u32),
        Attribute::number32(3, offset),
        Attribute::number32(4, length),
    ];
    Expression { name: "payload", data }
}

/// Goes on when the register holds these bytes.
pub(super) fn equal(register: Register, bytes: &[u8]) -> Expression {
    compare(register, 0, bytes)
}

/// Goes on when the register does not hold these bytes.
pub(super) fn unequal(register: Register, bytes: &[u8]) -> Expression {
    compare(register, 1, bytes)
}

fn compare(register: Register, operation: u32, bytes: &[u8]) -> Expression {
    let data = vec![
        Attribute::number32(1, register.number()),
        Attribute::number32(2, operation),
        Attribute::nest(3, vec![Attribute::bytes(VALUE, bytes)]),
    ];
    Expression { name: "cmp", data }
}

/// `(register & mask) ^ xor`, both in the host's byte order.
pub(super) fn mask_and_xor(register: Register, mask: u32, xor: u32) -> Expression {
    let value =
        |kind, number: u32| Attribute::nest(kind, vec![Attribute::bytes(VALUE, number.to_ne_bytes())]);
    let data = vec![
        Attribute::number32(1, register.number()),
        Attribute::number32(2, register.number()),
        Attribute::number32(3, 4),
        value(4, mask),
        value(5, xor),
    ];
    Expression { name: "bitwise", data }
}

/// Goes on when the set has what the registers from here on hold.
pub(super) fn look_up(set: &str, from: Register) -> Expression {
    let data =
        vec![Attribute::text(1, set), Attribute::number32(2, from.number()), Attribute::number32(5, 0)];
    Expression { name: "lookup", data }
}

pub(super) fn count() -> Expression {
    Expression { name: "counter", data: Vec::new() }
}

/// Counts the packet in the element of this set whose key the registers from here on hold; the element is made when it
/// is the first. Goes on unless there is no room for another element.
pub(super) fn count_in(set: &str, from: Register) -> Expression {
    // `NFT_DYNSET_OP_UPDATE` and `NFTA_DYNSET_*`.
    let counter = vec![Attribute::text(NAME, "counter"), Attribute::nest(DATA, Vec::new())];
    let data = vec![
        Attribute::text(1, set),
        Attribute::number32(3, 1),
        Attribute::number32(4, from.number()),
        Attribute::nest(7, counter),
    ];
    Expression { name: "dynset", data }
}

pub(super) fn accept() -> Expression {
    verdict(NF_ACCEPT, None)
}

pub(super) fn drop() -> Expression {
    verdict(NF_DROP, None)
}

pub(super) fn back() -> Expression {
    verdict(RETURN, None)
}

pub(super) fn go_to(chain: &str) -> Expression {
    verdict(GOTO, Some(chain))
}

fn verdict(code: i32, chain: Option<&str>) -> Expression {
    let mut verdict = vec![Attribute::number32(1, code.cast_unsigned())];
    verdict.extend(chain.map(|chain| Attribute::text(2, chain)));
    let data = vec![Attribute::number32(1, 0), Attribute::nest(2, vec![Attribute::nest(VERDICT, verdict)])];
    Expression { name: "immediate", data }
}
