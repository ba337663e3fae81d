//! The command over TLS: to a controller of the fleet, and to others. Certificates are made as people make them.

use std::{path::PathBuf, process::Command};

use fleetknock_runtime::tls::{Files, OwnFiles, UriRule};
use tempfile::TempDir;

use super::{Ran, run, stand_in::StandIn};

#[test]
fn a_controller_of_the_fleet_answers() {
    let blue = Room::new("blue");
    blue.pki(&["issue", "controller", "c-1"]);
    blue.pki(&["issue", "user", "alice", "--role", "admin"]);
    let fleet = StandIn::secure(blue.files("c-1"));
    assert!(fleet.url().starts_with("https://127.0.0.1:"));
    let listed = blue.ask(&fleet.url(), "alice", "blue", &["get", "doors", "-o", "json"]);
    assert_eq!((listed.code, listed.lines), (0, vec!["[]".to_owned()]), "{:?}", listed.errors);

    let flags = [
        "controller".to_owned(),
        format!("[{}]", fleet.url()),
        "tls-cert".to_owned(),
        blue.shown("alice.crt"),
        "tls-key".to_owned(),
        blue.shown("alice.key"),
        "tls-ca".to_owned(),
        format!("[{}]", blue.shown("ca.crt")),
        "fleet".to_owned(),
        "blue".to_owned(),
    ];
    let text: String = flags.chunks(2).map(|pair| format!("{}: {}\n", pair[0], pair[1])).collect();
    std::fs::write(blue.path("cli.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
    command.args(["get", "doors", "-o", "json", "--config"]).arg(blue.path("cli.yaml"));
    let listed = run(command, "");
    assert_eq!((listed.code, listed.lines), (0, vec!["[]".to_owned()]), "{:?}", listed.errors);
}

#[test]
fn whoever_is_not_trusted_is_told_nothing_and_it_is_said_why() {
    let (blue, other) = (Room::new("blue"), Room::new("blue"));
    for room in [&blue, &other] {
        room.pki(&["issue", "controller", "c-1"]);
        room.pki(&["issue", "user", "alice", "--role", "admin"]);
    }
    let fleet = StandIn::secure(blue.files("c-1"));
    let ban = ["ban", "203.0.113.5", "--for", "1h"];
    // Another authority than the controller's is trusted.
    let refused = other.ask(&fleet.url(), "alice", "blue", &ban);
    assert_eq!(refused.code, 77, "{refused:?}");
    for said in [
        &fleet.url(),
        "its certificate is from an authority (CA) that is not trusted here",
        "nothing was sent to it; check --tls-ca and --fleet",
    ] {
        assert!(refused.errors[0].contains(said), "{refused:?}");
    }
    // The user's certificate is from another authority than the controller's.
    std::fs::copy(blue.path("ca.crt"), other.path("ca.crt")).unwrap();
    let refused = other.ask(&fleet.url(), "alice", "blue", &ban);
    assert_eq!(refused.code, 77, "{refused:?}");
    let said = "does not trust the authority (CA) of this side's certificate";
    assert!(refused.errors[0].contains(said) && refused.errors[0].contains("--tls-cert"), "{refused:?}");
    // The own certificate must be a user's, of the fleet that was named.
    let refused = blue.ask(&fleet.url(), "alice", "red", &ban);
    assert_eq!(refused.code, 65, "{refused:?}");
    assert!(
        refused.errors[0].contains("of another fleet") && refused.errors[0].contains("(--fleet red)"),
        "{refused:?}"
    );
    let refused = blue.ask(&fleet.url(), "c-1", "blue", &ban);
    assert!(refused.errors[0].contains("that of controller c-1, and a user is expected"), "{refused:?}");
    assert!(fleet.bans().is_empty());
}

#[test]
fn trust_is_chosen_by_flags() {
    let refused = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
        command.args(["get", "doors"]).args(args);
        let ran = run(command, "");
        assert_eq!(ran.code, 64, "{ran:?}");
        ran.errors[0].clone()
    };
    let none = refused(&[]);
    assert!(
        none.contains("--tls-cert, --tls-key and --tls-ca are missing") && none.contains("fleetknock pki"),
        "{none}"
    );
    assert!(refused(&["--insecure", "--tls-cert", "x"]).contains("are both given"));
    assert!(refused(&["--insecure", "--controller", "https://127.0.0.1:1"]).contains("choose one of them"));
    assert!(refused(&["--controller", "http://127.0.0.1:1"]).contains("pass --insecure"));
}

/// A directory with an authority.
pub(crate) struct Room(TempDir);

impl Room {
    pub(crate) fn new(fleet: &str) -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        room.pki(&["init", "--fleet", fleet]);
        room
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn pki(&self, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
        command.arg("pki").args(args).args(["--dir", &self.shown("")]);
        let ran = run(command, "");
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    pub(crate) fn files(&self, name: &str) -> Files {
        let own = OwnFiles {
            certificate: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            rule: UriRule::anybody(),
        };
        Files { own: Some(own), authorities: vec![self.path("ca.crt")] }
    }

    fn ask(&self, url: &str, user: &str, fleet: &str, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
        command.args(args).args(["--controller", url, "--fleet", fleet, "--tls-ca", &self.shown("ca.crt")]);
        command.env("FLEETKNOCK_TLS_CERT", self.path(&format!("{user}.crt")));
        command.env("FLEETKNOCK_TLS_KEY", self.path(&format!("{user}.key")));
        run(command, "")
    }
}
