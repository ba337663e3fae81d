//! What a process gives up once it runs: capabilities, the way to new privileges, its user, a readable memory.
//!
//! User and capabilities belong to threads, not to processes (credentials(7), capabilities(7)): all of this is for the
//! first thread of a program, before there is another one. Threads that it starts inherit everything.

use std::io;

use caps::{CapSet, CapsHashSet};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{self, Gid, Uid},
};

pub use caps::Capability;

mod users;

/// No other process of the same user can read this one's memory, and a crash leaves none of it in a file: keys are in
/// it. To be called again after the user was changed, which the kernel takes as a reason to reset it.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_memory_private() -> Result<(), HardenError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(refused("limit core dumps"))?;
    prctl::set_dumpable(false).map_err(refused("make the memory private (PR_SET_DUMPABLE)"))
}

/// From now on nothing that is run can have more privileges than this thread has (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// When the kernel refuses.
pub fn no_new_privileges() -> Result<(), HardenError> {
    prctl::set_no_new_privs().map_err(refused("rule out new privileges (PR_SET_NO_NEW_PRIVS)"))
}

/// Whether this process is root, of its user namespace at least.
pub fn is_root() -> bool {
    unistd::geteuid().is_root()
}

/// Keeps these capabilities, as far as they are there, and gives up all others; with `inherit` programs that are run get
/// them too. Says whether the bounding set holds no others: without CAP_SETPCAP that is for whoever starts the process.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_capabilities(kept: &[Capability], inherit: bool) -> Result<bool, HardenError> {
    let bounded = bound_capabilities(kept)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept.iter().copied().filter(|kept| permitted.contains(kept)).collect();
    let inherited = if inherit { kept.clone() } else { CapsHashSet::new() };
    // Ambient ones go with the inheritable; effective before permitted, which they must not exceed.
    let sets = [
        (CapSet::Inheritable, &inherited),
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &kept),
        (CapSet::Ambient, &inherited),
    ];
    for (set, wanted) in sets {
        // Where there is nothing to change, whoever starts the process may have ruled changes out.
        if caps::read(None, set)? != *wanted {
            caps::set(None, set, wanted)?;
        }
    }
    Ok(bounded)
}

fn bound_capabilities(kept: &[Capability]) -> Result<bool, HardenError> {
    let able = caps::has_cap(None, CapSet::Permitted, Capability::CAP_SETPCAP)?;
    if able {
        // A change of the user takes away what is effective, not what is permitted.
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
    }
    let mut bounded = true;
    let others = caps::runtime::thread_all_supported().into_iter().filter(|other| !kept.contains(other));
    for other in others {
        if caps::has_cap(None, CapSet::Bounding, other)? {
            if able {
                caps::drop(None, CapSet::Bounding, other)?;
            } else {
                bounded = false;
            }
        }
    }
    Ok(bounded)
}

/// What a program gives up that needs nothing of root: every capability but these, new privileges, a readable memory.
/// Warns when it is run as root all the same.
///
/// # Errors
/// When the kernel refuses.
pub fn become_ordinary(kept: &[Capability]) -> Result<(), HardenError> {
    keep_memory_private()?;
    // What the bounding set still holds is out of reach without new privileges.
    keep_capabilities(kept, false)?;
    no_new_privileges()?;
    if is_root() {
        tracing::warn!(
            "RUN AS ROOT: nothing here needs it, and whoever breaks in can change every file of root's; run it as a user of \
             its own, with systemd: DynamicUser=yes"
        );
    }
    Ok(())
}

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of its own group.
    pub gid: u32,
}

impl User {
    /// Looks for a user by name, in `/etc/passwd` and nowhere else.
    ///
    /// # Errors
    /// When the system's list of users cannot be read.
    pub fn named(name: &str) -> Result<Option<Self>, HardenError> {
        Ok(users::named(&list(users::PASSWD)?, name))
    }

    /// The user and the groups of this user for the time of `work`, as root: what that user may do with files can be
    /// tried. Other threads get the user for that time too.
    ///
    /// # Errors
    /// When the kernel refuses, as it does in a user namespace that does not have this user.
    pub fn for_a_while<T>(&self, work: impl FnOnce() -> T) -> Result<T, HardenError> {
        let groups = unistd::getgroups().map_err(refused("list groups"))?;
        let (uid, gid) = (unistd::geteuid(), unistd::getegid());
        self.take_groups()?;
        let back = || {
            unistd::seteuid(uid)?;
            unistd::setegid(gid)?;
            unistd::setgroups(&groups)
        };
        let become_it = unistd::setegid(Gid::from_raw(self.gid))
            .and_then(|()| unistd::seteuid(Uid::from_raw(self.uid)))
            .map_err(self.not_here());
        let result = become_it.map(|()| work());
        back().map_err(refused("become root again"))?;
        result
    }

    /// Becomes this user for good, and keeps the permitted capabilities: [`keep_capabilities`] comes next.
    ///
    /// # Errors
    /// When the kernel refuses. Then the process is fit for nothing but to end.
    pub fn become_it(&self) -> Result<(), HardenError> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        self.take_groups()?;
        prctl::set_keepcaps(true).map_err(refused("keep capabilities over a change of the user"))?;
        unistd::setresgid(gid, gid, gid).map_err(self.not_here())?;
        unistd::setresuid(uid, uid, uid).map_err(self.not_here())?;
        prctl::set_keepcaps(false).map_err(refused("keep no capabilities over a change of the user"))
    }

    fn take_groups(&self) -> Result<(), HardenError> {
        let groups = users::groups(&list(users::GROUP)?, self);
        unistd::setgroups(&groups).map_err(self.not_here())
    }

    fn not_here(&self) -> impl FnOnce(Errno) -> HardenError {
        let user = self.name.clone();
        move |errno| HardenError::User { user, source: errno.into() }
    }
}

fn list(path: &'static str) -> Result<String, HardenError> {
    users::read(path).map_err(|source| HardenError::Kernel { action: "look up a user", source })
}

fn refused(action: &'static str) -> impl FnOnce(Errno) -> HardenError {
    move |errno| HardenError::Kernel { action, source: errno.into() }
}

/// Why something cannot be given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HardenError {
    /// Capabilities cannot be read or changed.
    #[error("cannot change the capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The kernel refuses something else.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// This process cannot become that user.
    #[error("cannot become the user {user}: {source}")]
    User {
        /// The user.
        user: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
