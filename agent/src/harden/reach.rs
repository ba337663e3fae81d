//! What of the file system and the network the agent can reach, as Landlock rules (landlock(7)).
//!
//! Network rules are of Linux 6.7, scopes for signals and sockets of 6.12. Rules for files are rules for what lies at a
//! path when they are made; a directory stays the same when files in it are replaced, so directories are named.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Needs;

/// Rights are those that this version knows; kernels that know fewer enforce what they know.
const VERSION: ABI = ABI::V6;

/// Where the system says who is who and how names are resolved.
const NAME_SERVICES: &[&str] = &["/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"];
/// Libraries, those of name services and of iptables.
const LIBRARIES: &[&str] = &["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"];
/// What loads a program's libraries is executed with it; one of these is there.
const LOADERS: &[&str] = &[
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/lib/ld-musl-riscv64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib64/ld-linux-x86-64.so.2",
];
/// What iptables reads: its tables' names and its own settings.
const FOR_PROGRAMS: &[&str] =
    &["/proc", "/etc/ld.so.cache", "/etc/protocols", "/etc/services", "/etc/xtables.conf", LOCK];
/// The lock of iptables-legacy.
pub(super) const LOCK: &str = "/run/xtables.lock";
const NOTHING: &str = "/dev/null";
/// Where random bytes come from when the C library cannot be asked at run time for the call that gives them, as in a
/// static program.
const RANDOM: &[&str] = &["/dev/random", "/dev/urandom"];
/// The range of ephemeral ports, which decides what may be an answer and no knock.
const KERNEL_SETTINGS: &str = "/proc/sys/net/ipv4";

/// DNS over TCP, when an answer is long.
const DNS: u16 = 53;

/// How much of it the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything.
    Whole,
    /// Not all: it is older than 6.12.
    Part,
    /// Nothing: it has no Landlock.
    Nothing,
}

/// Puts the rules over the calling thread and those that it starts.
pub(super) fn restrict(needs: &Needs) -> Result<Reach, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = AccessFs::ReadFile | AccessFs::Execute;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile;
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> = vec![(KERNEL_SETTINGS.into(), read)];
    rules.extend(RANDOM.iter().map(|path| (path.into(), AccessFs::ReadFile.into())));
    rules.extend(needs.write.iter().map(|path| (path.clone(), write)));
    rules.extend(needs.read.iter().map(|path| (path.clone(), read)));
    if needs.names {
        rules.extend(NAME_SERVICES.iter().chain(LIBRARIES).map(|path| (path.into(), read)));
    }
    if needs.programs {
        rules.extend(LIBRARIES.iter().chain(FOR_PROGRAMS).map(|path| (path.into(), read)));
        rules.push((NOTHING.into(), AccessFs::ReadFile | AccessFs::WriteFile));
        let executed = needs.run.iter().map(PathBuf::as_path).chain(LOADERS.iter().map(Path::new));
        rules.extend(executed.map(|path| (path.to_owned(), run)));
    }

    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    for (path, rights) in rules {
        // What is not there is left out.
        ruleset = ruleset.add_rules(path_beneath_rules([path], rights))?;
    }
    for port in needs.connect.iter().copied().chain(needs.names.then_some(DNS)) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    for port in &needs.listen {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Reach::Whole,
        RulesetStatus::PartiallyEnforced => Reach::Part,
        RulesetStatus::NotEnforced => Reach::Nothing,
    })
}
