//! Commands of the controller's program for sealing: it makes seal keys, and seals a store anew.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use fleetknock_runtime::exit::{self, coded};

use super::{
    KeyId, SECRETS, SealKey,
    reseal::{self, Report},
    source,
};
use crate::{
    config::Settings,
    store::{self, StoreSpec},
};

const SEAL_KEY_EXAMPLES: &str = "\
Examples:
  fleetknock-controller seal-key --out /etc/fleetknock/seal.key
      into a new file that its owner alone can read
  fleetknock-controller seal-key --id 2027
      on standard output, such as for a Kubernetes secret
  fleetknock-controller seal-key --out /keys/seal.key --keep --group
      only when there is none yet, and readable by the group of its file, such as in a container that runs at every start

Keep a copy where the store is not. Without the key nobody can read the doors in the store, nor in its backups.";

const RESEAL_EXAMPLES: &str = "\
Examples:
  fleetknock-controller reseal --config /etc/fleetknock/controller.yaml
  fleetknock-controller reseal --store etcd:https://10.0.0.1:2379 --etcd-ca ca.crt --seal-key new.key,old.key

It may run while the controllers of an etcd serve; the controller of an embedded store must be stopped. It can be broken
off and run again. To change the key: give every controller OLD,NEW and restart it; then NEW,OLD; then reseal; then NEW.";

/// Seal keys, and sealing a store anew.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make a key with which the doors in the store are sealed
    #[command(after_help = SEAL_KEY_EXAMPLES)]
    SealKey {
        /// Its name, which stands beside everything that it seals; a random one unless given
        #[arg(long, value_name = "ID")]
        id: Option<KeyId>,

        /// Write it to this new file, mode 0600, and not to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,

        /// Leave a key that is already there as it is: for what runs at every start
        #[arg(long, requires = "out")]
        keep: bool,

        /// Let the file's group read it too (mode 0640): for controllers that run as another user of that group
        #[arg(long, requires = "out")]
        group: bool,
    },

    /// Seal every secret record in the store with the first key of --seal-key
    #[command(after_help = RESEAL_EXAMPLES)]
    Reseal,
}

impl Command {
    /// Carries it out.
    ///
    /// # Errors
    /// One line that names the setting, its value and the remedy.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        match self {
            Self::SealKey { id, out, keep, group } => {
                let mode = if *group { 0o640 } else { 0o600 };
                seal_key(id.clone(), out.as_deref(), *keep, mode)
            }
            Self::Reseal => exit::block_on(None, reseal(settings)),
        }
    }
}

fn seal_key(id: Option<KeyId>, out: Option<&Path>, keep: bool, mode: u32) -> anyhow::Result<()> {
    if let Some(path) = out.filter(|path| keep && path.exists()) {
        let there = source::read(&[path.display().to_string()], &|_| None)
            .map_err(|error| coded(exit::DATA, error))?;
        for key in there {
            say(&format!("{} holds the key '{}' and was left as it is", path.display(), key.id()));
        }
        return Ok(());
    }
    let id = id.unwrap_or_else(|| KeyId::random(rand::random()));
    let key = SealKey::generate(id).map_err(|error| coded(exit::OS, error))?;
    let Some(path) = out else {
        say(&key.line());
        return Ok(());
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AlreadyExists => "; it may be the only copy of a key: move it away first",
            _ => "",
        };
        coded(exit::IO, anyhow!("cannot make --out {}: {error}{remedy}", path.display()))
    })?;
    writeln!(file, "{}", *key.line())
        .and_then(|()| file.sync_all())
        .map_err(|error| coded(exit::IO, anyhow!("cannot write --out {}: {error}", path.display())))?;
    say(&format!(
        "{} holds the key '{}'. Keep a copy where the store is not, and give --seal-key {0} to every controller of the \
         fleet",
        path.display(),
        key.id()
    ));
    Ok(())
}

async fn reseal(settings: &Settings) -> anyhow::Result<()> {
    let usage = |text: String| coded(exit::USAGE, anyhow!(text));
    let keyring = settings.keyring()?;
    let Some(first) = keyring.first() else {
        return Err(usage(
            "--seal-key is missing: name the key to seal with, and after it those that open".to_owned(),
        ));
    };
    let spec = settings.store_of_fleet()?;
    let mut alone = "";
    if let StoreSpec::Embedded { directory } = &spec {
        // Opening would make one.
        if !directory.is_dir() {
            return Err(usage(format!("--store {spec}: there is no such directory")));
        }
        alone = "; to reseal an embedded store, stop its controller first";
    }
    let store = store::open(&spec)
        .await
        .map_err(|error| coded(exit::UNAVAILABLE, anyhow!("cannot open --store {spec}: {error}{alone}")))?;
    let unavailable = || format!("cannot reseal --store {spec}");
    let progress = |done: usize, count: usize| {
        if done == count || done.is_multiple_of(100) {
            say(&format!("{done} of {count} records"));
        }
    };
    let report = reseal::reseal(&*store, &keyring, SECRETS, progress)
        .await
        .map_err(|error| coded(exit::UNAVAILABLE, error))
        .with_context(unavailable)?;
    drop(store);
    let scrubbed = store::scrub(&spec).await;
    say(&format!("before: {}\nafter: {} ({} resealed)", report.before, report.after, report.resealed));
    scrubbed.map_err(|error| coded(exit::UNAVAILABLE, error)).with_context(unavailable)?;
    if matches!(spec, StoreSpec::Etcd(_)) && report.resealed > 0 {
        say(
            "etcd keeps what was there before in its history: compact and defragment it (etcdctl compaction REVISION, \
             etcdctl defrag), and think of its backups",
        );
    }
    if report.before.clear > 0 {
        say("what lay there in the clear may have been read: apply those doors with other sequences");
    }
    judge(&report, first)
}

fn judge(report: &Report, first: &KeyId) -> anyhow::Result<()> {
    if let Some((place, why)) = report.left.first() {
        let count = report.left.len();
        let error = anyhow!(
            "{count} records were left as they are; keep the old keys. The first is '{place}': {why}"
        );
        return Err(coded(exit::DATA, error));
    }
    if report.after.is_all_of(first) {
        return Ok(());
    }
    let error = anyhow!(
        "a controller has written without the key '{first}' meanwhile: make it the first of --seal-key on every \
         controller, restart them, and reseal again"
    );
    Err(coded(exit::TEMPORARY, error))
}

/// On standard output. A reader that went away is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
