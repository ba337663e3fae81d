//! The driver that changes nothing: it logs what it would do and keeps the picture in memory.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fleetknock_core::source::Source;

use super::{
    Counts, Desired, Element, Firewall, FirewallError, Guard, Repairs,
    difference::{self, Held},
};

/// Nothing is changed in the kernel. What a kernel would hold is kept here; it ends by the clock as it would there.
#[derive(Debug, Default)]
pub struct DryRun {
    guard: Guard,
    openings: BTreeMap<Element, Instant>,
    bans: BTreeMap<Source, Instant>,
}

impl DryRun {
    fn expire(&mut self, now: Instant) {
        self.openings.retain(|_, end| *end > now);
        self.bans.retain(|_, end| *end > now);
    }
}

impl Firewall for DryRun {
    fn name(&self) -> &'static str {
        "dry-run"
    }

    fn set_guard(&mut self, guard: &Guard) -> Result<(), FirewallError> {
        if self.guard != *guard {
            let ports = guard.ports.len();
            tracing::info!(
                ports,
                observed = guard.observed.len(),
                management = guard.management.len(),
                "would guard these ports"
            );
            self.guard = guard.clone();
        }
        Ok(())
    }

    fn open(&mut self, openings: &[(Element, Duration)]) -> Result<(), FirewallError> {
        let now = Instant::now();
        self.expire(now);
        for (element, remaining) in openings {
            if let Some(remaining) = difference::bounded(*remaining)
                && difference::can_be_opened(element)
            {
                tracing::info!(port = %element.port, seconds = remaining.as_secs(), "would open");
                self.openings.insert(*element, now + remaining);
            }
        }
        Ok(())
    }

    fn close(&mut self, elements: &[Element]) -> Result<(), FirewallError> {
        for element in elements {
            if self.openings.remove(element).is_some() {
                tracing::info!(port = %element.port, "would close");
            }
        }
        Ok(())
    }

    fn cut(&mut self, elements: &[Element]) -> Result<usize, FirewallError> {
        tracing::info!(openings = elements.len(), "would cut the connections of these openings");
        Ok(0)
    }

    fn ban(&mut self, bans: &[(Source, Duration)]) -> Result<(), FirewallError> {
        let now = Instant::now();
        self.expire(now);
        for (source, remaining) in bans {
            if let Some(remaining) = difference::bounded(*remaining) {
                tracing::info!(seconds = remaining.as_secs(), "would ban a source");
                self.bans.insert(*source, now + remaining);
            }
        }
        Ok(())
    }

    fn unban(&mut self, sources: &[Source]) -> Result<(), FirewallError> {
        for source in sources {
            if self.bans.remove(source).is_some() {
                tracing::info!("would end a ban");
            }
        }
        Ok(())
    }

    fn reconcile(&mut self, desired: &Desired) -> Result<Repairs, FirewallError> {
        let now = Instant::now();
        self.expire(now);
        let held = Held {
            openings: self.openings.iter().map(|(element, end)| (*element, Some(*end - now))).collect(),
            bans: self.bans.iter().map(|(source, end)| (*source, Some(*end - now))).collect(),
        };
        let mut found = difference::compare(&held, desired);
        if self.guard != desired.guard {
            found.said.insert(0, "the guard differed and has been mended".to_owned());
            self.set_guard(&desired.guard)?;
        }
        self.close(&found.close)?;
        self.open(&found.open)?;
        self.unban(&found.unban)?;
        self.ban(&found.ban)?;
        Ok(Repairs { said: found.said })
    }

    fn counts(&mut self) -> Result<Counts, FirewallError> {
        // No packet comes by here.
        Ok(Counts::default())
    }

    fn warnings(&mut self) -> Result<Vec<String>, FirewallError> {
        Ok(vec![
            "this is a dry run: no port is guarded and none is opened; choose --firewall auto".to_owned(),
        ])
    }

    fn remove(&mut self) -> Result<Vec<String>, FirewallError> {
        tracing::info!("would remove the guard");
        *self = Self::default();
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
