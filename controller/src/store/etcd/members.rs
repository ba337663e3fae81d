//! The members of a cluster: a client for each, the one that is preferred, and what a failure means.
//!
//! etcd's client can take a list of endpoints, but goes on to offer calls to a member that is dead. One client per
//! endpoint, and moving on at each failure, surfaces nothing while any healthy member is left.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, GetResponse, Identity, KvClient, TlsOptions, Txn,
    TxnResponse, WatchClient, WatchOptions, WatchStream,
};
use tokio::sync::OnceCell;
use tokio::time::{self, Instant};
use tonic::{Code, Status};
use tracing::debug;

use super::MESSAGE_MAX;
use super::history::History;
use crate::store::{EtcdOptions, StoreError};

/// How long one member of several may take before the next is asked.
pub(super) const ATTEMPT: Duration = Duration::from_millis(1200);
/// A member that does not take a connection in this time is passed over.
const CONNECT: Duration = Duration::from_millis(800);
/// HTTP/2 pings tell a dead connection from a quiet one. etcd refuses them below 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Between attempts once every member was asked, so that an election is not met with a storm.
const PAUSE: Duration = Duration::from_millis(50);

/// Why one attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was certainly not carried out; another member may do better.
    NotDone(String),
    /// It is unknown whether it was carried out.
    Unknown(String),
    /// No member will do better.
    Final(StoreError),
}

impl Failure {
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::NotDone(why) | Self::Unknown(why) => StoreError::Unavailable(why),
            Self::Final(error) => error,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    preferred: AtomicUsize,
    history: History,
}

impl Members {
    /// Connects to nobody yet.
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        let connect = connect_options(options);
        let member =
            |url: &String| Member { url: url.clone(), options: connect.clone(), client: OnceCell::new() };
        Ok(Self {
            members: options.endpoints.iter().map(member).collect(),
            preferred: AtomicUsize::new(0),
            history: History::default(),
        })
    }

    /// What they all tell.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// The one to ask now.
    pub(super) fn preferred(&self) -> &Member {
        &self.members[self.preferred.load(Ordering::Relaxed) % self.members.len()]
    }

    /// Prefers the next one, unless somebody has moved on from this one already.
    fn pass_over(&self, member: &Member) {
        if let Some(index) = self.members.iter().position(|other| other.url == member.url) {
            let next = (index + 1) % self.members.len();
            let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// How long one attempt may take: all there is when nobody else can be asked.
    pub(super) fn attempt_until(&self, deadline: Instant) -> Instant {
        match self.members.len() {
            1 => deadline,
            _ => deadline.min(Instant::now() + ATTEMPT),
        }
    }

    /// Waits before attempt number `attempts` (from 1); false when the deadline comes first.
    async fn pause(&self, attempts: usize, deadline: Instant) -> bool {
        let rounds = attempts / self.members.len();
        let pause = if rounds == 0 { Duration::ZERO } else { PAUSE * 2_u32.pow(rounds.min(4) as u32 - 1) };
        if Instant::now() + pause >= deadline {
            return false;
        }
        time::sleep(pause).await;
        true
    }

    /// Moves on from a member that failed: an error when no member will do better, or the time is up.
    pub(super) async fn move_on(
        &self,
        from: &Member,
        failure: Failure,
        attempts: &mut usize,
        deadline: Instant,
    ) -> Result<(), Failure> {
        if matches!(failure, Failure::Final(_)) {
            return Err(failure);
        }
        debug!(member = from.url, ?failure, attempts, "etcd does not answer");
        self.pass_over(from);
        *attempts += 1;
        if self.pause(*attempts, deadline).await { Ok(()) } else { Err(failure) }
    }

    /// A linearizable read, of one member after the other.
    pub(super) async fn get(
        &self,
        key: &[u8],
        options: &GetOptions,
        deadline: Instant,
    ) -> Result<GetResponse, Failure> {
        let mut attempts = 0;
        loop {
            let member = self.preferred();
            let seen = self.history.seen();
            match member.get(key.to_vec(), options.clone(), self.attempt_until(deadline)).await {
                Ok(answer) => {
                    self.history.take_in(seen, answer.header());
                    return Ok(answer);
                }
                Err(failure) => self.move_on(member, failure, &mut attempts, deadline).await?,
            }
        }
    }

    /// A watch on one member or the other.
    pub(super) async fn watch(
        &self,
        key: &[u8],
        options: &WatchOptions,
        deadline: Instant,
    ) -> Result<WatchStream, Failure> {
        let mut attempts = 0;
        loop {
            let member = self.preferred();
            match member.watch(key.to_vec(), options.clone(), self.attempt_until(deadline)).await {
                Ok(stream) => return Ok(stream),
                Err(failure) => self.move_on(member, failure, &mut attempts, deadline).await?,
            }
        }
    }
}

/// One of them.
pub(super) struct Member {
    url: String,
    options: ConnectOptions,
    /// Made at the first use that works: with a user, making it needs the member's answer.
    client: OnceCell<Client>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Member").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Member {
    async fn get(&self, key: Vec<u8>, options: GetOptions, until: Instant) -> Result<GetResponse, Failure> {
        let mut kv = self.kv(until).await?;
        self.within(until, kv.get(key, Some(options))).await
    }

    pub(super) async fn transact(&self, transaction: Txn, until: Instant) -> Result<TxnResponse, Failure> {
        let mut kv = self.kv(until).await?;
        self.within(until, kv.txn(transaction)).await
    }

    async fn watch(
        &self,
        key: Vec<u8>,
        options: WatchOptions,
        until: Instant,
    ) -> Result<WatchStream, Failure> {
        let mut watch: WatchClient = self.client(until).await?.watch_client();
        watch = watch.max_decoding_message_size(MESSAGE_MAX);
        self.within(until, watch.watch(key, Some(options))).await
    }

    async fn kv(&self, until: Instant) -> Result<KvClient, Failure> {
        let kv = self.client(until).await?.kv_client();
        Ok(kv.max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX))
    }

    pub(super) async fn client(&self, until: Instant) -> Result<&Client, Failure> {
        let connect = || self.within(until, Client::connect([&self.url], Some(self.options.clone())));
        // Nothing but the login has been sent, so nothing can have been done.
        self.client.get_or_try_init(connect).await.map_err(|failure| match failure {
            Failure::Unknown(why) => Failure::NotDone(why),
            other => other,
        })
    }

    pub(super) async fn within<T>(
        &self,
        until: Instant,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Failure> {
        match time::timeout_at(until, call).await {
            Ok(answer) => answer.map_err(|error| sort(&self.url, error)),
            Err(_) => Err(Failure::Unknown(format!("{} does not answer in time", self.url))),
        }
    }
}

fn connect_options(options: &EtcdOptions) -> ConnectOptions {
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PING_EVERY, PING_TIMEOUT)
        // etcd closes connections that ping without a call under way.
        .with_keep_alive_while_idle(false)
        .with_tcp_keepalive(PING_EVERY)
        // A member cut off from the others refuses at once, instead of keeping us waiting.
        .with_require_leader(true);
    if let Some((name, password)) = &options.user {
        connect = connect.with_user(name, password).with_auto_token_refresh(true);
    }
    if let Some(tls) = &options.tls {
        let mut checks = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.authority_pem));
        if let Some((certificate, key)) = &tls.identity_pem {
            checks = checks.identity(Identity::from_pem(certificate, key));
        }
        connect = connect.with_tls(checks);
    }
    connect
}

