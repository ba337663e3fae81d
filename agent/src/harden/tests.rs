//! What is restricted is tried for real: each attempt in a process of its own, which this test starts from its own file.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    net::{TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr as UnixAddress, UnixDatagram},
            process::ExitStatusExt as _,
        },
    },
    process::{Command, Output},
};

use fleetknock_runtime::notify::Notifier;

use super::*;

/// Which attempt the test is to make.
const ATTEMPT: &str = "FLEETKNOCK_TEST_ATTEMPT";
/// Where the attempt may write, and where it may not.
const FOLDER: &str = "FLEETKNOCK_TEST_FOLDER";
const MADE: i32 = 17;
const REFUSED: i32 = 18;

/// Runs an attempt in a process of its own.
fn attempt(test: &str, what: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("own")).unwrap();
    fs::write(folder.path().join("other"), "secret").unwrap();
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("harden::tests::{test}"), "--nocapture"])
        .env(ATTEMPT, what)
        .env(FOLDER, folder.path())
        .output()
        .unwrap()
}

/// The attempt that this process was started for, under the restrictions of an agent with these needs.
fn made_here(
    needs: impl FnOnce(Needs, PathBuf) -> Needs,
    make: impl FnOnce(&str, PathBuf) -> io::Result<()>,
) -> bool {
    let Ok(what) = env::var(ATTEMPT) else { return false };
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let mut hardening =
        Hardening { level: Level::Require, user: String::new(), in_force: vec![], missing: vec![] };
    hardening.restrict(&needs(Needs { write: vec![folder.join("own")], ..Needs::default() }, folder.clone()));
    assert_eq!(hardening.missing, Vec::<String>::new(), "this kernel cannot show it");
    std::process::exit(if make(&what, folder).is_ok() { MADE } else { REFUSED });
}

#[track_caller]
fn ends(test: &str, what: &str, code: i32) {
    let output = attempt(test, what);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {} {said}", output.status);
}

#[track_caller]
fn is_killed(test: &str, what: &str) {
    let output = attempt(test, what);
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{what}: {}", output.status);
}

#[test]
fn an_agent_without_programs_runs_nothing_and_changes_no_user() {
    let done = made_here(
        |needs, _| needs,
        |what, _| match what {
            "execute" => Command::new("/bin/true").status().map(drop),
            "execute itself" => Err(std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"))),
            "become another user" => Ok(nix::unistd::setuid(nix::unistd::Uid::from_raw(1))?),
            "enter a namespace" => {
                Ok(nix::sched::setns(fs::File::open("/proc")?, nix::sched::CloneFlags::CLONE_NEWNET)?)
            }
            "make a namespace" => Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?),
            "start a thread" => std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().unwrap()),
            _ => unreachable!("{what}"),
        },
    );
    assert!(!done);
    let test = "an_agent_without_programs_runs_nothing_and_changes_no_user";
    ends(test, "start a thread", MADE);
    ends(test, "execute", REFUSED);
    for deadly in ["execute itself", "become another user", "make a namespace"] {
        is_killed(test, deadly);
    }
    // Landlock is in the way before it.
    ends(test, "enter a namespace", REFUSED);
}

#[test]
fn files_beyond_its_own_are_out_of_reach() {
    let done = made_here(
        |needs, _| needs,
        |what, folder| match what {
            "write its own" => {
                fs::write(folder.join("own/a"), "x")?;
                fs::rename(folder.join("own/a"), folder.join("own/b"))?;
                fs::read(folder.join("own/b"))?;
                fs::remove_file(folder.join("own/b"))
            }
            "read another" => fs::read(folder.join("other")).map(drop),
            "write another" => fs::write(folder.join("new"), "x"),
            "read passwords" => fs::read("/etc/shadow").map(drop),
            "read who is who" => fs::read("/etc/passwd").map(drop),
            // A static program has no other way: it looks for the call in a C library that is not beside it.
            "read random bytes" => ["/dev/random", "/dev/urandom"]
                .iter()
                .try_for_each(|path| fs::File::open(path)?.read_exact(&mut [0; 8])),
            "read a setting of the kernel" => fs::read("/proc/sys/net/ipv4/ip_local_port_range").map(drop),
            _ => unreachable!("{what}"),
        },
    );
    assert!(!done);
    let test = "files_beyond_its_own_are_out_of_reach";
    ends(test, "write its own", MADE);
    ends(test, "read a setting of the kernel", MADE);
    ends(test, "read random bytes", MADE);
    for refused in ["read another", "write another", "read passwords", "read who is who"] {
        ends(test, refused, REFUSED);
    }
}

