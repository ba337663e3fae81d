//! Taking everything that is ours out of the kernel, whichever driver put it there.
//!
//! For a host that the agent leaves, and for whoever is locked out: the settings that chose a driver may be gone or wrong,
//! so each driver is tried, and one that fails keeps no other from being tried.

use super::{Firewall as _, FirewallError, iptables::Iptables, nftables::Nftables, settings::Options};

/// What became of it.
#[derive(Debug, Default)]
pub struct Lifted {
    /// What was there and is no longer, one thing each.
    pub removed: Vec<String>,
    /// What may still be there, and why.
    pub failed: Vec<FirewallError>,
}

/// Removes everything that is ours from the network namespace of the calling thread: table, chains, sets, and the rule in
/// the chain of `accept_in` if it is named.
pub fn lift(options: &Options) -> Lifted {
    let mut lifted = Lifted::default();
    match Nftables::new(options.clone()) {
        Ok(driver) => lifted.take_nftables(driver, options),
        Err(error @ FirewallError::Permission) => {
            lifted.failed.push(error);
            return lifted;
        }
        Err(_without_nftables) => {}
    }
    lifted.take(Iptables::lift(options));
    lifted
}

impl Lifted {
    /// A rule that cannot be looked for must not keep the guard.
    fn take_nftables(&mut self, mut driver: Nftables, options: &Options) {
        let Err(error) = driver.remove().map(|removed| self.removed.extend(removed)) else { return };
        self.failed.push(error);
        if options.accept_in.is_some() {
            let without = Options { accept_in: None, ..options.clone() };
            self.take(Nftables::new(without).and_then(|mut driver| driver.remove()));
        }
    }

    fn take(&mut self, removed: Result<Vec<String>, FirewallError>) {
        match removed {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.failed.push(error),
        }
    }
}
