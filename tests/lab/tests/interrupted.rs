//! A lab goes away when its process is interrupted, and at the latest when the next one starts.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fleetknock_lab::{Lab, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[test]
fn a_terminated_process_takes_its_lab_with_it() {
    let (mut child, prefix, sleeper) = hold();
    assert!(is_there(&prefix) && runs(sleeper));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(!is_there(&prefix));
    wait_until("the program inside to be gone", Duration::from_secs(3), || Ok(!runs(sleeper))).unwrap();
}

#[test]
fn the_next_lab_removes_what_a_killed_process_left() {
    let (mut child, prefix, sleeper) = hold();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_there(&prefix) || !runs(sleeper), "somebody else's lab may have cleaned up already");
    drop(Lab::new("next").unwrap());
    assert!(!is_there(&prefix));
    wait_until("the program inside to be gone", Duration::from_secs(3), || Ok(!runs(sleeper))).unwrap();
}

fn hold() -> (Child, String, u32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleetknock-lab"))
        .arg("hold")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (prefix, sleeper) = line.trim().split_once(' ').unwrap();
    (child, prefix.to_owned(), sleeper.parse().unwrap())
}

fn is_there(prefix: &str) -> bool {
    fs::read_dir("/run/netns")
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(prefix))
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}
