//! One knock on the wire, without privileges.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use fleetknock_core::port::{Port, Protocol};
use fleetknock_runtime::exit;
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};

/// What is allowed to go wrong, and what not.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(
        "this user may not send echo requests: its group is not within net.ipv4.ping_group_range, and raw sockets need \
         CAP_NET_RAW; widen that range (sysctl -w net.ipv4.ping_group_range='0 2147483647'), or use tcp and udp steps"
    )]
    Ping,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl SendError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Ping => exit::NO_PERMISSION,
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => exit::NO_PERMISSION,
            Self::Io(_) => exit::UNAVAILABLE,
        }
    }
}

/// Sends one packet. For TCP it has left, or waits for the neighbour's link address, when this returns.
pub(super) fn send(port: Port, address: IpAddr) -> Result<(), SendError> {
    match port.protocol() {
        Protocol::Tcp => Ok(syn(SocketAddr::new(address, port.number()))?),
        Protocol::Udp => Ok(datagram(SocketAddr::new(address, port.number()))?),
        Protocol::Icmp => echo(address, usize::from(port.number())),
    }
}

/// A connection that is begun and given up: closing the socket in SYN-SENT sends nothing and ends the retransmission
/// timer, so that exactly one SYN leaves.
fn syn(to: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(IpProtocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        // Refused and reset: the answer was quicker than we; the SYN has left all the same.
        Err(error)
            if !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
                && error.raw_os_error() != Some(IN_PROGRESS) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// EINPROGRESS (connect(2)): std has no name for it.
const IN_PROGRESS: i32 = 115;

fn datagram(to: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(IpProtocol::UDP))?;
    // An empty datagram is a packet too, but some middleboxes drop it.
    socket.send_to(&[0], &to.into()).map(|_sent| ())
}

fn echo(address: IpAddr, length: usize) -> Result<(), SendError> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, IpProtocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, IpProtocol::ICMPV6),
    };
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let socket = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Err(_) => match Socket::new(domain, Type::RAW, Some(protocol)) {
            Err(error) if refused(&error) => return Err(SendError::Ping),
            socket => socket?,
        },
        Ok(socket) => socket,
    };
    let packet = echo_request(address.is_ipv6(), length);
    socket.send_to(&packet, &SocketAddr::new(address, 0).into())?;
    Ok(())
}

/// An echo request of ICMP (RFC 792) or ICMPv6 (RFC 4443 section 4.1): type, code, checksum, identifier, sequence number
/// and a payload of zeros. The kernel fills in the identifier of unprivileged sockets, and the checksum for ICMPv6,
/// which covers addresses that are not known here.
fn echo_request(v6: bool, length: usize) -> Vec<u8> {
    let mut packet = vec![0; 8 + length];
    packet[0] = if v6 { 128 } else { 8 };
    packet[4..6].copy_from_slice(&(std::process::id() as u16).to_be_bytes());
    packet[7] = 1;
    if !v6 {
        let checksum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&checksum);
    }
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        time::Duration,
    };

    use super::*;

    #[test]
    fn an_echo_request_has_its_length_and_its_checksum() {
        let packet = echo_request(false, 731);
        assert_eq!((packet.len(), packet[0], packet[1]), (739, 8, 0));
        assert_eq!(checksum(&packet), 0);
        assert_eq!(echo_request(true, 0)[0], 128);
        // The example of RFC 1071 section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }

    #[test]
    fn a_udp_knock_is_one_datagram() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        send(port("udp", receiver.local_addr().unwrap().port()), "127.0.0.1".parse().unwrap()).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1);
        assert!(receiver.recv(&mut buffer).is_err());
    }

    #[test]
    fn a_tcp_knock_is_sent_whether_something_listens_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = "127.0.0.1".parse().unwrap();
        let number = listener.local_addr().unwrap().port();
        send(port("tcp", number), address).unwrap();
        drop(listener);
        send(port("tcp", number), address).unwrap();
    }

    fn port(protocol: &str, number: u16) -> Port {
        format!("{protocol}/{number}").parse().unwrap()
    }
}
