//! An agent's driver with a firewall in memory and a capture that a test feeds.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use fleetknock_agent::{
    capture::{KnockSpace, Sighting},
    config::OnExit,
    driver::{Driver, Ears, Heard, Parts, metrics::Metrics},
    firewall::{Count, Counts, Desired, Element, Firewall, FirewallError, Guard, Repairs},
    picture::Picture,
};
use fleetknock_core::{port::PortRange, source::Source, time::Timestamp};
use fleetknock_proto::v1;
use fleetknock_runtime::{
    log::{Dial, Filter},
    notify::Pulse,
    ready::Readiness,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::controller::Controller;

/// Longer than anything takes on a busy machine; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    pub(crate) firewall: Kernel,
    space: Arc<Mutex<KnockSpace>>,
    sightings: Option<mpsc::Sender<Sighting>>,
    stop: CancellationToken,
    driver: JoinHandle<anyhow::Result<()>>,
}

impl Host {
    pub(crate) fn start(controllers: &[&Controller]) -> Self {
        Self::start_with(controllers, |_| {})
    }

    pub(crate) fn start_with(controllers: &[&Controller], change: impl FnOnce(&mut Parts)) -> Self {
        let firewall = Kernel::default();
        let space = Arc::new(Mutex::new(KnockSpace::default()));
        let (sender, sightings) = mpsc::channel(65_536);
        let readiness = Readiness::new();
        let management = BTreeSet::from(["10.0.0.0/8".parse().expect("a network")]);
        let mut parts = Parts {
            hello: v1::Hello {
                host: "edge-1".into(),
                labels: [("role".to_owned(), "edge".to_owned())].into(),
                boot: vec![7; 16],
                firewall: "fake".into(),
                management: vec!["10.0.0.0/8".into()],
                ..v1::Hello::default()
            },
            controllers: controllers.iter().map(|controller| controller.url()).collect(),
            connector: None,
            picture: Picture::new(management),
            remembered: false,
            firewall: Box::new(firewall.clone()),
            sightings,
            ears: Box::new(FakeEars(Arc::clone(&space))),
            state: None,
            reconcile_every: Duration::from_millis(100),
            on_exit: OnExit::Keep,
            traces: Default::default(),
            metrics: Metrics::default(),
            certificate: watch::channel(None).1,
            log_dial: Dial::new(Filter::detached("info").expect("a filter"), "info"),
            guard_latch: readiness.latch("guard"),
            controller_latch: readiness.latch("controller"),
            pulse: Pulse::new(),
        };
        change(&mut parts);
        let stop = CancellationToken::new();
        let driver = tokio::spawn(Driver::new(parts).expect("a driver").run(stop.clone()));
        Self { firewall, space, sightings: Some(sender), stop, driver }
    }

    /// The capture sees a knock.
    pub(crate) fn see(&self, from: &str, port: &str) {
        let sighting = Sighting {
            source: from.parse().expect("a source"),
            destination: crate::address(from),
            port: port.parse().expect("a port"),
            time: Timestamp::from_micros(1),
            fingerprint: 1,
        };
        let sender = self.sightings.as_ref().expect("a capture");
        sender.try_send(sighting).expect("room for a sighting");
    }

    /// The capture ends.
    pub(crate) fn deafen(&mut self) {
        self.sightings = None;
    }

    /// The guarded ports that the capture knows.
    pub(crate) fn spaced_ports(&self) -> Vec<String> {
        let space = self.space.lock().expect("not poisoned");
        space.guarded.iter().map(ToString::to_string).collect()
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.driver.await.expect("the driver does not panic")
    }

    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        self.driver.await.expect("the driver does not panic")
    }
}

struct FakeEars(Arc<Mutex<KnockSpace>>);

impl Ears for FakeEars {
    fn set_space(&self, space: KnockSpace) {
        *self.0.lock().expect("not poisoned") = space;
    }

    fn totals(&self) -> Heard {
        Heard::default()
    }

    fn in_use(&self, limit: usize) -> Vec<PortRange> {
        ["tcp/80".parse().expect("a range"); 1].into_iter().take(limit).collect()
    }
}

/// A kernel in memory; cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Kernel(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    guard: Guard,
    openings: BTreeMap<Element, Instant>,
    bans: BTreeMap<Source, Instant>,
    cut: Vec<Element>,
    reconciles: usize,
    counts: Counts,
    refusing: bool,
}

