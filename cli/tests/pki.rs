//! `fleetknock pki` as people run it, and what it makes in a handshake.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use fleetknock_core::identity::{FleetName, Identity, Who};
use fleetknock_runtime::tls::{
    Acceptor, Certificate, Clients, Connector, Credentials, Expected, Files, Incoming, Limits, OwnFiles,
    UriRule,
    authority::{Access, Authority, BACKDATED, Order, PrivateKey, write_new},
};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

const DAY: u64 = 86_400;

#[test]
fn an_authority_is_made_once() {
    let room = Room::new();
    let made = room.run(&["init", "--fleet", "blue"]);
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.out.starts_with("authority of fleet blue created: pki/ca.crt (until 2"), "{made:?}");
    assert!(made.err.contains("whoever has pki/ca.key can be anybody in the fleet"), "{made:?}");
    assert_eq!(room.mode("pki/ca.key"), 0o600);
    let authority = room.certificate("pki/ca.crt");
    assert!(authority.is_authority);
    assert_eq!(authority.uris, ["fleetknock://blue/authority"]);
    assert!(authority.subject.starts_with("CN=blue CA 2"), "{}", authority.subject);
    assert_eq!(authority.lifetime() - BACKDATED, Duration::from_secs(1825 * DAY));

    let key = room.text("pki/ca.key");
    let again = room.run(&["init", "--fleet", "blue"]);
    assert_eq!((again.code, again.out.as_str()), (74, ""));
    assert!(again.err.contains("pki/ca.crt is already there"), "{again:?}");
    fs::remove_file(room.path("pki/ca.crt")).unwrap();
    assert!(room.run(&["init", "--fleet", "blue"]).err.contains("pki/ca.key is already there"));
    assert_eq!(room.text("pki/ca.key"), key);

    assert_eq!(room.run(&["init", "--fleet", "Blue"]).code, 64);
    assert_eq!(room.run(&["init"]).code, 64);
    let long = "b".repeat(253);
    assert_eq!(room.run(&["init", "--fleet", &long, "--dir", "long", "--for", "1h"]).code, 0);
    assert_eq!(room.run(&["issue", "host", &"h".repeat(200), "--dir", "long"]).code, 0);
}

