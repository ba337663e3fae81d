//! The real program: it makes seal keys, starts with the right ones only, and reseals.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fleetknock_controller::{
    seal::{Keyring, SealKey, Sealed},
    store::{Change, Store, Transaction, embedded::EmbeddedStore},
};
use tempfile::TempDir;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

const DOOR: &str = r#"{"format":1,"record":{"door":{"name":"d","knock":{"sequence":{"steps":[{"port":"tcp/27412"}],
    "within":{"secs":15,"nanos":0}}},"opens":{"hosts":{"names":["b"]},"ports":["tcp/22"],"for":{"secs":30,"nanos":0}}},
    "created":0,"updated":0}}"#;

#[test]
fn a_new_key_is_a_file_for_its_owner_and_is_never_overwritten() {
    let place = Place::new();
    let made = place.run(&["seal-key", "--id", "a", "--out", &place.path("a.key")]);
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8(made.stdout).unwrap();
    let path = place.path("a.key");
    let line = fs::read_to_string(&path).unwrap();
    assert_eq!(SealKey::parse(&line).unwrap().id().as_str(), "a");
    assert!(said.contains(&path) && said.contains("'a'") && !said.contains(&line[20..40]), "{said}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

    let again = place.run(&["seal-key", "--out", &path]);
    refused(&again, &["a.key", "the only copy"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), line);

    let printed = place.run(&["seal-key"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_ne!(SealKey::parse(&printed).unwrap().line(), SealKey::parse(&line).unwrap().line());
    refused(&place.run(&["seal-key", "--id", "a b"]), &["--id", "letters"]);
}

#[test]
fn what_runs_at_every_start_makes_a_key_once() {
    let place = Place::new();
    let path = place.path("a.key");
    let keep = ["seal-key", "--id", "a", "--keep", "--group", "--out", &path];
    let made = place.run(&keep);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    let line = fs::read_to_string(&path).unwrap();

    let again = place.run(&keep);
    assert!(again.status.success(), "{again:?}");
    assert!(String::from_utf8(again.stdout).unwrap().contains("holds the key 'a' and was left as it is"));
    assert_eq!(fs::read_to_string(&path).unwrap(), line);

    // What is there must be a key that a controller would take.
    fs::write(&path, "no key\n").unwrap();
    refused(&place.run(&keep), &["a.key"]);
    refused(&place.run(&["seal-key", "--keep"]), &["--out"]);
}

#[test]
fn without_a_key_it_starts_in_a_lab_only() {
    let place = Place::new();
    let tls = ["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a", "--check-config"];
    refused(&place.run(&tls), &["--seal-key is missing", "fleetknock-controller seal-key --out"]);
    let key = place.key("a");
    let fine = place.run(&[&tls[..], &["--seal-key", &key]].concat());
    assert!(fine.status.success(), "{fine:?}");

    // Wrong sources are found before anything else happens, and no key is repeated.
    let line = fs::read_to_string(&key).unwrap();
    for (source, words) in [
        (format!("{key},{key}"), ["two keys", "'a'"]),
        (place.path("none.key"), ["--seal-key", "none.key"]),
        ("env:FLEETKNOCK_TEST_NO_SUCH_KEY".to_owned(), ["FLEETKNOCK_TEST_NO_SUCH_KEY", "not set"]),
        (line.trim().to_owned(), ["a key itself", "fleetknock-controller seal-key"]),
    ] {
        let output = place.run(&["--insecure", "--check-config", "--seal-key", &source]);
        refused(&output, &words);
        assert!(!String::from_utf8_lossy(&output.stderr).contains(&line[20..50]));
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&place.run(&["--insecure", "--check-config", "--seal-key", &key]), &["a.key", "0644", "0640"]);

    let lab = Running::start(&place, &["--insecure"]);
    let said = lab.stop();
    assert!(said.contains("NOT SEALED"), "{said}");
}

#[test]
fn a_key_comes_from_the_environment_and_sources_from_a_file_of_settings() {
    let place = Place::new();
    let line = fs::read_to_string(place.key("a")).unwrap();
    let settings = place.path("controller.yaml");
    fs::write(&settings, "insecure: true\nseal-key: [env:THE_KEY]\n").unwrap();
    let mut command = place.command(&["--config", &settings, "--check-config"]);
    let fine = command.env("THE_KEY", &line).output().unwrap();
    assert!(fine.status.success(), "{fine:?}");
    refused(&place.run(&["--config", &settings, "--check-config"]), &["THE_KEY", "not set"]);
}

#[test]
fn it_does_not_start_without_the_key_of_a_door() {
    let place = Place::new();
    let (old, new) = (place.key("old"), place.key("new"));
    place.put(&[&old], "doors/d", DOOR);
    for (keys, words) in [
        (vec!["--seal-key", &new], ["'doors/d'", "key 'old'", "--seal-key"]),
        (vec![], ["'doors/d'", "key 'old'", "--seal-key"]),
    ] {
        let output = place.run(&[&["--insecure"], &keys[..]].concat());
        refused(&output, &words);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("27412"));
    }
    // Another key of the same name.
    let elsewhere = Place::new();
    let output = place.run(&["--insecure", "--seal-key", &elsewhere.key("old")]);
    refused(&output, &["'doors/d'", "key 'old' of --seal-key does not open it", "backup"]);
    // For another fleet it is as good as changed.
    let output = place.run(&["--insecure", "--fleet", "other", "--seal-key", &old]);
    refused(&output, &["'doors/d'", "--fleet"]);

    let running = Running::start(&place, &["--insecure", "--seal-key", &format!("{new},{old}")]);
    let said = running.stop();
    assert!(!said.contains("NOT SEALED") && !said.contains("27412"), "{said}");
}

#[test]
fn resealing_brings_everything_to_the_first_key() {
    let place = Place::new();
    let (old, new) = (place.key("old"), place.key("new"));
    place.put(&[], "doors/clear", DOOR);
    place.put(&[&old], "doors/d", DOOR);

    refused(&place.run(&["reseal"]), &["--seal-key is missing"]);
    refused(
        &place.run(&["reseal", "--store", "embedded:/no/such/place", "--seal-key", &new]),
        &["no such directory"],
    );
    let both = format!("{new},{old}");
    let running = Running::start(&place, &["--insecure", "--seal-key", &both]);
    refused(
        &place.run(&["reseal", "--seal-key", &both]),
        &["in use by process", "stop its controller first"],
    );
    let said = running.stop();
    assert!(said.contains("in the clear") && said.contains("fleetknock-controller reseal"), "{said}");

    // The old key is still needed: what it seals is left, and the rest is done.
    let half = place.run(&["reseal", "--seal-key", &new]);
    refused(&half, &["'doors/d'", "key 'old'", "keep the old keys"]);

    let done = place.run(&["reseal", "--seal-key", &both]);
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("before: 1 sealed with 'new', 1 sealed with 'old'"), "{said}");
    assert!(said.contains("after: 2 sealed with 'new' (1 resealed)"), "{said}");
    let again = place.run(&["reseal", "--seal-key", &new]);
    assert!(again.status.success(), "{again:?}");
    let said = String::from_utf8(again.stdout).unwrap();
    assert!(said.contains("after: 2 sealed with 'new' (0 resealed)"), "{said}");

    // The old key may go.
    let running = Running::start(&place, &["--insecure", "--seal-key", &new]);
    let said = running.stop();
    assert!(!said.contains("in the clear"), "{said}");
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn store(&self) -> String {
        self.path("store")
    }

    /// A file with a new key of this name.
    fn key(&self, id: &str) -> String {
        let path = self.path(&format!("{id}.key"));
        let made = self.run(&["seal-key", "--id", id, "--out", &path]);
        assert!(made.status.success(), "{made:?}");
        path
    }

    /// The program with these arguments, on this place's store unless they name another.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock-controller"));
        command.args(args).stdin(Stdio::null());
        if !args.contains(&"--store") {
            command.env("FLEETKNOCK_STORE", format!("embedded:{}", self.store()));
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Puts a record as a controller with these keys would.
    fn put(&self, keys: &[&str], key: &str, value: &str) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = EmbeddedStore::open(Path::new(&self.store()).to_owned()).await.unwrap();
            let keys = keys.iter().map(|path| SealKey::parse(&fs::read_to_string(path).unwrap()).unwrap());
            let ring = Keyring::new("default", keys.collect()).unwrap();
            let change = Change::Put { key: key.to_owned(), value: value.to_owned().into() };
            let transaction = Transaction { changes: vec![change], ..Transaction::default() };
            Sealed::new(Arc::new(store), ring).commit(transaction).await.unwrap();
        });
    }
}

struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// It has read its store.
    fn start(place: &Place, args: &[&str]) -> Self {
        let mut command = place.command(args);
        command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (lines, heard) = (BufReader::new(child.stderr.take().unwrap()).lines(), said.clone());
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut running = Self { child, said, reader: Some(reader) };
        let start = Instant::now();
        while !running.said.lock().unwrap().contains("the store was read") {
            let ended = running.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "{ended:?}: {}",
                running.said.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Told to stop; what it said until then.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        self.reader.take().unwrap().join().unwrap();
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// It failed, and said so in one line that holds these words.
fn refused(output: &Output, words: &[&str]) {
    assert!((64..=78).contains(&output.status.code().unwrap()), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = said.lines().filter(|line| line.contains(": error: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    for word in words {
        assert!(errors[0].contains(word), "no '{word}' in: {}", errors[0]);
    }
}
