//! `make packages`: the release's programs, as .deb and .rpm packages, in `target/packages`.

use std::{
    io::{Write as _, stdout},
    process::ExitCode,
};

use anyhow::Result;
use fleetknock_deploy::{
    binaries,
    packages::{self, Compression},
    tree,
};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    say("the programs: as the images' (the first time takes minutes)");
    let programs = binaries::release()?;
    say("the packages");
    let out = packages::build(&programs, &tree::target().join("packages"), None, Compression::Small)?;
    say(&format!("they lie in {}", out.display()));
    Ok(())
}

fn say(line: &str) {
    // Nobody is told when nobody listens.
    let _ = writeln!(stdout(), "{line}");
}