#[test]
fn certificates_say_who_and_are_short_lived() {
    let room = Room::with_authority();
    let host = room.run(&["issue", "host", "db-1.example", "--out", "db-1"]);
    assert_eq!(host.code, 0, "{host:?}");
    assert!(
        host.out.starts_with("host db-1.example of fleet blue: db-1/db-1.example.crt (until 2"),
        "{host:?}"
    );
    assert_eq!(room.mode("db-1/db-1.example.key"), 0o600);
    assert_eq!(room.text("db-1/ca.crt"), room.text("pki/ca.crt"));
    let of = |path: &str| {
        let certificate = room.certificate(path);
        (certificate.uris.clone(), certificate.purposes.clone(), certificate.lifetime() - BACKDATED)
    };
    let (uris, purposes, lifetime) = of("db-1/db-1.example.crt");
    assert_eq!(uris, ["fleetknock://blue/host/db-1.example"]);
    assert_eq!((purposes, lifetime), (vec!["client".to_owned()], Duration::from_secs(30 * DAY)));

    let named = ["--dns", "knock.example", "--ip", "192.0.2.1", "--ip", "2001:db8::1", "--for", "90d"];
    assert_eq!(room.run(&[&["issue", "controller", "c-1"][..], &named].concat()).code, 0);
    let (uris, purposes, lifetime) = of("pki/c-1.crt");
    assert_eq!(uris, ["fleetknock://blue/controller/c-1"]);
    assert_eq!((purposes.join(" "), lifetime), ("server client".to_owned(), Duration::from_secs(90 * DAY)));
    let controller = room.certificate("pki/c-1.crt");
    assert_eq!(controller.dns_names, ["knock.example"]);
    assert_eq!(controller.addresses.len(), 2);

    assert_eq!(room.run(&["issue", "user", "alice@example.com", "--role", "operator"]).code, 0);
    let (uris, purposes, lifetime) = of("pki/alice@example.com.crt");
    assert_eq!(uris, ["fleetknock://blue/user/alice@example.com?role=operator"]);
    assert_eq!((purposes.join(" "), lifetime), ("client".to_owned(), Duration::from_secs(12 * 3600)));

    // Nothing is replaced unasked, and the authority's own files never.
    let before = room.text("pki/c-1.key");
    let again = room.run(&["issue", "controller", "c-1"]);
    assert_eq!(again.code, 74);
    assert!(again.err.contains("pki/c-1.crt is already there; renew it"), "{again:?}");
    assert_eq!(room.text("pki/c-1.key"), before);
    assert_eq!(room.run(&["issue", "controller", "c-1", "--force"]).code, 0);
    assert_ne!(room.text("pki/c-1.key"), before);
    let authority = room.text("pki/ca.key");
    assert_eq!(room.run(&["issue", "host", "ca", "--force"]).code, 0);
    assert_eq!(room.text("pki/ca.key"), authority);
    assert_eq!(room.certificate("pki/ca-host.crt").uris, ["fleetknock://blue/host/ca"]);

    // It cannot outlive its authority.
    let long = room.run(&["issue", "host", "old", "--for", "4000d"]);
    assert!(long.err.contains("the authority itself ends at 2"), "{long:?}");
    assert_eq!(room.certificate("pki/old.crt").not_after, room.certificate("pki/ca.crt").not_after);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let room = Room::with_authority();
    for (arguments, code, words) in [
        (&["issue", "host", "a", "--role", "admin"][..], 64, "--role is for users only"),
        (&["issue", "user", "a"], 64, "a user needs --role: viewer, operator or admin"),
        (&["issue", "user", "a", "--role", "root"], 64, "'root' is no role"),
        (&["issue", "user", "a/b", "--role", "admin"], 64, "'a/b' is not a user's name"),
        (&["issue", "user", "A", "--role", "admin"], 64, "lower-case letters"),
        (&["issue", "host", "../a"], 64, "'../a' is not a host name"),
        (&["issue", "host", "a", "--dns", "b"], 64, "--dns and --ip are for controllers only"),
        (&["issue", "door", "a"], 64, "door"),
        (&["issue", "host", "a", "--for", "5"], 64, "write a time like 15s"),
        (&["issue", "host", "a", "--fleet", "red"], 64, "is of fleet 'blue', not of 'red'"),
        (
            &["issue", "host", "a", "--dir", "nowhere"],
            66,
            "nowhere/ca.crt is not there; name the authority's",
        ),
        (&["renew", "nowhere.crt"], 66, "cannot read nowhere.crt"),
        (&["show", "nowhere.crt"], 66, "cannot read nowhere.crt"),
        (&["show", "pki/ca.key"], 65, "pki/ca.key: it holds no certificate"),
        (&["renew", "pki/ca.crt"], 65, "is no identity"),
    ] {
        let ran = room.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?} {ran:?}");
        assert!(ran.err.contains(words), "{arguments:?} {ran:?} does not say {words}");
        assert_eq!(
            ran.err.lines().filter(|line| line.starts_with("fleetknock: error")).count(),
            1,
            "{ran:?}"
        );
    }
    assert!(!room.path("pki/a.crt").exists());
    fs::set_permissions(room.path("pki/ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = room.run(&["issue", "host", "a"]);
    assert!(
        open.code == 65 && open.err.contains("everybody on this machine may use this private key"),
        "{open:?}"
    );
}

#[test]
fn renewing_keeps_the_holder_and_changes_the_key() {
    let room = Room::with_authority();
    let names = ["--dns", "knock.example", "--for", "7d"];
    room.run(&[&["issue", "controller", "c-1"][..], &names].concat());
    room.run(&["issue", "user", "alice", "--role", "viewer"]);
    fs::set_permissions(room.path("pki/c-1.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let (old, old_key) = (room.certificate("pki/c-1.crt"), room.text("pki/c-1.key"));
    let renewed = room.run(&["renew", "pki/c-1.crt", "pki/alice.crt"]);
    assert_eq!(renewed.code, 0, "{renewed:?}");
    assert_eq!(renewed.out.lines().count(), 2);
    let new = room.certificate("pki/c-1.crt");
    assert_ne!((&new.serial, room.text("pki/c-1.key")), (&old.serial, old_key));
    assert_eq!(room.mode("pki/c-1.key"), 0o640);
    assert_eq!((&new.uris, &new.dns_names, &new.purposes), (&old.uris, &old.dns_names, &old.purposes));
    assert_eq!(new.lifetime(), old.lifetime());
    room.run(&["renew", "pki/c-1.crt", "--for", "1d"]);
    assert_eq!(room.certificate("pki/c-1.crt").lifetime() - BACKDATED, Duration::from_secs(DAY));
    assert_eq!(room.certificate("pki/alice.crt").uris, ["fleetknock://blue/user/alice?role=viewer"]);

    // Another authority's, one that is over, and one without its key: the good one beside them is renewed all the same.
    room.run(&["init", "--fleet", "blue", "--dir", "other"]);
    room.run(&["issue", "host", "theirs", "--dir", "other"]);
    room.run(&["issue", "host", "keyless"]);
    fs::remove_file(room.path("pki/keyless.key")).unwrap();
    room.issue_before("over", 2, 1);
    let serial = room.certificate("pki/alice.crt").serial;
    let mixed = ["renew", "other/theirs.crt", "pki/over.crt", "pki/keyless.crt", "pki/alice.crt"];
    let ran = room.run(&mixed);
    assert_eq!((ran.code, ran.out.lines().count()), (65, 1), "{ran:?}");
    for words in [
        "other/theirs.crt: it is by 'CN=blue CA ",
        "pki/over.crt: it ended at 2",
        "there is no pki/keyless.key",
        "3 of 4 certificates could not be renewed",
    ] {
        assert!(ran.err.contains(words), "{ran:?} does not say {words}");
    }
    assert_ne!(room.certificate("pki/alice.crt").serial, serial);
    assert!(!room.path("pki/keyless.key").exists());
}

#[test]
fn a_fleet_gets_what_it_lacks_and_keeps_what_lasts() {
    let room = Room::new();
    let holders = ["controller/c-1", "host/db-1", "user/alice?role=admin"];
    let options =
        ["ensure", "--fleet", "blue", "--out", "all", "--dns", "localhost", "--ip", "127.0.0.1", "--group"];
    let everything = [&options[..], &holders].concat();
    let made = room.run(&everything);
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(made.out.lines().count(), 4, "{made:?}");
    assert_eq!((room.mode("pki/ca.key"), room.mode("all/c-1/c-1.key")), (0o600, 0o640));
    assert_eq!(room.certificate("all/c-1/c-1.crt").dns_names, ["c-1", "localhost"]);
    assert_eq!(room.certificate("all/alice/alice.crt").uris, ["fleetknock://blue/user/alice?role=admin"]);
    assert_eq!(room.text("all/db-1/ca.crt"), room.text("pki/ca.crt"));
    assert!(room.certificate("all/db-1/db-1.crt").dns_names.is_empty());

    let files = ["pki/ca.key", "all/c-1/c-1.key", "all/db-1/db-1.key", "all/alice/alice.crt"];
    let before = files.map(|file| room.text(file));
    let again = room.run(&everything);
    assert_eq!(
        (again.code, again.out.as_str()),
        (0, "3 of 3 were there already and were left as they are\n")
    );
    assert_eq!(files.map(|file| room.text(file)), before);

    // One that is nearly over, one that lost its key, and one that needs another name are made anew; others are not.
    room.issue_before("db-1", 2, 1);
    fs::rename(room.path("pki/db-1.crt"), room.path("all/db-1/db-1.crt")).unwrap();
    fs::remove_file(room.path("all/alice/alice.key")).unwrap();
    let renewed = room.run(&everything);
    assert!(renewed.code == 0 && renewed.out.contains("1 of 3 were there"), "{renewed:?}");
    assert!(room.certificate("all/db-1/db-1.crt").not_after > SystemTime::now());
    let named = room.run(&[&everything[..], &["--dns", "knock.example"]].concat());
    assert!(named.code == 0 && named.out.contains("2 of 3 were there"), "{named:?}");
    assert_eq!(room.certificate("all/c-1/c-1.crt").dns_names, ["c-1", "localhost", "knock.example"]);
    assert_eq!(room.mode("all/c-1/c-1.key"), 0o640);

    // Nobody's certificate becomes somebody else's.
    fs::copy(room.path("all/db-1/db-1.crt"), room.path("all/alice/alice.crt")).unwrap();
    let other = room.run(&everything);
    assert!(other.code == 65 && other.err.contains("it is of fleetknock://blue/host/db-1"), "{other:?}");
    let fleet = room.run(&["ensure", "--fleet", "red", "host/a"]);
    assert!(fleet.code == 64 && fleet.err.contains("is of fleet 'blue', not of 'red'"), "{fleet:?}");
    for wrong in ["db-1", "user/alice", "user/alice?role=king", "host/a/b", "fleetknock://blue/host/a"] {
        assert_eq!(room.run(&["ensure", "--fleet", "blue", wrong]).code, 64, "{wrong}");
    }
}

#[test]
fn what_ends_with_its_authority_is_left_as_it_is() {
    let room = Room::new();
    let then = SystemTime::now() - Duration::from_secs(9 * DAY);
    let lasts = Duration::from_secs(10 * DAY);
    let (authority, key) = Authority::create("blue CA", "fleetknock://blue/authority", lasts, then).unwrap();
    fs::create_dir_all(room.path("pki/db-1")).unwrap();
    fs::write(room.path("pki/ca.crt"), authority.pem()).unwrap();
    write_new(&room.path("pki/ca.key"), key.pem(), Access::Owner).unwrap();
    room.issue_before("db-1", 9, 30);
    for extension in ["crt", "key"] {
        let name = format!("db-1.{extension}");
        fs::rename(room.path(&format!("pki/{name}")), room.path(&format!("pki/db-1/{name}"))).unwrap();
    }
    let before = room.certificate("pki/db-1/db-1.crt");
    assert_eq!(before.not_after, room.certificate("pki/ca.crt").not_after);
    let ran = room.run(&["ensure", "--fleet", "blue", "host/db-1"]);
    assert!(ran.code == 0 && ran.out.starts_with("1 of 1 were there already"), "{ran:?}");
    assert_eq!(room.certificate("pki/db-1/db-1.crt"), before);
}

#[test]
fn certificates_are_shown_to_people_and_programs() {
    let room = Room::with_authority();
    room.run(&["issue", "user", "alice", "--role", "admin"]);
    room.issue_before("over", 2, 1);
    let shown = room.run(&["show", "pki/alice.crt", "pki/ca.crt", "pki/over.crt"]);
    let lines: Vec<_> = shown.out.lines().collect();
    assert!(lines[0].starts_with("WHO ") && lines[0].contains("LEFT"), "{shown:?}");
    assert!(lines[1].starts_with("user alice (admin)  blue   11h59m"), "{shown:?}");
    assert!(lines[2].starts_with("authority           blue   1824d "), "{shown:?}");
    assert!(lines[3].starts_with("host over           blue   0s "), "{shown:?}");
    assert!(shown.err.contains("pki/over.crt: it expired at 2"), "{shown:?}");
    assert_eq!(shown.code, 0);

    let json = room.run(&["show", "pki/alice.crt", "-o", "json"]);
    let documents: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let status = &documents[0]["status"];
    assert_eq!(documents[0]["kind"], "Certificate");
    assert_eq!((&status["who"], &status["fleet"]), (&"user alice (admin)".into(), &"blue".into()));
    assert_eq!(status["uris"][0], "fleetknock://blue/user/alice?role=admin");
    assert_eq!(status["issuer"], room.certificate("pki/ca.crt").subject);
    assert_eq!((&status["authority"], &status["key"]), (&false.into(), &"EC 256 bit".into()));
}

#[test]
fn an_authority_of_ones_own_works_too() {
    let room = Room::new();
    let (authority, key) =
        Authority::create("ours", "https://ca.example", Duration::from_secs(DAY), SystemTime::now()).unwrap();
    fs::create_dir(room.path("pki")).unwrap();
    fs::write(room.path("pki/ca.crt"), authority.pem()).unwrap();
    fs::write(room.path("pki/ca.key"), key.pem()).unwrap();
    fs::set_permissions(room.path("pki/ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let nameless = room.run(&["issue", "host", "a"]);
    assert!(nameless.code == 64 && nameless.err.contains("does not name its fleet; name it with --fleet"));
    assert_eq!(room.run(&["issue", "host", "a", "--fleet", "red", "--for", "1h"]).code, 0);
    assert_eq!(room.certificate("pki/a.crt").uris, ["fleetknock://red/host/a"]);
    // A copy beside another authority's is not put in its place.
    room.run(&["init", "--fleet", "blue", "--dir", "blue"]);
    let beside = room.run(&["issue", "host", "b", "--fleet", "red", "--for", "1h", "--out", "blue"]);
    assert!(beside.err.contains("blue/ca.crt does not hold this authority"), "{beside:?}");
    assert_eq!(room.certificate("blue/ca.crt").uris, ["fleetknock://blue/authority"]);
}

#[tokio::test]
async fn what_is_issued_is_what_both_sides_take() {
    let room = Room::with_authority();
    for issue in [
        &["issue", "controller", "c-1"][..],
        &["issue", "host", "db-1"],
        &["issue", "user", "alice", "--role", "viewer"],
    ] {
        assert_eq!(room.run(issue).code, 0);
    }
    let blue: FleetName = "blue".parse().unwrap();
    let rule = |may: fn(&Who) -> bool| {
        let blue = blue.clone();
        UriRule::new(move |uris| {
            let identity = Identity::of_fleet(&blue, uris).map_err(|error| error.to_string())?;
            if may(&identity.who) { Ok(()) } else { Err(format!("it is {}", identity.who)) }
        })
    };
    let credentials = |name: &str| {
        let path = |extension: &str| room.path(&format!("pki/{name}.{extension}"));
        let own = OwnFiles { certificate: path("crt"), key: path("key"), rule: rule(|_| true) };
        Credentials::load(Files { own: Some(own), authorities: vec![room.path("pki/ca.crt")] }).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let hosts = Clients::Required(rule(|who| matches!(who, Who::Host(_))));
    let acceptor = Acceptor::new(credentials("c-1"), hosts).unwrap();
    let mut incoming = Incoming::tls(listener, acceptor, Limits::default());
    let controllers = || Expected::Uri(rule(|who| matches!(who, Who::Controller(_))));
    let host = Connector::new(credentials("db-1"), controllers()).connect(&uri).await.unwrap();
    let accepted = incoming.next().await.unwrap().unwrap();
    assert_eq!(accepted.peer().uris(), ["fleetknock://blue/host/db-1"]);
    assert_eq!(host.server().unwrap().uris, ["fleetknock://blue/controller/c-1"]);
    let user = Connector::new(credentials("alice"), controllers()).connect(&uri).await;
    assert!(user.unwrap_err().to_string().contains("not this name, role or fleet"));
}

/// A directory to work in.
struct Room(tempfile::TempDir);

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with_authority() -> Self {
        let room = Self::new();
        assert_eq!(room.run(&["init", "--fleet", "blue"]).code, 0);
        room
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let ran = Command::new(env!("CARGO_BIN_EXE_fleetknock"))
            .arg("pki")
            .args(arguments)
            .current_dir(&self.0)
            .env_remove("SSH_CONNECTION")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(Path::new(name))
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }

    fn certificate(&self, name: &str) -> Certificate {
        Certificate::from_pem(self.text(name).as_bytes()).unwrap().remove(0)
    }

    /// A host's certificate for some days, by the room's authority, some days ago.
    fn issue_before(&self, name: &str, days: u64, valid_for: u64) {
        let authority = Authority::load(&self.path("pki"), SystemTime::now()).unwrap();
        let order = Order::client(
            name,
            &format!("fleetknock://blue/host/{name}"),
            Duration::from_secs(valid_for * DAY),
        );
        let key = PrivateKey::generate().unwrap();
        let then = SystemTime::now() - Duration::from_secs(days * DAY);
        let issued = authority.sign(&key.public().unwrap(), &order, then).unwrap();
        fs::write(self.path(&format!("pki/{name}.crt")), issued.pem).unwrap();
        fs::write(self.path(&format!("pki/{name}.key")), key.pem()).unwrap();
    }
}
