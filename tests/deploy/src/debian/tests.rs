//! A clean Debian is what it says.

use std::process::Command;

use crate::{debian, run::run};

#[test]
fn a_clean_debian_is_made_once_and_holds_what_was_asked_for() {
    let file = debian::tar("base", &["ca-certificates"]).unwrap();
    let listed = run(Command::new("tar").arg("--list").arg("--file").arg(&file)).unwrap();
    for wanted in ["./etc/debian_version", "./usr/sbin/update-ca-certificates"] {
        assert!(listed.lines().any(|line| line == wanted), "{wanted} is not in {}", file.display());
    }
    let made = file.metadata().unwrap().modified().unwrap();
    assert_eq!(debian::tar("base", &["ca-certificates"]).unwrap(), file);
    assert_eq!(file.metadata().unwrap().modified().unwrap(), made, "it was made anew");
}
