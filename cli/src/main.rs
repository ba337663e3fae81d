//! The `fleetknock` command: knocks, and operates a fleet through a controller.

use std::process::ExitCode;

mod apply;
mod args;
mod backup;
mod ban;
mod check;
mod close;
mod completions;
mod confirm;
mod controllers;
mod delete;
mod describe;
mod explain;
mod files;
mod get;
mod import;
mod kind;
mod knock;
mod log;
mod open;
mod output;
mod pki;
mod resource;
mod session;
mod token;
mod top;
mod watch;

fn main() -> ExitCode {
    fleetknock_runtime::exit::run("fleetknock", || {
        let cli: args::Cli = fleetknock_runtime::config::load(std::env::args_os())?;
        let result = fleetknock_runtime::exit::block_on(Some(2), args::run(cli));
        output::unless_reader_left(result)
    })
}
