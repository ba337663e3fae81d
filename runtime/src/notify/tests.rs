//! A socket of the tests' own stands for the service manager's.

use std::{io::ErrorKind, path::Path};

use tempfile::TempDir;

use super::*;
use crate::ready::Latch;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn readiness_status_and_the_end_are_told() {
    let manager = Manager::at_path();
    let (mut program, latch) = Program::start(manager.notifier(None));
    assert_eq!(manager.next(), "STATUS=missing: capture open, controller reached\n");
    latch.release();
    assert_eq!(manager.next(), "READY=1\nSTATUS=missing: controller reached\n");
    program.controller.release();
    assert_eq!(manager.next(), "STATUS=ready\n");
    program.controller.engage();
    assert_eq!(manager.next(), "STATUS=missing: controller reached\n");
    program.stop.cancel();
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping\n");
    (&mut program.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_hangs_is_pinged_for_no_more() {
    let manager = Manager::at_path();
    let (program, latch) = Program::start(manager.notifier(Some(Duration::from_millis(200))));
    latch.release();
    let pulse = program.pulses[0].clone();
    let beating = tokio::spawn(async move {
        loop {
            pulse.beat();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    // The other loop does not beat yet: one alive is not enough.
    manager.until("READY=1");
    assert!(!manager.hears("WATCHDOG=1", Duration::from_millis(600)));
    for _ in 0..3 {
        program.pulses[1].beat();
        manager.until("WATCHDOG=1");
    }
    beating.abort();
    program.pulses[1].beat();
    // One may be under way; then there are none.
    let _last = manager.hears("WATCHDOG=1", Duration::from_millis(600));
    program.pulses[1].beat();
    assert!(!manager.hears("WATCHDOG=1", Duration::from_millis(600)));
}

#[test]
fn pings_come_at_half_of_the_time_when_every_pulse_beats() {
    let pulses = [Pulse::new(), Pulse::new()];
    let begin = Instant::now();
    let at = |ms| begin + Duration::from_millis(ms);
    let mut pings = Pings::new(Duration::from_secs(30), &pulses, begin);
    assert_eq!(pings.every, Duration::from_secs(15));
    pulses.iter().for_each(Pulse::beat);
    assert!(!pings.is_due(at(14_999), &pulses));
    assert!(pings.is_due(at(15_000), &pulses));
    pulses[0].beat();
    assert!(!pings.is_due(at(31_000), &pulses), "one of them stands still");
    pulses[1].beat();
    assert!(pings.is_due(at(32_000), &pulses), "late is better than never");
    pulses.iter().for_each(Pulse::beat);
    assert!(!pings.is_due(at(46_000), &pulses));
}

#[test]
fn abstract_sockets_and_paths_are_reached_and_others_refused() {
    let name = format!("fleetknock-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::of(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"), None);
    manager.notifier(None).ready("ready").unwrap();
    assert_eq!(manager.next(), "READY=1\nSTATUS=ready\n");

    let absent = Notifier::to(OsStr::new("/nowhere/notify"), None).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(Notifier::to(OsStr::new("vsock:2:1"), None).is_err());
}

#[tokio::test]
async fn without_a_service_manager_nothing_happens() {
    let notifier = Notifier::default();
    assert!(!notifier.is_heard());
    notifier.ready("ready").unwrap();
    // It ends at once: there is nobody to follow for.
    let never = CancellationToken::new();
    notifier.follow(Readiness::new(), Readiness::new(), vec![Pulse::new()], never).await;
}

/// What listens in the service manager's place.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: Option<TempDir>,
}

impl Manager {
    fn at_path() -> Self {
        let folder = TempDir::new().unwrap();
        let path: &Path = &folder.path().join("notify");
        Self::of(UnixDatagram::bind(path).unwrap(), path.display().to_string(), Some(folder))
    }

    fn of(socket: UnixDatagram, name: String, folder: Option<TempDir>) -> Self {
        Self { socket, name, _folder: folder }
    }

    fn notifier(&self, watchdog: Option<Duration>) -> Notifier {
        Notifier::to(OsStr::new(&self.name), watchdog).unwrap()
    }

    fn within(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn next(&self) -> String {
        self.within(PATIENCE).expect("nothing was said")
    }

    #[track_caller]
    fn until(&self, word: &str) {
        while !self.next().contains(word) {}
    }

    /// Whether this is said within the time.
    fn hears(&self, word: &str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.within(left).is_some_and(|said| said.contains(word)) {
                return true;
            }
        }
        false
    }
}

/// What is followed.
struct Program {
    controller: Latch,
    pulses: [Pulse; 2],
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Program {
    fn start(notifier: Notifier) -> (Self, Latch) {
        let (whole, up, stop) = (Readiness::new(), Readiness::new(), CancellationToken::new());
        let capture = whole.latch("capture open");
        up.needs("capture open", &capture);
        let controller = whole.latch("controller reached");
        let pulses = [Pulse::new(), Pulse::new()];
        let task = tokio::spawn(notifier.follow(up, whole, pulses.to_vec(), stop.clone()));
        (Self { controller, pulses, stop, task }, capture)
    }
}