/// Sorts what the client reports by what is known about the outcome.
pub(super) fn sort(url: &str, error: etcd_client::Error) -> Failure {
    let status = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        // What the client makes of an answer without time left.
        etcd_client::Error::LeaseKeepAliveError(why) if why.contains("not found") => {
            return Failure::Final(StoreError::LeaseEnded);
        }
        error @ (etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_)) => {
            return Failure::Final(StoreError::Invalid(format!("{url}: {error}")));
        }
        other => return Failure::NotDone(format!("{url}: {other}")),
    };
    let mut said = format!("{url}: {}", status.message());
    if let Some(cause) = root_cause(&status).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
        // A server that does not like our certificate closes after the handshake (TLS 1.3, RFC 8446 section 4.4.2.4), so
        // that often no more is heard than that the connection broke.
        if url.starts_with("https://") && !never_left(&status) {
            said.push_str("; if it stays so, check --etcd-ca, --etcd-cert and --etcd-key");
        }
    }
    match status.code() {
        Code::OutOfRange if status.message().contains("compacted") => {
            Failure::Final(StoreError::Compacted { oldest: 0 })
        }
        Code::NotFound if status.message().contains("lease not found") => {
            Failure::Final(StoreError::LeaseEnded)
        }
        _ if is_login(status.message()) => {
            Failure::Final(StoreError::Unavailable(format!("{said}; check the user and password for etcd")))
        }
        Code::InvalidArgument => Failure::Final(StoreError::Invalid(said)),
        Code::DataLoss => Failure::Final(StoreError::Broken(said)),
        Code::PermissionDenied => Failure::Final(StoreError::Unavailable(format!(
            "{said}; grant etcd's user read and write on the fleet's prefix"
        ))),
        Code::Unauthenticated => Failure::NotDone(said),
        Code::ResourceExhausted if status.message().contains("space") => {
            Failure::NotDone(format!("{said}; compact, defragment and disarm etcd's alarm"))
        }
        Code::ResourceExhausted => Failure::NotDone(said),
        _ if status.message().contains("no leader") || never_left(&status) => Failure::NotDone(said),
        _ => Failure::Unknown(said),
    }
}

/// Whether it is about who we are (etcd's `api/v3rpc/rpctypes/error.go`): an operator's to cure, and then worth a retry.
fn is_login(message: &str) -> bool {
    ["authentication failed", "user name is empty", "authentication is not enabled"]
        .iter()
        .any(|about| message.contains(about))
}

/// The last of the causes: gRPC's own message is no more than "transport error".
fn root_cause(status: &Status) -> Option<&(dyn std::error::Error + 'static)> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause)
}

/// Whether the call failed before there was a connection to send it on.
fn never_left(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::AddrNotAvailable
            );
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
