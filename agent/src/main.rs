//! The program `fleetknock-agent`.

use std::process::ExitCode;

use fleetknock_agent::{config::Settings, lift, start};
use fleetknock_runtime::{admin::check, config, exit};

fn main() -> ExitCode {
    exit::run("fleetknock-agent", || {
        let args: Vec<_> = std::env::args_os().collect();
        if lift::is_asked_for(&args) {
            return lift::run(&args);
        }
        let settings = config::load::<Settings>(args)?;
        if settings.check_ready {
            return check::ready("--http", settings.http, || Ok(None));
        }
        start::run(settings.checked()?)
    })
}
