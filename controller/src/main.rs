//! The controller's program.

use std::process::ExitCode;

use fleetknock_controller::{config::Settings, serve};
use fleetknock_runtime::{config, exit, harden, log, notify::Notifier};

fn main() -> ExitCode {
    exit::run("fleetknock-controller", || {
        let settings: Settings = config::load(std::env::args_os())?;
        if let Some(command) = &settings.command {
            return command.run(&settings);
        }
        if settings.check_ready {
            return settings.check_whether_ready();
        }
        settings.check()?;
        if settings.check_config {
            let text = "configuration is valid\n".to_owned();
            return Err(config::ConfigError::Said { text }.into());
        }
        let (traces, spans) = settings.otlp.traces();
        let filter = log::init_with(settings.log_format, &settings.log, &traces)?;
        let dial = log::Dial::new(filter, &settings.log);
        let notifier = Notifier::from_environment();
        // In this thread, before there is another: user and capabilities belong to threads.
        harden::become_ordinary(&settings.capabilities()).map_err(|error| exit::coded(exit::OS, error))?;
        exit::block_on(None, serve::run(settings, dial, traces, spans, notifier))
    })
}
