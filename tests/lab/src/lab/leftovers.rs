//! Taking labs away: this process's own, and those of processes that died without a chance to do it.

use std::{
    collections::BTreeSet,
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PREFIX, ip};

/// How long killed programs may take to go.
const DYING: Duration = Duration::from_secs(3);

/// Held while the machine's namespaces are changed by name.
pub(super) fn lock() -> Result<fs::File> {
    let path = env::temp_dir().join("fleetknock-lab.lock");
    // It may be another user's. The kernel keeps even root from opening that with the wish to make it, in a folder that
    // all may write to (sysctl fs.protected_regular, proc_sys_fs(5)); to be locked it need not be writable.
    let open = || match fs::File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::OpenOptions::new().create(true).append(true).open(&path)
        }
        opened => opened,
    };
    // Somebody else may have made it in between.
    let file = open().or_else(|_| open()).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes every lab of this process.
pub(super) fn remove_own() {
    remove(&format!("{PREFIX}{}-", std::process::id()));
}

/// Removes the labs of processes that no longer exist. Names carry the process id, so nobody else's are touched.
pub(super) fn remove_of_the_dead() {
    let Ok(_lock) = lock() else { return };
    let mut dead = BTreeSet::new();
    for name in names() {
        let Some(pid) = owner(&name) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            dead.insert(format!("{PREFIX}{pid}-"));
        }
    }
    for prefix in dead {
        remove(&prefix);
    }
}

/// The process id in a name that a lab gave.
pub(super) fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Removes every namespace and folder whose name begins like this, after ending what still runs in the namespaces.
pub(super) fn remove(prefix: &str) {
    let namespaces: Vec<_> = names().into_iter().filter(|name| name.starts_with(prefix)).collect();
    let start = Instant::now();
    loop {
        let pids: Vec<i32> = namespaces.iter().flat_map(|name| inhabitants(name)).collect();
        if pids.is_empty() || start.elapsed() > DYING {
            break;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
    for name in &namespaces {
        let _ = ip(&["netns", "del", name]);
    }
    for path in folders() {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Processes whose network namespace it is; never this one.
fn inhabitants(namespace: &str) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    ip(&["netns", "pids", namespace])
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid > 1 && *pid != own)
        .collect()
}

/// The names of all namespaces and folders that could be a lab's.
fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir("/run/netns")
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.extend(folders().iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())));
    names.retain(|name| name.starts_with(PREFIX));
    names
}

/// Where labs of this process namespace keep their files: process ids mean something only within one.
pub(super) fn home() -> PathBuf {
    let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let number: String = space.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    env::temp_dir().join(format!("fleetknock-lab-{number}"))
}

fn folders() -> Vec<PathBuf> {
    fs::read_dir(home())
        .map(|entries| {
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
                .map(|entry| entry.path())
                .collect()
        })
        .unwrap_or_default()
}
