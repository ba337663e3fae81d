//! The next certificate, before this one ends; and a word in time when it does not come.

use std::{sync::Arc, time::SystemTime};

use fleetknock_runtime::tls::{Connector, Credentials, Expected, Files, Material, time_text};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Authorities,
    pair::Pair,
    policy::{Policy, Validity},
    prepare, recover, take,
};
use crate::{
    config::Settings,
    link::{
        names::Names,
        office::{Ask, Office},
    },
};

#[cfg(test)]
mod tests;

/// What is counted. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    done: Counter,
    failed: Counter,
}

impl Metrics {
    /// Makes them scrapeable; a prefix is the caller's.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "certificate_renewals",
            "Certificates that the agent got as the next one",
            self.done.clone(),
        );
        registry.register(
            "certificate_renewal_failures",
            "Times that the agent asked for its next certificate in vain",
            self.failed.clone(),
        );
    }
}

/// Looks after the certificate.
pub struct Warden {
    credentials: Credentials,
    files: Files,
    /// Nobody, when something else renews.
    office: Option<Office>,
    metrics: Metrics,
    notice: watch::Sender<Option<String>>,
}

impl Warden {
    /// Of the certificate in these files, which the credentials were loaded from. What is to be said of it goes to
    /// `notice`.
    pub fn new(
        settings: &Settings,
        credentials: Credentials,
        files: Files,
        notice: watch::Sender<Option<String>>,
    ) -> Self {
        let office = settings.renews().then(|| {
            let connector = Connector::new(credentials.clone(), Expected::Uri(settings.controller_rule()));
            Office::new(Names::new(settings.controller.clone()), connector)
        });
        Self { credentials, files, office, metrics: Metrics::default(), notice }
    }

    /// What it counts.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Looks after it until told to stop. What that cuts off is made good at the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        let _stopped = stop.run_until_cancelled(self.look_after()).await;
    }

    async fn look_after(&mut self) {
        let mut changes = self.credentials.subscribe();
        loop {
            // Ours, or one that somebody else put there.
            let certificate = changes.borrow_and_update().own.as_ref().map(|own| own.certificate.clone());
            let Some(certificate) = certificate else { return };
            // A test excludes that the back-off is none.
            let Ok(policy) = Policy::new(Validity::of(&certificate), rand::random()) else { return };
            if self.follow(policy, &mut changes).await.is_err() {
                return;
            }
        }
    }

    /// Looks after one certificate until there is another one.
    async fn follow(
        &mut self,
        mut policy: Policy,
        changes: &mut watch::Receiver<Arc<Material>>,
    ) -> Result<(), watch::error::RecvError> {
        let validity = policy.validity();
        let mut failure: Option<String> = None;
        while !changes.has_changed()? {
            let now = SystemTime::now();
            self.say(notice(validity, now, self.office.is_some(), failure.as_deref()));
            if !policy.is_due(now) || self.office.is_none() {
                tokio::select! {
                    changed = changes.changed() => return changed,
                    () = tokio::time::sleep(policy.look_again_in(now)) => continue,
                }
            }
            let Err(error) = self.renew().await else { continue };
            self.metrics.failed.inc();
            policy.failed(SystemTime::now(), rand::random());
            if failure.as_ref() == Some(&error) {
                tracing::debug!(error, "the certificate is still not renewed");
                continue;
            }
            tracing::warn!(
                error,
                ends = time_text(validity.until()),
                "the certificate is not renewed yet; it is tried again and again"
            );
            failure = Some(error);
        }
        Ok(())
    }

    fn say(&self, notice: Option<String>) {
        self.notice.send_if_modified(|said| {
            if *said == notice {
                return false;
            }
            if let (None, Some(notice)) = (&said, &notice) {
                tracing::warn!("{notice}");
            }
            *said = notice;
            true
        });
    }

    async fn renew(&mut self) -> Result<(), String> {
        let Some(office) = &mut self.office else { return Ok(()) };
        let Some(own) = &self.files.own else { return Ok(()) };
        let pair = Pair::of(own);
        let (files, kept) = (self.files.clone(), pair.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            recover(&files)?;
            prepare(&kept)
        });
        let request = prepared.await.map_err(|error| error.to_string())?;
        let request = request.map_err(|error| error.to_string())?;
        let answer = office.ask(&Ask::Next { request }).await.map_err(|error| error.to_string())?;
        let files = self.files.clone();
        let taken = tokio::task::spawn_blocking(move || take(&answer, &files, &pair));
        let authorities = taken.await.map_err(|error| error.to_string())?;
        match authorities.map_err(|error| error.to_string())? {
            Authorities::Same => {}
            Authorities::Taken => {
                tracing::info!("the authorities that the controllers trust were taken over")
            }
            Authorities::Left { reason } => {
                tracing::warn!(
                    reason,
                    "the controllers trust other authorities than --tls-ca names; put theirs there"
                );
            }
        }
        self.metrics.done.inc();
        tracing::info!("the certificate was renewed");
        self.credentials.reload().map(|_| ()).map_err(|error| error.to_string())
    }
}

/// What operators are told of a certificate.
fn notice(validity: Validity, now: SystemTime, renews: bool, failure: Option<&str>) -> Option<String> {
    if !validity.is_near_its_end(now) {
        return None;
    }
    let end = if validity.until() > now { "ends" } else { "ended" };
    let at = time_text(validity.until());
    Some(match (renews, failure) {
        (false, _) => format!("the certificate of this host {end} at {at}; put the next one in its place"),
        (true, None) => format!("the certificate of this host {end} at {at} and is not renewed yet"),
        (true, Some(failure)) => {
            format!("the certificate of this host {end} at {at} and cannot be renewed: {failure}")
        }
    })
}
