//! Cutting hosts of a lab off from each other, one way or both, and healing it.
//!
//! The rules stand in a table of their own, so that nothing that Fleetknock or another firewall keeps is touched. They
//! are in front of connection tracking: established connections are cut as well as new ones.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::host::Host;

/// The table of all cuts in a host.
const TABLE: &str = "inet fleetknock-lab";

/// Cuts that this process has made so far: each has a chain of its own.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The network as it is cut, until this is dropped. It concerns the hosts' own addresses, not those added as sources.
#[derive(Debug)]
#[must_use = "the cut is healed when this is dropped"]
pub struct Cut {
    /// Where a chain stands, and its name.
    chains: Vec<(Host, String)>,
}

impl Cut {
    /// Nothing passes between these two hosts any more.
    ///
    /// # Errors
    /// When the kernel refuses the rules.
    pub fn between(one: &Host, other: &Host) -> Result<Self> {
        Self::off(one, [other])
    }

    /// Nothing passes between this host and any of these others any more.
    ///
    /// # Errors
    /// When the kernel refuses the rules.
    pub fn off<'h>(host: &Host, others: impl IntoIterator<Item = &'h Host>) -> Result<Self> {
        let mut cut = Self { chains: Vec::new() };
        for other in others {
            cut.drop_from(host, other)?;
            cut.drop_from(other, host)?;
        }
        Ok(cut)
    }

    /// What `from` sends no longer arrives at `to`; the other direction stays as it is.
    ///
    /// # Errors
    /// When the kernel refuses the rules.
    pub fn one_way(from: &Host, to: &Host) -> Result<Self> {
        let mut cut = Self { chains: Vec::new() };
        cut.drop_from(from, to)?;
        Ok(cut)
    }

    /// Each new TCP connection from `from` to any of these is refused at once, as if nobody listened there.
    ///
    /// # Errors
    /// When the kernel refuses the rules.
    pub fn refused<'h>(from: &Host, to: impl IntoIterator<Item = &'h Host>) -> Result<Self> {
        let mut cut = Self { chains: Vec::new() };
        for to in to {
            let rules = [to.v4(), to.v6()].map(|address| {
                format!(
                    "{} daddr {address} tcp flags & (syn | ack) == syn reject with tcp reset",
                    family(address)
                )
            });
            cut.add(from, "output", &rules)?;
        }
        Ok(cut)
    }

    /// Both cuts in one.
    pub fn and(mut self, mut other: Self) -> Self {
        self.chains.append(&mut other.chains);
        self
    }

    /// Heals it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn heal(mut self) -> Result<()> {
        self.remove()
    }

    fn drop_from(&mut self, from: &Host, at: &Host) -> Result<()> {
        let rules =
            [from.v4(), from.v6()].map(|address| format!("{} saddr {address} counter drop", family(address)));
        self.add(at, "prerouting", &rules)
    }

    fn add(&mut self, host: &Host, hook: &str, rules: &[String]) -> Result<()> {
        let chain = format!("cut{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut script = format!(
            "add table {TABLE}; add chain {TABLE} {chain} {{ type filter hook {hook} priority -450; }}"
        );
        for rule in rules {
            script += &format!("; add rule {TABLE} {chain} {rule}");
        }
        host.ok(&["nft", &script]).context("cannot cut the network")?;
        self.chains.push((host.clone(), chain));
        Ok(())
    }

    fn remove(&mut self) -> Result<()> {
        let mut result = Ok(());
        for (host, chain) in self.chains.drain(..) {
            let script = format!("flush chain {TABLE} {chain}; delete chain {TABLE} {chain}");
            if let Err(error) = host.ok(&["nft", &script]) {
                result = Err(error).context("cannot heal the network");
            }
        }
        result
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests;
