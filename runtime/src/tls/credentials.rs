//! The certificate and the authorities of now: files are followed as they change, and what is broken changes nothing.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{FileError, Files, Material, certificate::time_text, files::Texts};

#[cfg(test)]
mod tests;

/// How often files are looked at unless somebody says otherwise. They are read whole: a few kilobytes, and no file
/// system keeps its times and inode numbers so well that those could stand for the contents.
pub const FOLLOW_EVERY: Duration = Duration::from_secs(5);

/// What this program shows and whom it trusts. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Files,
    current: watch::Sender<Arc<Material>>,
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    /// What [`Inner::current`] was made of.
    loaded: u64,
    /// What was read last, a digest or why there is none. Two files are not replaced in one moment: only what was read
    /// twice in a row counts.
    seen: Result<u64, String>,
    /// What was said to be wrong, so that it is said once.
    failure: Option<String>,
    /// Whether the end of the own certificate was said.
    said_expired: bool,
}

#[derive(Clone, Debug, Default)]
struct Metrics {
    certificate_end: Gauge<f64, AtomicU64>,
    authority_end: Gauge<f64, AtomicU64>,
    reloads: Counter,
    failures: Counter,
    broken: Gauge,
}

impl Credentials {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// When any is missing, broken, out of its time, or does not fit the others.
    pub fn load(files: Files) -> Result<Self, FileError> {
        Self::load_at(files, SystemTime::now())
    }

    pub(super) fn load_at(files: Files, now: SystemTime) -> Result<Self, FileError> {
        let texts = files.read()?;
        let material = Arc::new(files.check(&texts, now)?);
        warn(&material);
        let metrics = Metrics::default();
        metrics.loaded(&material);
        let state =
            State { loaded: texts.digest(), seen: Ok(texts.digest()), failure: None, said_expired: false };
        let current = watch::Sender::new(material);
        Ok(Self { inner: Arc::new(Inner { files, current, state: Mutex::new(state), metrics }) })
    }

    /// What holds now.
    pub fn current(&self) -> Arc<Material> {
        self.inner.current.borrow().clone()
    }

    /// Told of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Material>> {
        self.inner.current.subscribe()
    }

    /// Why the files as they are now cannot be used, when they cannot.
    pub fn failure(&self) -> Option<String> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner).failure.clone()
    }

    /// Adds `tls_certificate_end_timestamp_seconds` and its like to a registry; a prefix is the caller's.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.inner.metrics;
        registry.register(
            "tls_certificate_end_timestamp_seconds",
            "When the own certificate ends, in seconds since 1970; 0 without one",
            metrics.certificate_end.clone(),
        );
        registry.register(
            "tls_authority_end_timestamp_seconds",
            "When the first of the trusted authorities ends, in seconds since 1970",
            metrics.authority_end.clone(),
        );
        registry.register(
            "tls_reloads",
            "Certificates, keys or authorities taken into use",
            metrics.reloads.clone(),
        );
        registry.register(
            "tls_reload_failures",
            "Changed certificates, keys or authorities that could not be used",
            metrics.failures.clone(),
        );
        registry.register(
            "tls_files_broken",
            "1 while the files as they are cannot be used and earlier contents are in use",
            metrics.broken.clone(),
        );
    }

    /// Reads the files now and takes them into use when they are good. Whether anything changed.
    ///
    /// # Errors
    /// When they are not good: what held before still holds.
    pub fn reload(&self) -> Result<bool, FileError> {
        let read = self.inner.files.read();
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen = seen(&read);
        self.inner.take(&mut state, read, SystemTime::now())
    }

    /// Looks at the files every so often, until stopped; what is wrong with them is logged once.
    pub async fn follow(self, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let credentials = self.clone();
            // A file system that hangs must not take a thread of the runtime with it.
            let looked = tokio::task::spawn_blocking(move || credentials.look(SystemTime::now()));
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looked => {}
            }
        }
    }

    /// One look at the files.
    fn look(&self, now: SystemTime) {
        let inner = &self.inner;
        let read = inner.files.read();
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen(&read);
        let settled = state.seen == seen;
        state.seen = seen;
        if settled {
            // The error is said and counted there.
            let _ = inner.take(&mut state, read, now);
        }
        inner.say_when_expired(&mut state, now);
    }
}

impl Inner {
    fn take(
        &self,
        state: &mut State,
        read: Result<Texts, FileError>,
        now: SystemTime,
    ) -> Result<bool, FileError> {
        let current = self.current.borrow().clone();
        let taken = read.and_then(|texts| {
            let authority_ended = current.authorities_end().is_some_and(|end| end <= now);
            if texts.digest() == state.loaded && !authority_ended {
                return Ok(None);
            }
            let material = self.files.check(&texts, now)?;
            Ok(Some((texts.digest(), material)))
        });
        let failed = state.failure.is_some();
        let changed = match taken {
            Ok(taken) => {
                state.failure = None;
                self.metrics.broken.set(0);
                taken
            }
            Err(error) => {
                let text = error.to_string();
                if state.failure.as_ref() != Some(&text) {
                    tracing::error!(error = %text, "TLS files changed and cannot be used; what was read before stays in use");
                    self.metrics.failures.inc();
                    self.metrics.broken.set(1);
                    state.failure = Some(text);
                }
                return Err(error);
            }
        };
        let Some((digest, material)) = changed else {
            if failed {
                tracing::info!("the TLS files are again as they were read before");
            }
            return Ok(false);
        };
        state.loaded = digest;
        state.said_expired = false;
        warn(&material);
        let end = material.own.as_ref().map(|own| time_text(own.certificate.not_after));
        let holder = material.own.as_ref().map(|own| own.certificate.holder());
        tracing::info!(
            holder,
            until = end,
            authorities = material.authorities.len(),
            "TLS files taken into use"
        );
        self.metrics.reloads.inc();
        self.metrics.loaded(&material);
        self.current.send_replace(Arc::new(material));
        Ok(true)
    }

    fn say_when_expired(&self, state: &mut State, now: SystemTime) {
        let current = self.current.borrow().clone();
        let Some(own) = &current.own else { return };
        if own.certificate.not_after <= now && !state.said_expired {
            state.said_expired = true;
            tracing::error!(
                holder = own.certificate.holder(),
                expired = time_text(own.certificate.not_after),
                "the certificate in use expired and others refuse it; put a new one in its place"
            );
        }
    }
}

impl Metrics {
    fn loaded(&self, material: &Material) {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.certificate_end.set(material.own.as_ref().map_or(0.0, |own| seconds(own.certificate.not_after)));
        self.authority_end.set(material.authorities_end().map_or(0.0, seconds));
    }
}

fn seen(read: &Result<Texts, FileError>) -> Result<u64, String> {
    read.as_ref().map(Texts::digest).map_err(ToString::to_string)
}

fn warn(material: &Material) {
    for warning in &material.warnings {
        tracing::warn!("{warning}");
    }
}
