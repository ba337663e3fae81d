//! Looking at ports from a host: open, refused or filtered, and connections that are held.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::host::Host;

/// How long an answer may take before a port counts as filtered. Shorter than the kernel's first retransmission after
/// one second, so that one look is one packet.
pub const PATIENCE: Duration = Duration::from_millis(400);

/// What a TCP connect came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Accepted.
    Open,
    /// Answered with a reset.
    Refused,
    /// Not answered.
    Filtered,
}

/// An established connection to an echo service.
#[derive(Debug)]
pub struct Held(TcpStream);

impl Held {
    /// Whether a line sent comes back within two seconds.
    ///
    /// # Errors
    /// When the connection is broken, or the answer is something else.
    pub fn echoes(&mut self) -> Result<()> {
        let line = b"still there?\n";
        self.0.set_read_timeout(Some(Duration::from_secs(2)))?;
        self.0.write_all(line).context("cannot write to the held connection")?;
        let mut answer = [0; 13];
        self.0.read_exact(&mut answer).context("the held connection does not answer")?;
        if answer != *line {
            bail!("the held connection answered something else");
        }
        Ok(())
    }
}

impl Host {
    /// What a connect from this host to `to` comes to.
    ///
    /// # Errors
    /// When a connect cannot even be tried.
    pub fn reach(&self, to: SocketAddr) -> Result<Reach> {
        self.reach_from(None, to)
    }

    /// The same from one of this host's addresses.
    ///
    /// # Errors
    /// When a connect cannot even be tried.
    pub fn reach_from(&self, source: Option<IpAddr>, to: SocketAddr) -> Result<Reach> {
        self.came_to(self.inside(|| connect(source, to, PATIENCE))?, to)
    }

    /// The same for many ports, all tried at once, in their order.
    ///
    /// # Errors
    /// When a connect cannot even be tried.
    pub fn reach_each(&self, source: Option<IpAddr>, to: &[SocketAddr]) -> Result<Vec<Reach>> {
        let tried = self.inside(|| {
            // Threads are in the namespace of the one that makes them.
            thread::scope(|scope| {
                let tries: Vec<_> =
                    to.iter().map(|to| scope.spawn(move || connect(source, *to, PATIENCE))).collect();
                tries.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
            })
        })?;
        let reached = tried.into_iter().zip(to).map(|(tried, to)| {
            let tried = tried.map_err(|_| anyhow!("the connect to {to} panicked"))?;
            self.came_to(tried, *to)
        });
        reached.collect()
    }

    fn came_to(&self, tried: std::io::Result<TcpStream>, to: SocketAddr) -> Result<Reach> {
        match tried {
            Ok(_) => Ok(Reach::Open),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Reach::Refused),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(Reach::Filtered),
            Err(error) => Err(error).with_context(|| format!("cannot connect from {} to {to}", self.name())),
        }
    }

    /// Whether a connect succeeds.
    ///
    /// # Errors
    /// When a connect cannot even be tried.
    pub fn reaches(&self, to: SocketAddr) -> Result<bool> {
        Ok(self.reach(to)? == Reach::Open)
    }

    /// From which of these sources a connect succeeds, all tried at once: one packet each.
    ///
    /// # Errors
    /// When a connect cannot even be tried.
    pub fn reached_from(
        &self,
        sources: &[IpAddr],
        to: impl Fn(IpAddr) -> SocketAddr + Sync,
    ) -> Result<BTreeSet<IpAddr>> {
        self.inside(|| -> Result<_> {
            let mut tries = Vec::new();
            for source in sources {
                let to = to(*source);
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
                socket.bind(&SocketAddr::new(*source, 0).into())?;
                socket.set_nonblocking(true)?;
                let _ = socket.connect(&to.into());
                tries.push((*source, socket));
            }
            thread::sleep(PATIENCE);
            Ok(tries
                .into_iter()
                .filter(|(_, socket)| socket.peer_addr().is_ok())
                .map(|(source, _)| source)
                .collect())
        })?
    }

    /// Connects to an echo service and stays connected.
    ///
    /// # Errors
    /// When it cannot connect, or gets no answer.
    pub fn hold(&self, source: Option<IpAddr>, to: SocketAddr) -> Result<Held> {
        let stream = self
            .inside(|| connect(source, to, Duration::from_secs(2)))?
            .with_context(|| format!("cannot connect to {to}"))?;
        let mut held = Held(stream);
        held.echoes()?;
        Ok(held)
    }

    /// Whether a UDP datagram to an echo service comes back.
    ///
    /// # Errors
    /// When it cannot even be sent.
    pub fn udp_answers(&self, source: Option<IpAddr>, to: SocketAddr) -> Result<bool> {
        self.inside(|| -> Result<bool> {
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
            if let Some(source) = source {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            socket.connect(&to.into())?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"hello")?;
            let mut answer = [0; 16];
            Ok((&socket).read(&mut answer).is_ok_and(|length| length == 5))
        })?
    }
}

/// A TCP connect in the calling thread's namespace.
///
/// # Errors
/// As the kernel says; [`ErrorKind::TimedOut`] when nothing answered in time.
pub fn connect(source: Option<IpAddr>, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), patience)?;
    Ok(socket.into())
}
