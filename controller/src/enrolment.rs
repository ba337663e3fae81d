//! Certificates for hosts: the first one for a token, the next one for the one before. Of what is asked only the public key
//! counts; whose certificate it becomes stands in the token, or in the certificate that the caller shows.
//!
//! A token is spent by the same commit that writes the event of it, after the certificate was signed and before it is
//! told: of two that show it at the same time one gets a certificate. When the answer gets lost, the token is spent all
//! the same.
//!
//! Where a [`Cluster`] is asked, the token that it gave to a pod counts in the place of ours: it is not
//! spent, since the cluster makes it anew each hour, and is good for the host on which that pod runs and no other.
//!
//! There is no list of certificates that were taken back: they are short-lived, and a host that was deleted is not given
//! the next one before its agent has attached again, for everybody to see.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use fleetknock_core::{
    host::HostName,
    identity::{FleetName, Identity, Who},
};
use fleetknock_proto::{
    status as refuse,
    v1::{self as pb, enrolment_service_server::EnrolmentService},
};
use fleetknock_runtime::tls::{Material, authority::PublicKey, time_text};
use tonic::{Request, Response, Status};

use crate::{
    audit,
    record::Actor,
    shared::Shared,
    store::StoreError,
    trust::{
        Caller, Trust,
        caller::Whose,
        ticket::{self, Ticket},
        token::{Kind, TokenError},
    },
};

pub mod cluster;
pub mod issuer;
mod pace;

use cluster::{Cluster, ClusterError, Word};
use issuer::Issuer;
use pace::Pace;

/// The longest request, in bytes: a token, also one of a cluster, and a request for a certificate of any usual key.
pub const REQUEST_MAX: usize = 16 * 1024;
/// A host gets its next certificate at most once in this share of a certificate's life,
const PACE_SHARE: u32 = 50;
/// or in this time, when that is shorter: each one is an event of the trail.
const PACE_MOST: Duration = Duration::from_secs(600);
/// A host enrols by the word of its cluster at most once in this time: an answer may get lost, and a pod that starts again
/// and again without keeping its certificate fills no trail.
const PACE_FIRST: Duration = Duration::from_secs(60);

/// The service.
pub struct Service {
    shared: Arc<Shared>,
    pace: Mutex<Pace>,
    first: Mutex<Pace>,
}

/// What signing takes.
struct Desk {
    fleet: FleetName,
    issuer: Arc<Issuer>,
    material: Arc<Material>,
    cluster: Option<Arc<dyn Cluster>>,
}

