//! `fleetknock backup`: the fleet's records as a file.

use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1;
use fleetknock_runtime::exit;
use serde_json::{Value, json};

use crate::{
    controllers::{Client, Controllers},
    output::Out,
};

pub(crate) mod restore;

/// More of the first line than any controller writes.
const FIRST_LINE_MAX: usize = 64 * 1024;

/// Write the fleet's doors, hosts, bans, tokens and audit trail to a file
///
/// All of it at one revision of the store. Doors are sealed in the file as they are in the store: keep a copy of the seal
/// key elsewhere, without it no backup can be restored. Openings are not in it, nor the private keys of any certificate. The
/// audit trail tells who took a backup. See deploy/backup.md.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock backup --out /var/backups/fleetknock-$(date +%F).backup
  fleetknock backup -o json --out fleet.backup
  fleetknock backup | age -r age1... > fleet.backup.age")]
pub(crate) struct Backup {
    /// Where to; a file that is there is replaced once the new one is whole; standard output unless given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to say what is in it
    #[arg(short, long, value_enum, default_value_t)]
    output: Said,
}

/// How it is said what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Said {
    /// For people
    #[default]
    Table,
    /// As JSON, on standard output
    Json,
}

pub(crate) async fn run(command: &Backup, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let usage = |reason: &str| exit::coded(exit::USAGE, anyhow!(reason.to_owned()));
    if command.out.is_none() {
        if io::stdout().is_terminal() {
            return Err(usage("standard output is a terminal; write the backup to a file with --out"));
        }
        if command.output == Said::Json {
            return Err(usage("standard output is the backup; with -o json give --out too"));
        }
    }
    let ask = async |mut client: Client| client.backup(v1::BackupRequest {}).await;
    // It changes nothing but the audit trail: another controller may be asked when one cannot answer.
    let mut parts = controllers.read(ask).await?;
    let mut file = command.out.as_deref().map(New::create).transpose()?;
    let mut first = Vec::new();
    while let Some(part) = parts.message().await.map_err(|status| controllers.error(&status))? {
        if first.len() < FIRST_LINE_MAX {
            first.extend_from_slice(&part.data);
        }
        match &mut file {
            Some(file) => file.add(&part.data)?,
            None => out.bytes(&part.data)?,
        }
    }
    if let Some(file) = file {
        file.finish()?;
    }
    let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header: Value = serde_json::from_slice(line).unwrap_or_default();
    say(command, &header, out)
}

fn say(command: &Backup, header: &Value, out: &mut Out) -> anyhow::Result<()> {
    let number = |name: &str| header[name].as_u64().unwrap_or_default();
    let text = |name: &str| header[name].as_str().unwrap_or_default();
    let keys: Vec<_> = header["keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let made = Timestamp::from_micros(number("made")).to_string();
    let clear = number("clear");
    if command.output == Said::Json {
        let document = json!({
            "clearDoors": clear,
            "file": command.out.as_ref().map(|path| path.display().to_string()),
            "fleet": text("fleet"),
            "keys": keys,
            "leftOut": number("left_out"),
            "made": made,
            "records": number("records"),
            "revision": number("revision"),
            "version": text("version"),
        });
        out.raw(&format!("{document:#}\n"))?;
    } else {
        let sealed = match keys.as_slice() {
            [] => String::new(),
            keys => format!(", doors sealed with {}", keys.join(" and ")),
        };
        let (fleet, records, revision) = (text("fleet"), number("records"), number("revision"));
        out.remark(format!(
            "backup of the fleet '{fleet}' of {made}: {records} records at revision {revision}{sealed}"
        ))?;
    }
    if clear > 0 {
        out.warning(format!(
            "the steps of {clear} doors lie in this file in the clear, as in the store: whoever reads it can knock (see \
             --seal-key of the controller)"
        ))?;
    }
    if number("left_out") > 0 {
        let count = number("left_out");
        out.warning(format!(
            "{count} records of the store are none that the controller's version knows; left out"
        ))?;
    }
    Ok(())
}

/// A file that takes its name when it is whole, and that only its owner reads.
struct New {
    path: PathBuf,
    partial: PathBuf,
    file: fs::File,
}

impl New {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let failed = |error| failed(path, error);
        // What was broken off.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        Ok(Self { path: path.to_owned(), file: file.map_err(failed)?, partial })
    }

    fn add(&mut self, data: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(data).map_err(|error| failed(&self.path, error))
    }

    fn finish(self) -> anyhow::Result<()> {
        let named = self.file.sync_all().and_then(|()| fs::rename(&self.partial, &self.path));
        named.map_err(|error| failed(&self.path, error))
    }
}

impl Drop for New {
    /// Of a backup that is not whole nothing stays; a finished one has its own name by now.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.partial);
    }
}

fn failed(path: &Path, error: io::Error) -> anyhow::Error {
    exit::coded(exit::IO, anyhow!("cannot write --out {}: {error}", path.display()))
}
