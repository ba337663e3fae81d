//! Connections as they come in, for tonic's `Server::serve_with_incoming`.
//!
//! ```text
//!   accept ──place in the crowd──▶ handshake, a task each ──▶ queue of 64 ──▶ Stream
//!      │                               │ refused, slow, crowded out ──▶ counted, closed
//!      └── credentials changed, or a second is over ──▶ live sessions looked at again
//! ```
//!
//! Unfinished: [`Limits::handshakes`] unfinished ones at a time, each at most [`Limits::handshake_time`]; a connection that
//! waits in the queue still holds its place. When all places are taken a new connection is given the place of the oldest
//! of the address that holds most, so half-open connections hold up nobody who finishes in time.
//!
//! Finished: [`Limits::connections`] with a certificate and [`Limits::without_certificate`] without, of each holder or
//! address at most [`Limits::of_one`]. The oldest of the same holder makes room, or of whoever holds most.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use rustls::{pki_types::UnixTime, server::danger::ClientCertVerifier as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use super::{
    Acceptor, Certificate, Connection,
    connection::Held,
    crowd::{Crowd, network},
    sessions::{Ended, Sessions},
    words::{self, End},
};

/// Connections that are accepted and not yet served.
const QUEUE_MAX: usize = 64;
/// After the system had no more descriptors or memory for a connection.
const BREATH: Duration = Duration::from_millis(50);
/// How long a refused client may take to read why; whatever it had sent would else reset the connection, and with it
/// the alert on its way.
const LINGER: Duration = Duration::from_millis(500);
/// What it may send meanwhile, in bytes.
const LINGER_MAX: usize = 64 * 1024;
/// How often ends of certificates are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// No more than one line about refused clients in this time: they cost an attacker nothing.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What handshakes may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unfinished handshakes at a time, about 20 kB and one file descriptor each.
    pub handshakes: usize,
    /// The longest that a client may take.
    pub handshake_time: Duration,
    /// Connections of those with a certificate; a file descriptor each.
    pub connections: usize,
    /// Connections of those without a certificate, where one may come without.
    pub without_certificate: usize,
    /// Connections with the same URIs in their certificate (without URIs: the same subject), or without a certificate from the same address.
    pub of_one: usize,
}

impl Default for Limits {
    /// 512 handshakes of at most 10 s; 20,000 connections with a certificate, twice the hosts of a large fleet, 512
    /// without, and 64 of one. A process that may have only 1024 files open, as is usual, comes to that end first; then
    /// unfinished handshakes make room.
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshake_time: Duration::from_secs(10),
            connections: 20_000,
            without_certificate: 512,
            of_one: 64,
        }
    }
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection is served.
    Done,
    /// The client's certificate was refused, or it had none.
    Refused,
    /// The client refused the server's certificate.
    TurnedAway,
    /// It took too long.
    Slow,
    /// Its place was given to another one.
    Crowded,
    /// The client left, or does not speak TLS 1.3 and HTTP/2.
    Broken,
}

impl Outcome {
    /// As a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::TurnedAway => "turned_away",
            Self::Slow => "slow",
            Self::Crowded => "crowded",
            Self::Broken => "broken",
        }
    }
}

/// A client that was refused for its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// From where it came.
    pub address: SocketAddr,
    /// Why, in plain words.
    pub reason: String,
}

/// Connections that were accepted, after their handshake. Dropping it closes the listener and all unfinished ones.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    _task: JoinSet<()>,
}

impl Incoming {
    /// TLS connections. Needs a tokio runtime.
    pub fn tls(listener: TcpListener, acceptor: Acceptor, limits: Limits) -> Self {
        let (sender, connections) = mpsc::channel(QUEUE_MAX);
        let door = Arc::new(Door {
            acceptor,
            limits,
            sender,
            sessions: Sessions::default(),
            known: Crowd::new(limits.connections, limits.of_one),
            unknown: Crowd::new(limits.without_certificate, limits.of_one),
            said: Mutex::new(Said { at: None, unsaid: 0 }),
        });
        let mut task = JoinSet::new();
        task.spawn(door.run(listener));
        Self { connections, _task: task }
    }

    /// Plain text, for laboratories: whoever is on the way can read and change everything. Of the limits those of finished
    /// connections count; everybody is known by the address only. Needs a tokio runtime.
    pub fn plain(listener: TcpListener, limits: Limits) -> Self {
        let (sender, connections) = mpsc::channel(QUEUE_MAX);
        let crowd = Crowd::new(limits.connections, limits.of_one);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let Some((stream, address)) = accepted(listener.accept().await) else {
                    crowd.shrink();
                    tokio::time::sleep(BREATH).await;
                    continue;
                };
                let ended = Ended::default();
                let held = Held::Unknown { _place: crowd.enter(network(address.ip()), ended.clone()) };
                if sender.send(Connection::plain(stream, address, ended, held)).await.is_err() {
                    return;
                }
            }
        });
        Self { connections, _task: task }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

/// What the tasks of one listener share.
#[derive(Debug)]
struct Door {
    acceptor: Acceptor,
    limits: Limits,
    sender: mpsc::Sender<Connection>,
    sessions: Sessions,
    /// Connections by the holder of their certificate.
    known: Crowd<String>,
    /// Connections without a certificate, by address.
    unknown: Crowd<IpAddr>,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    at: Option<Instant>,
    unsaid: u64,
}

