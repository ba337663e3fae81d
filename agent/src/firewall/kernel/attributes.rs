//! Netlink attributes: trees of them to be sent, and a reader of what the kernel sends.
//!
//! Numbers in netfilter's attributes are in network order (`linux/netfilter/nfnetlink.h`).

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLA_F_NET_BYTEORDER, NlasIterator};

/// One attribute to be sent. Its tree is kept so that it can be compared with what the kernel lists later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    kind: u16,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Nest(Vec<Attribute>),
}

impl Attribute {
    pub(crate) fn bytes(kind: u16, bytes: impl Into<Vec<u8>>) -> Self {
        Self { kind, value: Value::Bytes(bytes.into()) }
    }

    pub(crate) fn number8(kind: u16, number: u8) -> Self {
        Self::bytes(kind, [number])
    }

    pub(crate) fn number16(kind: u16, number: u16) -> Self {
        Self::bytes(kind, number.to_be_bytes())
    }

    pub(crate) fn number32(kind: u16, number: u32) -> Self {
        Self::bytes(kind, number.to_be_bytes())
    }

    pub(crate) fn number64(kind: u16, number: u64) -> Self {
        Self::bytes(kind, number.to_be_bytes())
    }

    /// A text with the final zero byte that the kernel expects.
    pub(crate) fn text(kind: u16, text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        Self::bytes(kind, bytes)
    }

    pub(crate) fn nest(kind: u16, attributes: Vec<Attribute>) -> Self {
        Self { kind, value: Value::Nest(attributes) }
    }

    /// The same, flagged as being in network order, which ipset insists on.
    pub(crate) fn in_network_order(mut self) -> Self {
        self.kind |= NLA_F_NET_BYTEORDER;
        self
    }

    pub(super) fn to_nla(&self) -> DefaultNla {
        match &self.value {
            Value::Bytes(bytes) => DefaultNla::new(self.kind, bytes.clone()),
            Value::Nest(attributes) => {
                let mut bytes = Vec::with_capacity(64);
                for attribute in attributes {
                    attribute.emit(&mut bytes);
                }
                DefaultNla::new(self.kind | NLA_F_NESTED, bytes)
            }
        }
    }

    fn emit(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        let nested = if matches!(self.value, Value::Nest(_)) { NLA_F_NESTED } else { 0 };
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&(self.kind | nested).to_ne_bytes());
        match &self.value {
            Value::Bytes(value) => bytes.extend_from_slice(value),
            Value::Nest(attributes) => {
                for attribute in attributes {
                    attribute.emit(bytes);
                }
            }
        }
        // Callers keep lists short enough; a longer one would be refused by the kernel as malformed.
        let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX);
        bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }

    /// Whether the kernel lists this attribute with the same value; what it lists beside is its own affair.
    pub(crate) fn is_in(&self, listed: Reader<'_>) -> bool {
        let Some(value) = listed.bytes(self.kind & !NLA_F_NET_BYTEORDER) else { return false };
        match &self.value {
            Value::Bytes(bytes) => bytes == value,
            Value::Nest(attributes) => attributes.iter().all(|attribute| attribute.is_in(Reader::new(value))),
        }
    }
}

/// Attributes as the kernel sent them. What is malformed reads as absent.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// All of them, in order, with their kinds.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut position = 0;
        NlasIterator::new(self.bytes).map_while(Result::ok).map(move |attribute| {
            let length = usize::from(attribute.length());
            // The iterator's items cannot lend their value for as long as the bytes live.
            let value = self.bytes.get(position + 4..position + length).unwrap_or_default();
            position += length.next_multiple_of(4);
            (attribute.kind(), value)
        })
    }

    pub(crate) fn bytes(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(crate) fn nest(self, kind: u16) -> Option<Reader<'a>> {
        self.bytes(kind).map(Reader::new)
    }

    pub(crate) fn number8(self, kind: u16) -> Option<u8> {
        self.bytes(kind)?.first().copied()
    }

    pub(crate) fn number16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(kind)?.try_into().ok()?))
    }

    pub(crate) fn number32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(kind)?.try_into().ok()?))
    }

    pub(crate) fn number64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.bytes(kind)?.try_into().ok()?))
    }

    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.bytes(kind)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

#[cfg(test)]
mod tests;
