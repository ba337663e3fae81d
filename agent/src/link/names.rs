//! Which addresses the controllers' URLs stand for now.
//!
//! A name (of a headless service, say) may have many addresses, and they change: every round asks anew. What a name
//! last stood for is kept for as long as it cannot be asked: a controller and the DNS may be lost together.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};

use crate::config::ControllerUrl;

/// With candidates known already, a round waits so long for answers; later ones serve the next round.
const PATIENCE: Duration = Duration::from_millis(200);
/// With none, so long.
const PATIENCE_MOST: Duration = Duration::from_secs(5);
/// Addresses taken from one answer.
const ADDRESSES_MAX: usize = 256;

/// An address at which a controller may be, and the URL that led there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    url: ControllerUrl,
    address: SocketAddr,
}

impl Candidate {
    /// What a controller there is called: the authority of requests.
    pub fn url(&self) -> &ControllerUrl {
        &self.url
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url.literal() {
            Some(_) => write!(f, "{}", self.url),
            None => write!(f, "{} ({})", self.url, self.address),
        }
    }
}

/// The addresses of a host name.
pub type Answer = io::Result<Vec<IpAddr>>;
/// Asks for them.
pub type Lookup = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// What the URLs stand for.
pub struct Names {
    entries: Vec<Entry>,
    lookup: Lookup,
    running: JoinSet<(usize, Answer)>,
}

struct Entry {
    url: ControllerUrl,
    /// What it last stood for.
    known: Vec<IpAddr>,
    /// One at a time: the system's resolver can take long, and cannot be interrupted.
    lookup: Option<AbortHandle>,
    /// What was said of it last.
    trouble: Option<String>,
}

impl Names {
    /// Asks the system's resolver.
    pub fn new(urls: Vec<ControllerUrl>) -> Self {
        Self::with_lookup(
            urls,
            Arc::new(|host| {
                Box::pin(async move {
                    let found = tokio::net::lookup_host((host, 0)).await?;
                    Ok(found.map(|address| address.ip()).collect())
                })
            }),
        )
    }

    /// Asks something else.
    pub fn with_lookup(urls: Vec<ControllerUrl>, lookup: Lookup) -> Self {
        let entry = |url: ControllerUrl| Entry {
            known: url.literal().into_iter().collect(),
            url,
            lookup: None,
            trouble: None,
        };
        Self { entries: urls.into_iter().map(entry).collect(), lookup, running: JoinSet::new() }
    }

    /// Asks for every name that is not being asked for.
    pub fn ask(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            self.take(ended.ok());
        }
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let asked = entry.lookup.as_ref().is_some_and(|lookup| !lookup.is_finished());
            if entry.url.literal().is_none() && !asked {
                let answer = (self.lookup)(entry.url.host().to_owned());
                entry.lookup = Some(self.running.spawn(async move { (index, answer.await) }));
            }
        }
    }

    /// Done when everything that was asked at this time is answered, or has been waited for long enough. Cancelling
    /// this loses nothing.
    pub async fn answered(&mut self, asked: Instant) {
        while !self.running.is_empty() {
            let nobody = self.entries.iter().all(|entry| entry.known.is_empty());
            let until = asked + if nobody { PATIENCE_MOST } else { PATIENCE };
            match timeout_at(until, self.running.join_next()).await {
                Ok(ended) => self.take(ended.and_then(Result::ok)),
                Err(_) => break,
            }
        }
        for entry in &mut self.entries {
            if entry.lookup.as_ref().is_some_and(|lookup| !lookup.is_finished()) {
                entry.warn(format!("no answer within {:?} yet", asked.elapsed()));
            }
        }
    }

    /// All addresses that are known, each once.
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for entry in &self.entries {
            for address in &entry.known {
                let address = SocketAddr::new(*address, entry.url.port());
                if !candidates.iter().any(|known| known.address == address) {
                    candidates.push(Candidate { url: entry.url.clone(), address });
                }
            }
        }
        candidates
    }

    /// An ended lookup; nothing when its task was lost.
    fn take(&mut self, ended: Option<(usize, Answer)>) {
        let Some((index, answer)) = ended else { return };
        let Some(entry) = self.entries.get_mut(index) else { return };
        match answer {
            Ok(addresses) if addresses.is_empty() => entry.warn("it has no address".to_owned()),
            Ok(addresses) => {
                if entry.trouble.take().is_some() {
                    tracing::info!(controller = %entry.url, "the controller's name is answered again");
                }
                entry.known.clear();
                for address in addresses.into_iter().map(|address| address.to_canonical()) {
                    if entry.known.len() < ADDRESSES_MAX && !entry.known.contains(&address) {
                        entry.known.push(address);
                    }
                }
            }
            Err(error) => entry.warn(error.to_string()),
        }
    }
}

impl Entry {
    /// Says once that the name cannot be asked for.
    fn warn(&mut self, trouble: String) {
        if self.trouble.is_none() {
            let (controller, name, known) = (&self.url, self.url.host(), self.known.len());
            tracing::warn!(
                %controller,
                %name,
                known,
                error = trouble,
                "the name of a controller cannot be resolved; going on with what was known of it and with the others; \
                 look at --controller and at this host's DNS"
            );
        }
        self.trouble = Some(trouble);
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
