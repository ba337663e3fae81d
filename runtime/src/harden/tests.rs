//! Capabilities and no-new-privileges belong to threads: what a test gives up here is given up by its thread alone.

use std::{fs, thread};

use super::*;

/// A line of this thread's status, proc(5).
fn status(name: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn capabilities_that_are_not_kept_are_gone() {
    thread::spawn(|| {
        let had = u64::from_str_radix(&status("CapPrm"), 16).unwrap();
        let bounded = keep_capabilities(&[Capability::CAP_NET_RAW], false).unwrap();
        let kept = had & Capability::CAP_NET_RAW.bitmask();
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(u64::from_str_radix(&status(set), 16).unwrap(), kept, "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status(set), "0000000000000000", "{set}");
        }
        let bounding = u64::from_str_radix(&status("CapBnd"), 16).unwrap();
        assert_eq!(bounded, bounding & !Capability::CAP_NET_RAW.bitmask() == 0);
        assert!(bounded || had & Capability::CAP_SETPCAP.bitmask() == 0, "it could have been cut");
    })
    .join()
    .unwrap();
}

#[test]
fn what_is_inherited_is_what_was_kept() {
    thread::spawn(|| {
        keep_capabilities(&[Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN], true).unwrap();
        assert_eq!(status("CapAmb"), status("CapPrm"));
        assert_eq!(status("CapInh"), status("CapPrm"));
    })
    .join()
    .unwrap();
}

#[test]
fn new_privileges_are_ruled_out() {
    thread::spawn(|| {
        no_new_privileges().unwrap();
        assert_eq!(status("NoNewPrivs"), "1");
    })
    .join()
    .unwrap();
}

#[test]
fn memory_is_private() {
    keep_memory_private().unwrap();
    assert!(!prctl::get_dumpable().unwrap());
    assert_eq!(nix::sys::resource::getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
}

#[test]
fn users_are_found_by_name() {
    assert_eq!(User::named("root").unwrap().map(|user| user.uid), Some(0));
    assert_eq!(User::named("nobody-of-that-name").unwrap(), None);
}
