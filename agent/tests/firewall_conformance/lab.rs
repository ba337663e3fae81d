//! Throw-away network namespaces and the traffic within them.
//!
//! ```text
//!   client 10.9.0.2, .3 ── host 10.9.0.1 │ 10.8.0.1 ── behind 10.8.0.2
//!          fd09::2, ::3         fd09::1  │ fd08::1            fd08::2
//! ```

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use fleetknock_agent::firewall::{Desired, Element, Firewall, Guard, Options};
use socket2::{Domain, Socket, Type};

use crate::drivers::Driver;

/// The client's addresses and the host's.
pub(crate) const CLIENT: &str = "10.9.0.2";
pub(crate) const CLIENT6: &str = "fd09::2";
pub(crate) const OTHER: &str = "10.9.0.3";
pub(crate) const OTHER6: &str = "fd09::3";
pub(crate) const HOST: &str = "10.9.0.1";
pub(crate) const HOST6: &str = "fd09::1";
pub(crate) const BEHIND: &str = "10.8.0.2";

/// A refused packet is dropped: nothing comes within this time.
const NOTHING_WITHIN: Duration = Duration::from_millis(250);
/// What passes is answered at once, but the machine may be busy; shorter than the second after which TCP tries again, so
/// that no attempt succeeds by a later packet.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Runs a case in a thread within the host of a fresh lab.
pub(crate) fn run(driver: Driver, case: fn(&Lab)) {
    let lab = Lab::new(driver);
    lab.in_host(|| case(&lab));
}

pub(crate) struct Lab {
    pub(crate) driver: Driver,
    name: String,
}

impl Lab {
    fn new(driver: Driver) -> Self {
        let name = format!("fk{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { driver, name };
        let [client, host, behind] = ["c", "h", "b"].map(|part| lab.namespace(part));
        let commands = format!(
            "link add veth-c netns {client} type veth peer name veth-h netns {host}\n\
             link add veth-b netns {behind} type veth peer name veth-i netns {host}\n\
             -n {client} addr add {CLIENT}/24 brd + dev veth-c\n-n {client} addr add {OTHER}/24 dev veth-c\n\
             -n {client} addr add {CLIENT6}/64 dev veth-c nodad\n-n {client} addr add {OTHER6}/64 dev veth-c nodad\n\
             -n {host} addr add {HOST}/24 brd + dev veth-h\n-n {host} addr add {HOST6}/64 dev veth-h nodad\n\
             -n {host} addr add 10.8.0.1/24 dev veth-i\n-n {host} addr add fd08::1/64 dev veth-i nodad\n\
             -n {behind} addr add {BEHIND}/24 dev veth-b\n-n {behind} addr add fd08::2/64 dev veth-b nodad\n\
             -n {client} link set lo up\n-n {host} link set lo up\n-n {behind} link set lo up\n\
             -n {client} link set veth-c up\n-n {host} link set veth-h up\n\
             -n {host} link set veth-i up\n-n {behind} link set veth-b up\n\
             -n {client} route add default via {HOST}\n-n {client} route add default via {HOST6}\n\
             -n {behind} route add default via 10.8.0.1\n-n {behind} route add default via fd08::1\n\
             -n {client} route add multicast 224.0.0.0/4 dev veth-c"
        );
        for (part, namespace) in [("c", &client), ("h", &host), ("b", &behind)] {
            shell("ip", &format!("netns add {namespace}"));
            lab.within(part, || {
                // Detecting duplicate addresses takes a second, in which link-local ones cannot be used.
                std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
            });
        }
        for command in commands.lines() {
            shell("ip", command);
        }
        lab.in_host(|| {
            for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/{path}"), "1").unwrap();
            }
        });
        // The kernel may take a second to notice that a link is up; until then there is no IPv6.
        for to in ["[fd09::1]:1", "[fd08::2]:1", "10.9.0.1:1", "10.8.0.2:1"] {
            eventually(Duration::from_secs(10), to, || {
                let tried = lab.in_client(|| TcpStream::connect_timeout(&address(to), NOTHING_WITHIN));
                tried.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
        }
        lab
    }

    fn namespace(&self, part: &str) -> String {
        format!("{}{part}", self.name)
    }

    pub(crate) fn in_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.within("h", work)
    }

    pub(crate) fn in_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.within("c", work)
    }