#[test]
fn only_the_ports_of_controllers_are_in_reach() {
    let (allowed, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let done = made_here(
        |needs, _| {
            let word: Vec<_> = env::var(ATTEMPT).unwrap().split(' ').map(str::to_owned).collect();
            Needs { connect: vec![word[1].parse().unwrap()], ..needs }
        },
        |what, _| match what.split(' ').collect::<Vec<_>>()[..] {
            ["connect", _, port] => TcpStream::connect(format!("127.0.0.1:{port}")).map(drop),
            ["listen", _] => TcpListener::bind("127.0.0.1:0").map(drop),
            _ => unreachable!("{what}"),
        },
    );
    assert!(!done);
    let test = "only_the_ports_of_controllers_are_in_reach";
    let (allowed, other) = (port(&allowed), port(&other));
    ends(test, &format!("connect {allowed} {allowed}"), MADE);
    ends(test, &format!("connect {allowed} {other}"), REFUSED);
    ends(test, &format!("listen {allowed}"), REFUSED);
}

#[test]
fn the_service_manager_is_told_through_what_was_opened_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let abstracted = format!("fleetknock-test-harden-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&abstracted).unwrap();
    let managers = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&address).unwrap()];
    let names = [path.display().to_string(), format!("@{abstracted}")];

    let opened = std::cell::OnceCell::new();
    let done = made_here(
        |needs, _| {
            let what = env::var(ATTEMPT).unwrap();
            let (_, name) = what.split_once(' ').unwrap();
            opened.set(Notifier::to(OsStr::new(name), None).unwrap()).unwrap();
            needs
        },
        |what, _| match what.split_once(' ').unwrap() {
            ("tell", _) => opened.get().unwrap().ready("ready"),
            ("open", name) => Notifier::to(OsStr::new(name), None).map(drop),
            _ => unreachable!("{what}"),
        },
    );
    assert!(!done);
    let test = "the_service_manager_is_told_through_what_was_opened_before";
    for (manager, name) in managers.iter().zip(names) {
        ends(test, &format!("tell {name}"), MADE);
        manager.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=ready\n");
        ends(test, &format!("open {name}"), REFUSED);
    }
}

#[test]
fn an_agent_with_programs_runs_those_only() {
    let done = made_here(
        |needs, _| Needs {
            programs: true,
            run: vec![PathBuf::from("/bin/true").canonicalize().unwrap()],
            ..needs
        },
        |what, _| {
            let status = Command::new(what).status()?;
            if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
        },
    );
    assert!(!done);
    let test = "an_agent_with_programs_runs_those_only";
    ends(test, "/bin/true", MADE);
    ends(test, "/bin/ls", REFUSED);
}

#[test]
fn a_directory_that_others_use_is_not_given_away() {
    let folder = tempfile::tempdir().unwrap();
    let own = nix::unistd::geteuid().as_raw();
    // Nothing is changed for the owner itself, whatever it holds.
    fs::write(folder.path().join("letter"), "x").unwrap();
    owner::hand_over(folder.path(), own, 0).unwrap();
    let refused = |fragment: &str| {
        let reason = owner::hand_over(folder.path(), own + 1, 0).unwrap_err();
        assert!(reason.contains(fragment), "{reason}");
    };
    refused("none of them is the agent's");
    fs::write(folder.path().join("picture.json"), "x").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    refused("can be written by others");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    refused("holds folder, which is not the agent's");
    fs::remove_dir(folder.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
    refused("--state");
}

#[test]
fn a_verdict_is_an_error_only_when_all_is_required() {
    let hardening = |level, missing: &[&str]| Hardening {
        level,
        user: "nobody".to_owned(),
        in_force: vec![],
        missing: missing.iter().map(|&text| text.to_owned()).collect(),
    };
    for level in [Level::Auto, Level::Require, Level::Off] {
        hardening(level, &[]).verdict().unwrap();
    }
    hardening(Level::Auto, &["no Landlock"]).verdict().unwrap();
    let error = hardening(Level::Require, &["no Landlock"]).verdict().unwrap_err();
    assert_eq!(exit::code_of(&error), exit::UNAVAILABLE);
    assert!(error.to_string().contains("no Landlock"), "{error}");
}

#[test]
fn a_collector_is_in_reach_when_one_is_named() {
    use clap::Parser as _;
    let needs = |more: &[&str]| {
        let args = ["x", "--host=h", "--controller=http://10.0.0.1:7600", "--insecure"];
        let settings = Settings::try_parse_from([&args[..], more].concat()).unwrap().checked().unwrap();
        Needs::of(&settings, &[])
    };
    assert_eq!(needs(&[]).connect, [7600]);
    let named = needs(&["--otlp=https://collector:4318", "--otlp-ca=/etc/collector/ca.crt"]);
    assert_eq!((named.connect, named.names), (vec![7600, 4318], true));
    assert!(named.read.contains(&PathBuf::from("/etc/collector")), "{:?}", named.read);
}

#[test]
fn a_tokens_directory_is_in_reach_while_it_is_waited_for() {
    use clap::Parser as _;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("token")).unwrap();
    let needs = || {
        let flag = |flag: &str, name: &str| format!("--{flag}={}", at(name).display());
        let (cert, key) = (flag("tls-cert", "state/tls.crt"), flag("tls-key", "state/tls.key"));
        let (ca, token) = (flag("tls-ca", "ca/ca.crt"), flag("enroll-token", "token/token"));
        let args = ["x", "--host=h", "--controller=https://10.0.0.1:7600", &cert, &key, &ca, &token];
        Needs::of(&Settings::try_parse_from(args).unwrap().checked().unwrap(), &[])
    };
    assert!(needs().read.contains(&at("token")), "{:?}", needs().read);
    // What is no certificate that is over is not replaced, so no token is read.
    fs::create_dir(at("state")).unwrap();
    fs::write(at("state/tls.crt"), "something").unwrap();
    assert!(!needs().read.contains(&at("token")), "{:?}", needs().read);
}
