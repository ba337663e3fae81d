//! `fleetknock import`: doors from a `knockd.conf`.

use std::{collections::BTreeSet, fs, io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Args;
use fleetknock_core::{
    door::{Door, strength, yaml},
    host::{HostName, HostSelector, Labels},
    knockd::{self, ImportOptions},
    port::Port,
};
use fleetknock_runtime::exit;

use crate::{args::time, controllers::REFUSED, files, kind::Label, output::Out};

/// Turn a knockd.conf into doors
///
/// Each section that opens a port becomes a door. What cannot be carried over is said on standard error, with its line.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock import /etc/knockd.conf
  fleetknock import /etc/knockd.conf --host gw-1 --out doors/
  fleetknock import /etc/knockd.conf --default-port tcp/22 | fleetknock apply -f - --weak")]
pub(crate) struct Import {
    /// A knockd.conf, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write: a directory, one file per door, or - for standard output
    #[arg(long, value_name = "DIR|-", default_value = "-")]
    out: PathBuf,
    /// The host that runs this knockd; repeat it for several [default: every host]
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<HostName>,
    /// The label of the hosts that run this knockd
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// What a section opens whose command does not show it [default: such sections are left out]
    #[arg(long, value_name = "PORT")]
    default_port: Option<Port>,
    /// How long a door is open that knockd would leave open
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s")]
    open_for: Duration,
    /// Replace files that are already there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(command: &Import, out: &mut Out) -> anyhow::Result<()> {
    let labels = command.labels.iter().map(|Label(key, value)| (key.clone(), value.clone()));
    let match_labels = Labels::new(labels).map_err(|error| exit::coded(exit::USAGE, error))?;
    let names: BTreeSet<_> = command.hosts.iter().cloned().collect();
    let options = ImportOptions {
        hosts: HostSelector { match_labels, names },
        default_port: command.default_port,
        open_for: command.open_for,
    };
    let text = files::text(&command.file)?;
    let import = knockd::import(&text, &options)
        .map_err(|error| exit::coded(exit::DATA, anyhow!("{}: {error}", command.file.display())))?;
    for note in &import.notes {
        out.remark(format!("{}:{note}", command.file.display()))?;
    }
    for door in &import.doors {
        for weakness in strength::check(door, None).problems {
            out.warning(format!("door '{}': {weakness}; until then apply it with --weak", door.name()))?;
        }
    }
    if import.doors.is_empty() {
        let error = anyhow!("{}: no section could be carried over", command.file.display());
        return Err(exit::coded(REFUSED, error));
    }
    if command.out.as_os_str() == "-" {
        let texts: Vec<_> = import.doors.iter().map(|door| yaml::print(door, true)).collect();
        out.raw(&texts.join("---\n"))?;
        return Ok(());
    }
    write_files(command, &import.doors, out)
}

fn write_files(command: &Import, doors: &[Door], out: &mut Out) -> anyhow::Result<()> {
    let failed = |what: String| {
        move |error: std::io::Error| exit::coded(exit::IO, anyhow::Error::new(error).context(what))
    };
    fs::create_dir_all(&command.out).map_err(failed(format!("cannot make {}", command.out.display())))?;
    for door in doors {
        let path = command.out.join(format!("{}.yaml", door.name()));
        let mut open = fs::OpenOptions::new();
        open.write(true);
        if command.force {
            open.create(true).truncate(true);
        } else {
            open.create_new(true);
        }
        // The file holds the secret steps of a knock.
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
        let mut file = open.open(&path).map_err(|error| {
            let remedy = if error.kind() == std::io::ErrorKind::AlreadyExists {
                "; pass --force to replace it"
            } else {
                ""
            };
            failed(format!("cannot write {}{remedy}", path.display()))(error)
        })?;
        file.write_all(yaml::print(door, true).as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        out.line(path.display().to_string())?;
    }
    Ok(())
}
