//! A network namespace per test, and a capture in it.
#![allow(unreachable_pub, reason = "the file above is the whole crate")]

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fleetknock_agent::capture::{CaptureHandle, Settings, Sighting, counters::Counters, start};
use nix::sched::{CloneFlags, unshare};
use pnet::datalink::{self, Channel, DataLinkSender};
use tokio::sync::mpsc::Receiver;

use super::craft::{self, IPV4, SYN, TCP};

pub const HOST4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const PEER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Floods beside a test that measures time would make it say nothing.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test in a thread with a new network namespace, which ends with the thread.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace can be made; run this test as root");
        // Nothing but the tests speaks on these links.
        fs::write("/proc/sys/net/ipv6/conf/default/router_solicitations", "0").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1").unwrap();
        ip("link set lo up");
        ip("link add host0 type veth peer name wire0");
        ip("link set wire0 up");
        ip("link set host0 up");
        wait_up("wire0");
        wait_up("host0");
        ip(&format!("addr add {HOST4}/24 dev host0"));
        ip(&format!("addr add {HOST6}/64 dev host0 nodad"));
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words.
pub fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("the program ip runs");
    assert!(status.success(), "ip {words}");
}

/// Until an interface carries packets: after a link comes up the kernel takes up to a second, and until then drops them.
pub fn wait_up(name: &str) {
    let began = Instant::now();
    loop {
        let output = Command::new("ip").args(["link", "show", name]).output().expect("the program ip runs");
        if String::from_utf8_lossy(&output.stdout).contains("state UP") {
            break std::thread::sleep(Duration::from_millis(10));
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{name} never came up");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the kernel sets aside for options of a socket in this namespace.
pub fn set_option_memory(bytes: u32) {
    fs::write("/proc/sys/net/core/optmem_max", bytes.to_string()).unwrap();
}

/// The hardware address of an interface.
pub fn mac(name: &str) -> [u8; 6] {
    interface(name).mac.expect("has a hardware address").octets()
}

fn interface(name: &str) -> datalink::NetworkInterface {
    datalink::interfaces().into_iter().find(|interface| interface.name == name).expect("the interface exists")
}

/// The far end of a veth pair, where frames are put on the wire.
pub struct Wire {
    sender: Box<dyn DataLinkSender>,
    from: [u8; 6],
    to: [u8; 6],
}

impl Wire {
    pub fn open(far: &str, near: &str) -> Self {
        let config = datalink::Config { promiscuous: false, ..datalink::Config::default() };
        let Channel::Ethernet(sender, _) = datalink::channel(&interface(far), config).unwrap() else {
            panic!("a veth carries Ethernet");
        };
        Self { sender, from: mac(far), to: mac(near) }
    }

    pub fn send(&mut self, ethertype: u16, packet: &[u8]) {
        self.send_to(self.to, ethertype, packet);
    }

    pub fn send_to(&mut self, to: [u8; 6], ethertype: u16, packet: &[u8]) {
        let frame = [&to, &self.from, ethertype.to_be_bytes().as_slice(), packet].concat();
        self.sender.send_to(&frame, None).unwrap().unwrap();
    }
}

/// A running capture and the wire to it.
pub struct Lab {
    pub handle: CaptureHandle,
    pub receiver: Receiver<Sighting>,
    pub counters: Arc<Counters>,
    wire: Wire,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    pub fn start(settings: Settings) -> Self {
        let (handle, receiver) = start(settings).unwrap();
        let counters = handle.counters();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { handle, receiver, counters, wire: Wire::open("wire0", "host0"), runtime }
    }

    /// Keeps only the capture.
    pub fn drop_wire(self) -> (Receiver<Sighting>, CaptureHandle) {
        (self.receiver, self.handle)
    }

    pub fn send(&mut self, ethertype: u16, packet: &[u8]) {
        self.wire.send(ethertype, packet);
    }

    pub fn send_to(&mut self, to: [u8; 6], ethertype: u16, packet: &[u8]) {
        self.wire.send_to(to, ethertype, packet);
    }

    /// A SYN over IPv4.
    pub fn knock(&mut self, port: u16) {
        self.send(IPV4, &craft::ipv4(PEER4, HOST4, TCP, &[], &craft::tcp(999, port, SYN, port.into())));
    }

    pub fn next(&mut self, at_most: Duration) -> Option<Sighting> {
        let receiver = &mut self.receiver;
        self.runtime.block_on(async { tokio::time::timeout(at_most, receiver.recv()).await.ok().flatten() })
    }

    pub fn take(&mut self, count: usize) -> Vec<Sighting> {
        (0..count).map_while(|_| self.next(Duration::from_secs(2))).collect()
    }

    /// Exactly these ports are sighted, in this order.
    pub fn expect(&mut self, ports: &[&str]) {
        let mut seen: Vec<String> = self.take(ports.len()).iter().map(|s| s.port.to_string()).collect();
        seen.extend(self.next(Duration::from_millis(100)).map(|s| format!("{} too many", s.port)));
        assert_eq!(seen, ports, "{:?}", self.counters);
    }

    /// Until so many packets were read or dropped, nothing more comes and nothing is held.
    pub fn settle(&self, packets: u64) {
        let began = Instant::now();
        while self.counters.packets.value() + self.counters.kernel_drops.value() < packets {
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", self.counters);
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    pub fn wait_for_swaps(&self, count: u64) {
        let began = Instant::now();
        while self.counters.filter_swaps.value() < count {
            assert!(began.elapsed() < Duration::from_secs(5), "the filter was never replaced");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What this namespace's capture thread has spent on a processor.
    pub fn thread_nanos(&self) -> u64 {
        let namespace = |path: &str| fs::metadata(path).map(|found| found.ino()).ok();
        let own = namespace("/proc/thread-self/ns/net");
        let tasks = fs::read_dir("/proc/self/task")
            .unwrap()
            .flatten()
            .map(|entry| entry.path().display().to_string());
        let capture = tasks.filter(|task| namespace(&format!("{task}/ns/net")) == own).find(|task| {
            fs::read_to_string(format!("{task}/comm")).is_ok_and(|name| name.trim() == "capture")
        });
        let text = fs::read_to_string(format!("{}/schedstat", capture.expect("the thread runs"))).unwrap();
        text.split(' ').next().and_then(|first| first.parse().ok()).expect("nanoseconds come first")
    }
}