impl Kernel {
    pub(crate) fn guarded(&self) -> Vec<String> {
        self.lock().guard.ports.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn openings(&self) -> Vec<String> {
        let contents = self.lock();
        let running = contents.openings.iter().filter(|(_, end)| **end > Instant::now());
        let mut shown: Vec<_> = running.map(|(element, _)| show(element)).collect();
        shown.sort();
        shown
    }

    pub(crate) fn bans(&self) -> Vec<String> {
        self.lock().bans.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn cuts(&self) -> Vec<String> {
        self.lock().cut.iter().map(show).collect()
    }

    pub(crate) fn reconciles(&self) -> usize {
        self.lock().reconciles
    }

    /// Somebody flushes the rules by hand.
    pub(crate) fn flush(&self) {
        let mut contents = self.lock();
        contents.guard = Guard::default();
        contents.openings.clear();
    }

    /// An element that an earlier run of the agent left.
    pub(crate) fn put(&self, text: &str) {
        let (source, port) = text.split_once(' ').expect("source and port");
        let element =
            Element { source: source.parse().expect("a source"), port: port.parse().expect("a port") };
        self.lock().openings.insert(element, Instant::now() + PATIENCE);
    }

    /// What this kernel says that it dropped and noticed.
    pub(crate) fn count(&self, port: &str, dropped: u64, observed: u64) {
        let port = port.parse().expect("a port");
        self.lock().counts.insert(port, Count { dropped, observed });
    }

    pub(crate) fn refuse_openings(&self, refusing: bool) {
        self.lock().refusing = refusing;
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("not poisoned")
    }
}

fn show(element: &Element) -> String {
    format!("{} {}", element.source, element.port)
}

impl Contents {
    fn willing(&self) -> Result<(), FirewallError> {
        if self.refusing {
            let source = std::io::Error::from_raw_os_error(28);
            return Err(FirewallError::Kernel { action: "add an opening", source });
        }
        Ok(())
    }
}

impl Firewall for Kernel {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn set_guard(&mut self, guard: &Guard) -> Result<(), FirewallError> {
        self.lock().guard = guard.clone();
        Ok(())
    }

    fn open(&mut self, openings: &[(Element, Duration)]) -> Result<(), FirewallError> {
        let mut contents = self.lock();
        contents.willing()?;
        contents.openings.extend(openings.iter().map(|(element, left)| (*element, Instant::now() + *left)));
        Ok(())
    }

    fn close(&mut self, elements: &[Element]) -> Result<(), FirewallError> {
        self.lock().openings.retain(|element, _| !elements.contains(element));
        Ok(())
    }

    fn cut(&mut self, elements: &[Element]) -> Result<usize, FirewallError> {
        self.lock().cut.extend(elements);
        Ok(elements.len())
    }

    fn ban(&mut self, bans: &[(Source, Duration)]) -> Result<(), FirewallError> {
        self.lock().bans.extend(bans.iter().map(|(source, left)| (*source, Instant::now() + *left)));
        Ok(())
    }

    fn unban(&mut self, sources: &[Source]) -> Result<(), FirewallError> {
        self.lock().bans.retain(|source, _| !sources.contains(source));
        Ok(())
    }

    fn reconcile(&mut self, desired: &Desired) -> Result<Repairs, FirewallError> {
        let mut contents = self.lock();
        contents.willing()?;
        contents.reconciles += 1;
        let mut said = Vec::new();
        if contents.guard != desired.guard {
            said.push("the guard was missing".to_owned());
        }
        contents.guard = desired.guard.clone();
        let end = |left: &Duration| Instant::now() + *left;
        contents.openings = desired.openings.iter().map(|(element, left)| (*element, end(left))).collect();
        contents.bans = desired.bans.iter().map(|(source, left)| (*source, end(left))).collect();
        Ok(Repairs { said })
    }

    fn counts(&mut self) -> Result<Counts, FirewallError> {
        Ok(self.lock().counts.clone())
    }

    fn warnings(&mut self) -> Result<Vec<String>, FirewallError> {
        Ok(Vec::new())
    }

    fn remove(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut contents = self.lock();
        contents.guard = Guard::default();
        contents.openings.clear();
        contents.bans.clear();
        Ok(Vec::new())
    }
}

/// The future's value, or a panic that says what was waited for.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
