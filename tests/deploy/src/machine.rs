//! A machine with Debian and a systemd of its own, to install packages into: it has its own processes, network, mounts
//! and control groups, and everything written to it is gone when it ends. It shares the kernel and changes nothing of it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{debian, run::run, tree};

const SCRIPT: &str = include_str!("machine/boot.sh");
/// It takes two seconds; a machine under load is given time.
const BOOTS_WITHIN: Duration = Duration::from_secs(120);
/// Control groups are removed when the last process in them is gone, which takes a moment.
const CLEARED_WITHIN: Duration = Duration::from_secs(10);

/// A machine that runs. It ends when this is dropped, and with the thread that made it.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    cgroup: PathBuf,
    _folder: TempDir,
}

impl Machine {
    /// Boots a clean Debian with systemd and these packages beside it; its tree is made once under this name and kept.
    ///
    /// # Errors
    /// When this is not root, the kernel has no cgroup v2, Debian's packages cannot be reached, or it does not boot.
    pub fn boot(name: &str, packages: &[&str]) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a machine can be booted by root only: run these tests as root");
        }
        let tree = unpacked(name, packages)?;
        let folder = tempfile::Builder::new().prefix("fleetknock-machine-").tempdir()?;
        let script = folder.path().join("boot.sh");
        fs::write(&script, SCRIPT)?;
        let root = folder.path().join("machine");
        fs::create_dir(&root)?;
        let cgroup = own_cgroup()?.join(format!("fleetknock-machine-{}", std::process::id()));
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        let mut command = Command::new("sh");
        command.arg(&script).args([&tree, &root, &cgroup]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("cannot run sh")?;
        let machine = Self { process, cgroup, _folder: folder };
        let begun = Instant::now();
        loop {
            match machine.sh("systemctl is-system-running --wait") {
                Ok(_) => return Ok(machine),
                Err(error) if begun.elapsed() > BOOTS_WITHIN => {
                    return Err(error.context("the machine does not boot"));
                }
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Runs a shell script in the machine, which ends at the first command that fails, and returns all that it wrote.
    ///
    /// # Errors
    /// As [`run`], and when the machine has ended.
    pub fn sh(&self, script: &str) -> Result<String> {
        let outer = self.process.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        let first = children.split_whitespace().next().context("the machine does not run")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", first, "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"]);
        command.args(["sh", "-ec", &format!("cd /\nexec 2>&1\n{script}")]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        run(&mut command)
    }

    /// Copies files of this folder into one of the machine's.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let outer = self.process.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let first = children.split_whitespace().next().context("the machine does not run")?;
        // Its root, seen from here.
        run(Command::new("cp").arg("-rT").arg(from).arg(format!("/proc/{first}/root{to}"))).map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All of its processes end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let begun = Instant::now();
        while self.cgroup.exists() && begun.elapsed() < CLEARED_WITHIN {
            clear(&self.cgroup);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes a control group and those in it, as far as nothing runs there.
fn clear(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            clear(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

/// The folder of the control group in which this process is.
fn own_cgroup() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mount.into_iter().find(|words| words.get(2) == Some(&"cgroup2"));
    let mount = mount.context("the kernel has no cgroup v2 mounted: systemd cannot run without")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own =
        own.lines().find_map(|line| line.strip_prefix("0::/")).context("this process has no cgroup v2")?;
    Ok(Path::new(mount[1]).join(own))
}

/// The tree, unpacked once.
fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let mut all = vec!["systemd", "dbus", "iproute2"];
    all.extend(packages);
    let tar = debian::tar(name, &all)?;
    let folder = tree::kept().join(format!("{name}.tree"));
    let lock = File::create(folder.with_extension("tree.lock"))?;
    lock.lock()?;
    if !folder.exists() {
        let unfinished = folder.with_extension("unfinished");
        fs::create_dir_all(&unfinished)?;
        run(Command::new("tar").arg("-C").arg(&unfinished).arg("-xf").arg(&tar))?;
        fs::rename(&unfinished, &folder)?;
    }
    Ok(folder)
}
