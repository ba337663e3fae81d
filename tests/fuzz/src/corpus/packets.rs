//! Packets, byte by byte: every kind of knock, with and without tags, options and extension headers.

use super::{File, file};

const SOURCE: [u8; 4] = [203, 0, 113, 5];
const HERE: [u8; 4] = [192, 0, 2, 1];
const SOURCE_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
const HERE_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

const V4: u8 = 0;
const V6: u8 = 3;
const TAG: u8 = 6;

pub(super) fn files() -> Vec<File> {
    let syn = |flags| tcp(7_412, flags);
    let options = [1, 1, 1, 0];
    let far = [224, 0, 0, 1];
    let every = every_extension();
    let first = [(44, vec![0, 0, 0, 1, 0, 0, 0, 7])];
    vec![
        packet("v4-syn", V4, ipv4(6, HERE, &[], &syn(2))),
        packet("v4-syn-ack", V4, ipv4(6, HERE, &[], &syn(0x12))),
        packet("v4-syn-options", V4, ipv4(6, HERE, &options, &syn(2))),
        packet("v4-syn-guarded", V4, ipv4(6, HERE, &[], &tcp(22, 2))),
        packet("v4-syn-forwarded", V4, ipv4(6, [198, 51, 100, 9], &[], &syn(2))),
        packet("v4-syn-multicast", V4, ipv4(6, far, &[], &syn(2))),
        packet("v4-udp", V4, ipv4(17, HERE, &[], &udp(23_981, b"knock"))),
        packet("v4-udp-empty", V4, ipv4(17, HERE, &[], &udp(53, b""))),
        packet("v4-udp-client", V4, ipv4(17, HERE, &[], &udp(40_001, b"?"))),
        packet("v4-echo", V4, ipv4(1, HERE, &[], &echo(8, 73))),
        packet("v4-echo-reply", V4, ipv4(1, HERE, &[], &echo(0, 73))),
        packet("v4-fragment-first", V4, fragment(ipv4(17, HERE, &[], &udp(23_981, b"knock")), 0x2000)),
        packet("v4-fragment-later", V4, fragment(ipv4(17, HERE, &[], &udp(23_981, b"knock")), 0x0010)),
        packet("v4-short", V4, ipv4(6, HERE, &[], &syn(2)[..12])),
        packet("v6-syn", V6, ipv6(6, &[], &syn(2))),
        packet("v6-udp", V6, ipv6(17, &[], &udp(23_981, b"knock"))),
        packet("v6-echo", V6, ipv6(58, &[], &echo(128, 73))),
        packet("v6-every-extension", V6, ipv6(6, &every, &syn(2))),
        packet("v6-fragment-first", V6, ipv6(17, &first, &udp(23_981, b"knock"))),
        packet("v6-fragment-later", V6, ipv6(17, &[(44, vec![0, 0, 0, 8, 0, 0, 0, 7])], b"rest")),
        packet("v6-too-many-extensions", V6, ipv6(6, &vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]); 9], &syn(2))),
        packet("tagged-v4-syn", TAG, tagged(0x0800, &ipv4(6, HERE, &[], &syn(2)))),
        packet("tagged-v6-udp", TAG, tagged(0x86dd, &ipv6(17, &[], &udp(23_981, b"knock")))),
        packet("tagged-twice", TAG, tagged(0x8100, &tagged(0x0800, &ipv4(6, HERE, &[], &syn(2))))),
        packet(
            "tagged-thrice",
            TAG,
            tagged(0x88a8, &tagged(0x8100, &tagged(0x0800, &ipv4(6, HERE, &[], &syn(2))))),
        ),
    ]
}

/// With how it comes: its kind, the checksum put right, over `eth0`, nothing cut.
fn packet(name: &str, kind: u8, bytes: Vec<u8>) -> File {
    file(name, [vec![kind, 1, 1, 0], bytes].concat())
}

fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![0x9c, 0x41, high, low, 0, 0, 0x12, 0x67, 0, 0, 0, 0, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let header = [40_001, port, length, 0].map(u16::to_be_bytes).concat();
    [header.as_slice(), payload].concat()
}

fn echo(kind: u8, payload: usize) -> Vec<u8> {
    [vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1], vec![0x61; payload]].concat()
}

/// RFC 791 section 3.1.
fn ipv4(protocol: u8, destination: [u8; 4], options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let words = u8::try_from(header / 4).unwrap_or(5);
    let [high, low] = u16::try_from(header + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let fixed = [0x40 | words, 0, high, low, 0x12, 0x67, 0, 0, 64, protocol, 0, 0];
    let mut bytes = [&fixed, SOURCE.as_slice(), &destination, options].concat();
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn fragment(mut packet: Vec<u8>, field: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 8200 section 3; `extensions` are kinds and whole headers, whose first byte is filled in.
fn ipv6(protocol: u8, extensions: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
    let kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).chain([protocol]).collect();
    let headers = extensions.iter().zip(&kinds[1..]);
    let behind: Vec<u8> = headers
        .flat_map(|((_, header), next)| [&[*next], &header[1..]].concat())
        .chain(payload.to_vec())
        .collect();
    let [high, low] = u16::try_from(behind.len()).unwrap_or(u16::MAX).to_be_bytes();
    let fixed = [0x60, 0, 0, 0, high, low, kinds[0], 64];
    [fixed.as_slice(), &SOURCE_V6, &HERE_V6, &behind].concat()
}

/// Hop-by-hop options, routing, destination options, first fragment, authentication.
fn every_extension() -> Vec<(u8, Vec<u8>)> {
    let padding = vec![0, 0, 1, 4, 0, 0, 0, 0];
    let authentication = [vec![0, 4], vec![0; 22]].concat();
    vec![
        (0, padding.clone()),
        (43, vec![0; 8]),
        (60, padding),
        (44, vec![0, 0, 0, 1, 0, 0, 0, 7]),
        (51, authentication),
    ]
}

/// What follows a tag (IEEE 802.1Q) that was announced: its number, then what it holds.
fn tagged(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&[0, 7], kind.to_be_bytes().as_slice(), packet].concat()
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
