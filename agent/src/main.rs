//! The program `fleetknock-agent`.

use std::process::ExitCode;

use fleetknock_agent::{config::Settings, start};
use fleetknock_runtime::{config, exit};

fn main() -> ExitCode {
    exit::run("fleetknock-agent", || {
        let settings = config::load::<Settings>(std::env::args_os())?.checked()?;
        start::run(settings)
    })
}
