//! The agent as a DaemonSet starts it: user 0 with two capabilities and no way to become anybody else, nothing to write but
//! its state, and volumes that the kubelet swaps beneath it. A scripted controller on loopback signs.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers fail as tests do; clippy only knows the functions marked as tests"
)]

mod certificate {
    pub(crate) mod office;
    pub(crate) mod volume;
}

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use certificate::{
    office::{Manner, Office},
    volume::Volume,
};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// CAP_NET_ADMIN (12) and CAP_NET_RAW (13), as proc(5) writes them.
const TWO: &str = "0000000000003000";
const FIRST: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.Zmlyc3Q";
const SECOND: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhIjoyfQ.c2Vjb25k";
/// What a container runtime does, with the mounts and capabilities of the tests' own process.
/// `$0` says what lies over /etc.
const CONTAINER: &str = "if [ \"$0\" = empty ]; then mount -t tmpfs none /etc; fi && mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro / && shift && \
    exec setpriv --inh-caps=-all --bounding-set=-all,+net_raw,+net_admin --no-new-privs \"$@\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_enrols_with_the_token_that_lies_there_now_and_says_what_it_could_not_give_up() {
    let office = Office::open().await;
    let folder = tempfile::tempdir().unwrap();
    let token = Volume::new(&folder.path().join("token"), "token", FIRST);
    let ca = Volume::new(&folder.path().join("ca"), "ca.crt", &office.authorities());
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    office.become_one(Manner::Refuse);
    let agent = Agent::start(&office, folder.path(), &state, "full");
    agent.until("it to show its token", || office.seen().tokens.contains(&FIRST.to_owned()));
    agent.until("it to say so", || agent.log().contains("this host is not enrolled yet"));

    // An hour later: the agent is held by Landlock since long.
    token.swap("token", SECOND);
    agent.until("it to show the next one", || office.seen().tokens.contains(&SECOND.to_owned()));
    office.become_one(Manner::Sign);
    agent.until("it to be enrolled", || agent.log().contains("this host is enrolled"));
    assert!(state.join("tls.crt").exists() && state.join("tls.key").exists());
    assert_eq!(fs::read_to_string(folder.path().join("ca/ca.crt")).unwrap(), office.authorities());
    assert!(!agent.log().contains(FIRST) && !agent.log().contains(SECOND));

    let log = agent.log();
    let line = log.lines().find(|line| line.contains("hardened")).unwrap_or_else(|| panic!("{log}"));
    for said in [
        "hardened in part",
        "two capabilities",
        "no new privileges",
        "Landlock",
        "seccomp",
        "it stays root: ",
    ] {
        assert!(line.contains(said), "{said}: {line}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t{TWO}")), "{status}");
    }
    // What is swapped later is followed: the fleet's next authority arrives as the ConfigMap changes.
    office.trust_another();
    ca.swap("ca.crt", &office.authorities());
    agent.until("the next authority to be read", || agent.log().contains("TLS files"));
    assert!(agent.is_running(), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_a_list_of_users_is_enough() {
    let office = Office::open().await;
    let folder = tempfile::tempdir().unwrap();
    let _token = Volume::new(&folder.path().join("token"), "token", FIRST);
    let _ca = Volume::new(&folder.path().join("ca"), "ca.crt", &office.authorities());
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let agent = Agent::start(&office, folder.path(), &state, "empty");
    agent.until("it to be enrolled", || agent.log().contains("this host is enrolled"));
    assert!(agent.log().contains("it stays root: "), "{}", agent.log());
}

/// It, in mounts of its own.
struct Agent {
    child: std::sync::Mutex<Child>,
    log: std::path::PathBuf,
}

impl Agent {
    fn start(office: &Office, folder: &Path, state: &Path, etc: &str) -> Self {
        let log = folder.join("log");
        let file = fs::File::create(&log).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", CONTAINER, etc])
            .arg(state)
            .arg(env!("CARGO_BIN_EXE_fleetknock-agent"))
            .args(["--host=edge-1", "--fleet=blue", "--firewall=dry-run", "--interface=lo"])
            .arg(format!("--controller={}", office.url()))
            .arg(format!("--enroll-token={}", at("token/token")))
            .arg(format!("--tls-ca={}", at("ca/ca.crt")))
            .arg(format!("--tls-cert={}", at("state/tls.crt")))
            .arg(format!("--tls-key={}", at("state/tls.key")))
            .arg(format!("--state={}", state.display()))
            .env("NO_COLOR", "1")
            .stdout(Stdio::from(file.try_clone().unwrap()))
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        Self { child: child.into(), log }
    }

    /// All of them become the agent by exec.
    fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    fn is_running(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(self.is_running(), "it ended: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}
