//! The program `fleetknock-agent`.

use std::process::ExitCode;

use fleetknock_agent::{config::Settings, lift, start};
use fleetknock_runtime::{config, exit};

fn main() -> ExitCode {
    exit::run("fleetknock-agent", || {
        let args: Vec<_> = std::env::args_os().collect();
        if lift::is_asked_for(&args) {
            return lift::run(&args);
        }
        let settings = config::load::<Settings>(args)?.checked()?;
        start::run(settings)
    })
}
