//! Takes away the environment that programs would be run with.
#![allow(
    unsafe_code,
    reason = "the crate iptables runs programs with this process's environment, which only unsafe calls change"
)]

use std::env;

/// What stays: how a panic is told, what a service manager says of the log, where iptables-legacy has its lock.
const KEPT: &[&str] =
    &["INVOCATION_ID", "JOURNAL_STREAM", "RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "XTABLES_LOCKFILE"];
/// What programs may look into: nobody's own folders.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Removes every variable but a few: settings were read from them, and what is run must not be steered by any
/// (`LD_PRELOAD`, `XTABLES_LIBDIR`).
pub(super) fn clean() {
    let others: Vec<_> = env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_str().is_none_or(|name| !KEPT.contains(&name)))
        .collect();
    for name in others {
        // SAFETY: the agent calls this in its first thread before it starts another one, so nobody reads the environment
        // meanwhile; the names come from the environment itself and so hold neither '=' nor NUL.
        unsafe { env::remove_var(name) };
    }
    // SAFETY: as above; both texts are fixed.
    unsafe { env::set_var("PATH", SEARCH_PATH) };
    // SAFETY: as above. What programs print is parsed.
    unsafe { env::set_var("LC_ALL", "C") };
}
