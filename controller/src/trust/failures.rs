//! Counts who could not show who it is, by network, so that the answers to those who fail often come late.
//!
//! Pure, and bounded in memory ([`NETWORKS_MAX`]).

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

#[cfg(test)]
mod tests;

/// Networks that are told apart, about 50 bytes each. When there are as many, all others count as one.
pub const NETWORKS_MAX: usize = 4_096;
/// Failures within a [`SPAN`] that happen to anybody.
pub const FEW: u32 = 5;
/// A failure is forgotten within a fifth of this, [`FEW`] within all of it, and however many within twice that.
pub const SPAN: Duration = Duration::from_secs(60);

/// How often each network failed lately.
#[derive(Debug, Default)]
pub struct Failures {
    networks: HashMap<IpAddr, Leaky>,
    /// Those for whom there was no room.
    others: Option<Leaky>,
}

/// A vessel that leaks.
#[derive(Clone, Copy, Debug)]
struct Leaky {
    level: f64,
    at: Instant,
}

impl Leaky {
    fn leaked(self, now: Instant) -> f64 {
        let drop = SPAN / FEW;
        let leaked = now.saturating_duration_since(self.at).as_secs_f64() / drop.as_secs_f64();
        (self.level - leaked).max(0.0)
    }

    /// One drop more; what is above the brim runs over, so that the greatest flood is forgotten as soon as a small one.
    fn fill(&mut self, now: Instant) -> f64 {
        *self = Self { level: (self.leaked(now) + 1.0).min(f64::from(2 * FEW)), at: now };
        self.level
    }
}

impl Failures {
    /// Counts one more; whether it happens often there.
    pub fn note(&mut self, network: IpAddr, now: Instant) -> bool {
        let empty = Leaky { level: 0.0, at: now };
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.networks.retain(|_, failed| failed.leaked(now) > 0.0);
        }
        let vessel = if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.others.get_or_insert(empty)
        } else {
            self.networks.entry(network).or_insert(empty)
        };
        vessel.fill(now) > f64::from(FEW)
    }
}
