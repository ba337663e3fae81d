//! The lab's echo service: what stands behind a guarded port.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 2_048;
/// Connects that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Listens on these ports, IPv4 and IPv6, echoes what comes, and never returns. Says so on `out` once all ports listen.
///
/// # Errors
/// When a port is taken.
pub fn serve(tcp: &[u16], udp: &[u16], name: &str, out: &mut dyn Write) -> Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    for port in tcp {
        let listener = listen(*port).with_context(|| format!("cannot listen on tcp/{port}"))?;
        let connections = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connections = Arc::clone(&connections);
                if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                    connections.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                thread::spawn(move || {
                    let _ = echo(stream);
                    connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
    }
    for port in udp {
        let socket = UdpSocket::bind(any(*port)).with_context(|| format!("cannot listen on udp/{port}"))?;
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
    }
    writeln!(out, "{name}: serving tcp {tcp:?} udp {udp:?}")?;
    out.flush()?;
    loop {
        thread::park();
    }
}

/// The standard library's backlog of 128 would drop connects when some hundred come at once.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&any(port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Both families: Linux serves IPv4 on an IPv6 socket unless `net.ipv6.bindv6only` says otherwise.
fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
