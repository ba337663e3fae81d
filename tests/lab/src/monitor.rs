//! Looking at a port all the time, to see that nothing changes even for a moment.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{host::Host, probe::connect};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Looks at one port from one source until asked for the result.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    open: AtomicU64,
    closed: AtomicU64,
}

/// How often the port was seen open and closed.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Connects that succeeded.
    pub open: u64,
    /// Connects that were refused or not answered.
    pub closed: u64,
}

impl Monitor {
    /// Looks for a gap in a guard: some hundred connects a second, each given a few milliseconds.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn for_gaps(host: &Host, to: SocketAddr) -> Result<Self> {
        Self::start(host, None, to, Duration::from_millis(4))
    }

    /// Looks for an interruption of an opening: each connect is given half a second.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn for_interruptions(host: &Host, source: Option<IpAddr>, to: SocketAddr) -> Result<Self> {
        Self::start(host, source, to, Duration::from_millis(500))
    }

    fn start(host: &Host, source: Option<IpAddr>, to: SocketAddr, patience: Duration) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (host, seen) = (host.clone(), Arc::clone(&shared));
        let thread = thread::Builder::new().name("monitor".to_owned()).spawn(move || {
            host.inside(|| {
                while !seen.stop.load(Ordering::Relaxed) {
                    match connect(source, to, patience) {
                        Ok(_) => seen.open.fetch_add(1, Ordering::Relaxed),
                        Err(error)
                            if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::ConnectionRefused) =>
                        {
                            seen.closed.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(error) => return Err(error.into()),
                    };
                    thread::sleep(PAUSE);
                }
                Ok(())
            })?
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What it has seen so far.
    pub fn so_far(&self) -> Seen {
        Seen {
            open: self.shared.open.load(Ordering::Relaxed),
            closed: self.shared.closed.load(Ordering::Relaxed),
        }
    }

    /// Ends the looking.
    ///
    /// # Errors
    /// When looking failed, or never happened.
    pub fn finish(mut self) -> Result<Seen> {
        self.stop()?;
        let seen = self.so_far();
        if seen.open + seen.closed == 0 {
            bail!("the monitor has not looked even once");
        }
        Ok(seen)
    }

    fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the monitor panicked"),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