impl Service {
    /// Over the shared parts.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, pace: Mutex::default(), first: Mutex::default() }
    }

    fn desk(&self) -> Result<Desk, Status> {
        match &self.shared.trust {
            Trust::Mutual { fleet, credentials, issuer: Some(issuer), cluster } => Ok(Desk {
                fleet: fleet.clone(),
                issuer: issuer.clone(),
                material: credentials.current(),
                cluster: cluster.clone(),
            }),
            _ => Err(refuse::precondition(
                "controller",
                self.shared.name.as_str(),
                "it issues no certificates; give it --issuer-cert and --issuer-key, or issue them otherwise (fleetknock \
                 pki issue host)",
            )),
        }
    }

    async fn first(
        &self,
        caller: &Caller,
        request: pb::EnrolRequest,
    ) -> Result<pb::IssuedCertificate, Status> {
        let desk = self.desk()?;
        if cluster::has_form(&request.token) {
            return self.by_cluster(caller, desk, request).await;
        }
        let ticket = ticket::judge(&self.shared, &request.token).map_err(refused)?;
        let key = public_key(&request.signing_request)?;
        let issued = desk.sign(&ticket.host, key).await?;
        self.spend(caller, &ticket, &issued).await?;
        Ok(issued)
    }

    async fn by_cluster(
        &self,
        caller: &Caller,
        desk: Desk,
        request: pb::EnrolRequest,
    ) -> Result<pb::IssuedCertificate, Status> {
        let Some(cluster) = &desk.cluster else {
            return Err(refuse::unknown_caller(
                "this is the token of a cluster, and this controller asks none; give it --kubernetes-enroll \
                 NAMESPACE/SERVICEACCOUNT, or enrol with a token of fleetknock enroll-token",
            ));
        };
        let key = public_key(&request.signing_request)?;
        let word = cluster.word(&request.token).await.map_err(|error| match error {
            ClusterError::Away { reason } => refuse::unavailable(format!("{reason}; try again")),
            ClusterError::Refused { reason } => refuse::unknown_caller(reason),
        })?;
        let every = (desk.issuer.valid_for() / PACE_SHARE).min(PACE_FIRST);
        paced(&self.first, &word.host, every)?;
        let issued = self.by_word(caller, desk, &word, key).await;
        if issued.is_err() {
            // It got none.
            lock(&self.first).forget(&word.host);
        }
        issued
    }

    async fn by_word(
        &self,
        caller: &Caller,
        desk: Desk,
        word: &Word,
        key: PublicKey,
    ) -> Result<pb::IssuedCertificate, Status> {
        let host = &word.host;
        let issued = desk.sign(host, key).await?;
        let who = Who::Host(host.clone()).to_string();
        let actor = Actor { who, by: word.holder.clone(), ..caller.actor() };
        let message = format!("host {host} got its first certificate, until {}", until(&issued));
        self.write(pb::EventKind::HostEnrolled, host, &actor, message).await?;
        Ok(issued)
    }

    async fn spend(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        issued: &pb::IssuedCertificate,
    ) -> Result<(), Status> {
        let shared = &self.shared;
        let actor = Actor {
            who: Who::Host(ticket.host.clone()).to_string(),
            by: format!("token {}", ticket.id),
            ..caller.actor()
        };
        let at = shared.now();
        let stamp = shared.stamp(at, Some(&actor));
        let message = format!("host {} got its first certificate, until {}", ticket.host, until(issued));
        let event = audit::entry(pb::EventKind::HostEnrolled, stamp, message).about_host(&ticket.host);
        let mut transaction = ticket.spend();
        audit::append(&mut transaction, &shared.state().fleet, [event])
            .map_err(|error| refuse::unavailable(error.to_string()))?;
        match shared.store.commit(transaction).await {
            Ok(revision) => {
                shared.caught_up(revision).await;
                Ok(())
            }
            // Somebody else spent it, or revoked it.
            Err(StoreError::Conflict) => Err(refused(TokenError::Unknown { kind: Kind::Host })),
            Err(error) => {
                tracing::warn!(%error, host = %ticket.host, "a token may be spent or not");
                Err(refuse::unavailable("the store did not say whether the token is spent; try again"))
            }
        }
    }

    async fn next(
        &self,
        caller: &Caller,
        request: pb::RenewRequest,
    ) -> Result<pb::IssuedCertificate, Status> {
        let desk = self.desk()?;
        let host = match &caller.who {
            Whose::Known(Who::Host(host)) => host.clone(),
            Whose::Known(who) => return Err(refuse::denied(format!("{who} is not the agent of a host"))),
            Whose::Anybody => return Err(refuse::unknown_caller("a host shows the certificate that it has")),
        };
        let shared = &self.shared;
        if !shared.state().fleet.hosts().contains_key(&host) {
            let why =
                "the fleet does not know it: it was deleted, or never attached; its agent attaches first";
            return Err(refuse::precondition("host", host.as_str(), why));
        }
        let key = public_key(&request.signing_request)?;
        paced(&self.pace, &host, (desk.issuer.valid_for() / PACE_SHARE).min(PACE_MOST))?;
        let issued = desk.sign(&host, key).await?;
        let actor = caller.actor();
        let message = format!("host {host} got its next certificate, until {}", until(&issued));
        self.write(pb::EventKind::CertificateRenewed, &host, &actor, message).await?;
        Ok(issued)
    }

    async fn write(
        &self,
        kind: pb::EventKind,
        host: &HostName,
        actor: &Actor,
        message: String,
    ) -> Result<(), Status> {
        let shared = &self.shared;
        let written = audit::write(shared, |at| {
            let stamp = shared.stamp(at, Some(actor));
            audit::entry(kind, stamp, message.clone()).about_host(host)
        });
        written.await.map(drop).map_err(|error| {
            tracing::warn!(%error, %host, "no certificate without an event of it");
            refuse::unavailable("the store cannot keep the event of it; try again")
        })
    }
}

fn paced(pace: &Mutex<Pace>, host: &HostName, every: Duration) -> Result<(), Status> {
    lock(pace).take(host, Instant::now(), every).map_err(|wait| {
        refuse::unavailable(format!(
            "host {host} got a certificate a moment ago; again in {} s",
            wait.as_secs() + 1
        ))
    })
}

/// What is under these locks is whole at every moment.
fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    async fn sign(self, host: &HostName, key: PublicKey) -> Result<pb::IssuedCertificate, Status> {
        let Self { fleet, issuer, material, .. } = self;
        let identity = Identity { fleet, who: Who::Host(host.clone()) };
        // Files are read, which may hang.
        let signed =
            tokio::task::spawn_blocking(move || issuer.issue(&identity, &key, &material, SystemTime::now()));
        let failed = |error: String| {
            tracing::error!(error, "the issuing authority (--issuer-cert, --issuer-key) cannot be used");
            refuse::unavailable("the issuing authority cannot be used now; the controller's log says why")
        };
        signed.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }
}

#[tonic::async_trait]
impl EnrolmentService for Service {
    async fn enrol(
        &self,
        request: Request<pb::EnrolRequest>,
    ) -> Result<Response<pb::IssuedCertificate>, Status> {
        let caller = Caller::of(request.extensions())?;
        self.first(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::IssuedCertificate>, Status> {
        let caller = Caller::of(request.extensions())?;
        self.next(&caller, request.into_inner()).await.map(Response::new)
    }
}

fn public_key(request: &str) -> Result<PublicKey, Status> {
    PublicKey::from_request(request).map_err(|error| refuse::invalid("signing_request", error.to_string()))
}

/// Whoever guesses learns nothing of which tokens there are or were.
fn refused(error: TokenError) -> Status {
    let told = match error {
        error @ (TokenError::Malformed | TokenError::OtherKind { .. }) => error,
        _ => TokenError::Unknown { kind: Kind::Host },
    };
    refuse::unknown_caller(told.to_string())
}

fn until(issued: &pb::IssuedCertificate) -> String {
    time_text(SystemTime::UNIX_EPOCH + Duration::from_millis(issued.not_after_ms))
}