    pub(crate) fn in_behind<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.within("b", work)
    }

    fn within<T: Send>(&self, part: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace(part));
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(path).unwrap();
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                    .expect("this suite needs root");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A driver in the calling thread's namespace.
    pub(crate) fn firewall(&self) -> Box<dyn Firewall> {
        self.driver.make(Options::default())
    }

    /// A driver that guards these ports.
    pub(crate) fn guarding(&self, ports: &[&str]) -> Box<dyn Firewall> {
        let mut firewall = self.firewall();
        firewall.set_guard(&guard(ports, &[])).unwrap();
        firewall
    }

    /// Whether a TCP connection from this address of the client comes about; the answer that is expected decides how long
    /// is waited.
    fn connects(&self, from: &str, to: SocketAddr, within: Duration) -> bool {
        self.connect(from, to, within).is_some()
    }

    pub(crate) fn connect(&self, from: &str, to: SocketAddr, within: Duration) -> Option<TcpStream> {
        self.in_client(|| connect(from, to, within))
    }

    #[track_caller]
    pub(crate) fn open(&self, from: &str, to: &str) {
        let to = address(to);
        assert!(self.connects(from, to, ANSWER_WITHIN), "{from} cannot connect to {to}");
    }

    #[track_caller]
    pub(crate) fn closed(&self, from: &str, to: &str) {
        let to = address(to);
        assert!(!self.connects(from, to, NOTHING_WITHIN), "{from} can connect to {to}");
    }

    #[track_caller]
    pub(crate) fn udp_open(&self, from: &str, to: &str) {
        assert!(self.asks(from, address(to), ANSWER_WITHIN), "{from} gets no answer from {to}");
    }

    #[track_caller]
    pub(crate) fn udp_closed(&self, from: &str, to: &str) {
        assert!(!self.asks(from, address(to), NOTHING_WITHIN), "{from} gets an answer from {to}");
    }

    fn asks(&self, from: &str, to: SocketAddr, within: Duration) -> bool {
        self.in_client(|| {
            let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(within)).unwrap();
            socket.send_to(b"knock", to).unwrap();
            let mut bytes = [0; 16];
            socket.recv_from(&mut bytes).is_ok()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for part in ["c", "h", "b"] {
            // One that could not be made cannot be removed.
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(part)]).output();
        }
    }
}

pub(crate) fn connect(from: &str, to: SocketAddr, within: Duration) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
    socket.connect_timeout(&to.into(), within).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    Some(stream)
}

/// Whether what is sent on this connection comes back.
pub(crate) fn echoes(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut bytes).is_ok() && &bytes == b"hello"
}

/// Answers on this port of all addresses, in the calling thread's namespace, until the test program ends.
pub(crate) fn serve_tcp(port: u16) {
    let listener = TcpListener::bind(("::", port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut bytes = [0; 512];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// As [`serve_tcp`].
pub(crate) fn serve_udp(port: u16) {
    let four = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    four.join_multicast_v4(&"239.1.2.3".parse().unwrap(), &HOST.parse().unwrap()).unwrap();
    let six = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    six.set_only_v6(true).unwrap();
    six.bind(&SocketAddr::new("::".parse().unwrap(), port).into()).unwrap();
    for socket in [four, six.into()] {
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..length], from);
            }
        });
    }
}

pub(crate) fn shell(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn element(source: &str, port: &str) -> Element {
    Element { source: source.parse().unwrap(), port: port.parse().unwrap() }
}

pub(crate) fn opening(source: &str, port: &str, seconds: u64) -> (Element, Duration) {
    (element(source, port), Duration::from_secs(seconds))
}

pub(crate) fn guard(ports: &[&str], management: &[&str]) -> Guard {
    Guard {
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
        management: management.iter().map(|network| network.parse().unwrap()).collect(),
        ..Guard::default()
    }
}

/// The same, and these ports are observed.
pub(crate) fn observing(observed: &[&str], guard: Guard) -> Guard {
    Guard { observed: observed.iter().map(|port| port.parse().unwrap()).collect(), ..guard }
}

/// The same picture so much later.
pub(crate) fn later(desired: &Desired, since: Instant) -> Desired {
    let mut desired = desired.clone();
    let times = desired.openings.values_mut().chain(desired.bans.values_mut());
    times.for_each(|remaining| *remaining = remaining.saturating_sub(since.elapsed()));
    desired
}

/// Waits until it holds, at most so long.
#[track_caller]
pub(crate) fn eventually(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < end, "{what} not within {within:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
