//! The packages are what `deploy/packages/README.md` says: on a clean Debian with its own systemd they are installed,
//! guard a port, are upgraded, removed, purged and installed again, as .deb and as .rpm, with the commands that people type.
#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

use std::{collections::BTreeSet, path::Path, process::Command, time::Instant};

use anyhow::Result;
use fleetknock_deploy::{
    binaries,
    machine::Machine,
    packages::{self, Compression},
    run::run,
};

#[path = "packages/host.rs"]
mod host;
#[path = "packages/life.rs"]
mod life;

/// Higher than the workspace's; the programs in it are the same.
const NEXT: &str = "999.0.0";
const NAMES: [&str; 3] = ["fleetknock", "fleetknock-agent", "fleetknock-controller"];

/// One test, because each of its promises begins where the one before left the machine.
#[test]
fn packages_are_installed_guard_are_upgraded_and_leave_nothing() {
    let begun = Instant::now();
    let say = |what: &str| println!("[{:3} s] {what}", begun.elapsed().as_secs());
    let folder = tempfile::tempdir().unwrap();
    let programs = binaries::release().unwrap();
    say("the programs are there");
    for (name, version) in [("now", None), ("next", Some(NEXT))] {
        packages::build(&programs, &folder.path().join(name), version, Compression::Fast).unwrap();
    }
    say("the packages are built");
    both_kinds_hold_the_same(&folder.path().join("now"));
    let machine = Machine::boot("packages", &["nftables", "netcat-openbsd", "rpm"]).unwrap();
    for name in ["now", "next"] {
        machine.copy(&folder.path().join(name), &format!("/{name}")).unwrap();
    }
    say("a Debian has booted");
    let outcome = promises(&machine, &say);
    if outcome.is_err() {
        println!(
            "{}",
            machine.sh("journalctl --no-pager --lines 40 --unit 'fleetknock*'").unwrap_or_default()
        );
    }
    outcome.unwrap();
}

fn promises(machine: &Machine, say: &dyn Fn(&str)) -> Result<()> {
    let before = life::users_and_rules(machine)?;
    life::debs_are_installed(machine)?;
    say("the .deb packages are installed, and nothing was started");
    host::units_are_closed(machine)?;
    host::settings_that_lack_something_are_said_once(machine)?;
    say("a start without settings fails once, and says what is missing");
    host::guards(machine)?;
    say("a port is guarded and opens by knocking");
    host::remembers_its_guard_without_a_controller(machine)?;
    say("READY comes with the guard, also without a controller");
    host::is_restarted_when_it_hangs(machine)?;
    say("an agent that hangs is restarted, and the guard stays");
    life::upgrade_keeps_guard(machine, "dpkg --install /next/fleetknock-agent_*.deb </dev/null")?;
    say("an upgrade keeps the guard and the settings");
    life::removal_lifts_the_guard(machine, "dpkg --remove fleetknock-agent")?;
    say("removing lifts the guard");
    life::installed_again_it_goes_on(machine)?;
    say("installed again, it goes on with the settings that were kept");
    life::purge_leaves_nothing(machine, &before)?;
    say("purged, nothing is left");

    life::rpms_are_installed(machine)?;
    say("the .rpm packages are installed");
    host::guards(machine)?;
    let upgrade = "rpm --upgrade --nodeps /next/fleetknock-agent-*.rpm";
    life::upgrade_keeps_guard(machine, upgrade)?;
    life::removal_lifts_the_guard(machine, "rpm --erase --nodeps fleetknock-agent")?;
    life::erased_rpms_leave_what_was_edited(machine)?;
    say("the .rpm packages are upgraded and erased alike");
    Ok(())
}

fn both_kinds_hold_the_same(folder: &Path) {
    for name in NAMES {
        let file = |start: &str, end: &str| {
            let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let fits = |path: &std::path::PathBuf| {
                let file = path.file_name().unwrap().to_str().unwrap();
                file.starts_with(&format!("{name}{start}")) && file.ends_with(end)
            };
            files.into_iter().find(fits).unwrap()
        };
        let (deb, rpm) = (file("_", ".deb"), file("-0", ".rpm"));
        // The unit lies elsewhere on a Debian.
        let deb = run(Command::new("dpkg-deb").arg("--contents").arg(deb)).unwrap();
        let deb: BTreeSet<String> = deb
            .lines()
            .filter(|line| line.starts_with('-'))
            .map(|line| {
                line.split_whitespace().nth(5).unwrap()[1..].replace("/lib/systemd", "/usr/lib/systemd")
            })
            .collect();
        let rpm = run(Command::new("rpm").args(["--query", "--list", "--package"]).arg(rpm)).unwrap();
        let rpm: BTreeSet<String> = rpm.lines().map(str::to_owned).collect();
        assert_eq!(deb, rpm, "{name}: the files of the .deb and of the .rpm");
        assert!(deb.contains(&format!("/usr/bin/{name}")), "{deb:?}");
    }
}
