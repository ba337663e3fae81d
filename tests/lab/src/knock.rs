//! Knocking: with the lab's own sender, and with the tools that people have.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{host::Host, programs};

/// Between two knocks of a sequence. Packets of two tools started one after the other are further apart than this.
const PAUSE: Duration = Duration::from_millis(30);

/// One knock to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shot {
    /// A TCP SYN.
    Tcp(SocketAddr),
    /// A UDP datagram.
    Udp(SocketAddr),
}

impl Shot {
    /// Where it goes.
    pub fn to(self) -> SocketAddr {
        match self {
            Self::Tcp(to) | Self::Udp(to) => to,
        }
    }
}

/// Something that can knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `fleetknock knock`.
    Fleetknock,
    /// `hping3`; IPv4 only, the program knows no IPv6.
    Hping3,
    /// Debian's `knock`, from the package `knockd`.
    Knock,
    /// `nc`.
    Netcat,
    /// `nmap`, one port at a time.
    Nmap,
}

impl Tool {
    /// Whether it can send this.
    pub fn can(self, address: IpAddr) -> bool {
        self != Self::Hping3 || address.is_ipv4()
    }
}

/// Sends one knock from the calling thread's namespace. Never retransmits: the socket is gone before it could.
///
/// # Errors
/// When the kernel refuses.
pub fn shoot(source: Option<IpAddr>, shot: Shot) -> Result<()> {
    let to = shot.to();
    let (kind, protocol) = match shot {
        Shot::Tcp(_) => (Type::STREAM, Protocol::TCP),
        Shot::Udp(_) => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    if let Some(source) = source {
        socket
            .bind(&SocketAddr::new(source, 0).into())
            .with_context(|| format!("cannot send from {source}"))?;
    }
    socket.set_nonblocking(true)?;
    match shot {
        Shot::Udp(_) => socket.send_to(b"", &to.into()).map(drop)?,
        Shot::Tcp(_) => match socket.connect(&to.into()) {
            Ok(()) => {}
            // Sent, not yet answered; or answered with a reset before the call returned.
            Err(error)
                if error.raw_os_error() == Some(libc::EINPROGRESS)
                    || error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error).with_context(|| format!("cannot knock at {to}")),
        },
    }
    Ok(())
}

impl Host {
    /// Knocks with the lab's own sender, in this order, a little apart.
    ///
    /// # Errors
    /// When a knock cannot be sent.
    pub fn knock(&self, source: Option<IpAddr>, shots: &[Shot]) -> Result<()> {
        self.inside(|| {
            for (number, shot) in shots.iter().enumerate() {
                if number > 0 {
                    thread::sleep(PAUSE);
                }
                shoot(source, *shot)?;
            }
            Ok(())
        })?
    }

    /// Knocks with a tool, one call per knock, except for `fleetknock knock`, which is told the whole sequence.
    ///
    /// # Errors
    /// When the tool cannot be run, or says that it failed where its answer means something.
    pub fn knock_with(&self, tool: Tool, shots: &[Shot]) -> Result<()> {
        if tool == Tool::Fleetknock {
            let mut command =
                vec![programs::path("fleetknock")?.to_string_lossy().into_owned(), "knock".to_owned()];
            command.extend(shots.iter().map(|shot| match shot {
                Shot::Tcp(to) => format!("tcp/{}@{}", to.port(), to.ip()),
                Shot::Udp(to) => format!("udp/{}@{}", to.port(), to.ip()),
            }));
            self.ok(&command)?;
            return Ok(());
        }
        for shot in shots {
            let output = self.run_with(&command_for(tool, *shot), Some("x"), Duration::from_secs(15))?;
            // hping3 and nc say with their exit code that nobody listened, which is so by design of a knock.
            if matches!(tool, Tool::Knock | Tool::Nmap) && output.code != 0 {
                bail!("{tool:?} failed: {} {}", output.stdout, output.stderr);
            }
        }
        Ok(())
    }
}

/// The command line that sends one knock.
fn command_for(tool: Tool, shot: Shot) -> Vec<String> {
    let (to, is_udp) = (shot.to(), matches!(shot, Shot::Udp(_)));
    let (address, port, v6) = (to.ip().to_string(), to.port().to_string(), to.is_ipv6());
    let protocol = if is_udp { "udp" } else { "tcp" };
    let mut words: Vec<String> = Vec::new();
    let mut add = |list: &[&str]| words.extend(list.iter().map(|word| (*word).to_owned()));
    match tool {
        Tool::Knock => {
            add(&["knock"]);
            add(if v6 { &["-6"] } else { &["-4"] });
            add(&[&address, &format!("{port}:{protocol}")]);
        }
        Tool::Hping3 => {
            add(&["hping3", "-q", "-c", "1", "-i", "u1000", "-p", &port]);
            add(if is_udp { &["-2"] } else { &["-S"] });
            add(&[&address]);
        }
        Tool::Nmap => {
            add(&["nmap", "-n", "-Pn", "--max-retries", "0", "--host-timeout", "5s", "-p", &port]);
            add(if is_udp { &["-sU"] } else { &["-sS"] });
            if v6 {
                add(&["-6"]);
            }
            add(&[&address]);
        }
        Tool::Netcat | Tool::Fleetknock => {
            add(&["nc", "-n", "-w", "1"]);
            add(if is_udp { &["-u", "-q", "0"] } else { &["-z"] });
            add(&[&address, &port]);
        }
    }
    words
}