impl Door {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        let crowd = Crowd::new(self.limits.handshakes, self.limits.handshakes);
        let mut handshakes = JoinSet::new();
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.acceptor.credentials.subscribe();
        loop {
            tokio::select! {
                _ = handshakes.join_next(), if !handshakes.is_empty() => {}
                _ = sweeps.tick() => self.ended(self.sessions.end_expired(SystemTime::now())),
                // The sender lives in the credentials, which live in the acceptor.
                _ = changes.changed() => self.review(),
                accepted_now = listener.accept() => {
                    let Some((stream, address)) = accepted(accepted_now) else {
                        crowd.shrink();
                        tokio::time::sleep(BREATH).await;
                        continue;
                    };
                    let crowded_out = Ended::default();
                    let place = crowd.enter(network(address.ip()), crowded_out.clone());
                    let door = self.clone();
                    handshakes.spawn(async move {
                        let outcome = tokio::select! {
                            biased;
                            () = crowded_out.token.cancelled() => Outcome::Crowded,
                            outcome = door.greet(stream, address) => outcome,
                        };
                        drop(place);
                        door.acceptor.count(outcome);
                        tracing::debug!(%address, outcome = outcome.name(), "a TLS handshake ended");
                    });
                }
            }
            self.acceptor.metrics.under_way.set(i64::try_from(crowd.held()).unwrap_or(i64::MAX));
        }
    }

    /// From the first byte to the queue.
    async fn greet(&self, stream: TcpStream, address: SocketAddr) -> Outcome {
        match timeout(self.limits.handshake_time, self.handshake(stream, address)).await {
            Err(_) => Outcome::Slow,
            Ok(Err(outcome)) => outcome,
            Ok(Ok(connection)) => {
                // Only when nobody serves any more.
                if self.sender.send(connection).await.is_err() { Outcome::Broken } else { Outcome::Done }
            }
        }
    }

    async fn handshake(&self, stream: TcpStream, address: SocketAddr) -> Result<Connection, Outcome> {
        let built = self.acceptor.built().map_err(|error| {
            self.say(format!("no TLS handshake is possible: {error}"));
            Outcome::Broken
        })?;
        let accept = TlsAcceptor::from(built.config.clone()).accept(stream).into_fallible();
        let stream = match accept.await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                let outcome = self.failed(&error, address);
                linger(stream).await;
                return Err(outcome);
            }
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let ended = Ended::default();
        let (certificate, held) = match chain.first() {
            None => {
                let place = self.unknown.enter(network(address.ip()), ended.clone());
                (None, Held::Unknown { _place: place })
            }
            Some(first) => {
                // It was read in the handshake.
                let certificate = Certificate::from_der(first).map_err(|_| Outcome::Broken)?;
                let place = self.known.enter(certificate.holder(), ended.clone());
                let membership = self.sessions.enter(chain, certificate.not_after, ended.clone());
                (Some(certificate), Held::Known { _place: place, _membership: membership })
            }
        };
        // The credentials may have changed between the check and the entry; then the review missed this one.
        let still = self.acceptor.built().is_ok_and(|now| Arc::ptr_eq(&now, &built));
        if !still {
            self.review();
        }
        Ok(Connection::tls(stream, address, certificate, ended, held))
    }

    fn failed(&self, error: &io::Error, address: SocketAddr) -> Outcome {
        match words::end(error) {
            End::Refused(reason) => {
                let refusal = Refusal { address, reason };
                self.acceptor.refused(&refusal);
                self.say(format!("refused {address}: {}", refusal.reason));
                Outcome::Refused
            }
            End::TurnedAway(reason) => {
                self.say(format!("{address} turned away: {reason}"));
                Outcome::TurnedAway
            }
            End::Broken(reason) => {
                tracing::debug!(%address, reason, "a TLS handshake broke");
                Outcome::Broken
            }
        }
    }

    /// Looks again at every live session, with the credentials of now.
    fn review(&self) {
        let Ok(built) = self.acceptor.built() else { return };
        let sessions = self.sessions.clone();
        let ended = self.acceptor.metrics.sessions_ended.clone();
        tokio::task::spawn_blocking(move || {
            let count = sessions.end_unless(|chain| {
                let Some((first, rest)) = chain.split_first() else { return Ok(()) };
                let verified = built.verifier.verify_client_cert(first, rest, UnixTime::now());
                verified.map(|_| ()).map_err(|error| words::of(&error))
            });
            if count > 0 {
                ended.inc_by(count);
                tracing::warn!(count, "ended connections whose certificate is no longer trusted");
            }
        });
    }

    fn ended(&self, count: u64) {
        if count > 0 {
            self.acceptor.metrics.sessions_ended.inc_by(count);
            tracing::warn!(count, "ended connections whose certificate expired");
        }
    }

    fn say(&self, text: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            said.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut said.unsaid);
        said.at = Some(Instant::now());
        tracing::warn!(unsaid, "{text}");
    }
}

/// A connection, unless the system had no room for one, or the client left before it was taken.
fn accepted(result: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
    let (stream, address) =
        result.inspect_err(|error| tracing::debug!(%error, "a connection cannot be accepted")).ok()?;
    // Small messages are waited for at the other end.
    let _ = stream.set_nodelay(true);
    Some((stream, address))
}

/// Lets the alert arrive before the connection goes.
async fn linger(mut stream: TcpStream) {
    let read = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut buffer = [0; 4096];
        let mut left = LINGER_MAX;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(LINGER, read).await;
}
