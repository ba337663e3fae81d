//! A controller that signs as a test says, and the host that asks it.

#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use clap::Parser as _;
use fleetknock_agent::config::Settings;
use fleetknock_proto::{
    status as refuse,
    v1::{
        self,
        enrolment_service_server::{EnrolmentService, EnrolmentServiceServer},
    },
};
use fleetknock_runtime::tls::{
    Acceptor, Clients, Credentials, Files, Incoming, Limits, OwnFiles, Peer, UriRule,
    authority::{Access, Authority, Order, PrivateKey, PublicKey, write_new},
};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::Server};

use super::volume::Volume;

pub(crate) const TOKEN: &str = "fke_0123456789abcdef_secret";

/// How long certificates of a test are valid, from when they are said to be signed.
const LIFE: Duration = Duration::from_secs(1000);
const HOUR: Duration = Duration::from_secs(3600);

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Sign,
    /// For another host than the one that asks.
    SignForAnother,
    /// The token is not good.
    Refuse,
    /// Its store is away.
    Away,
}

/// What it was asked.
#[derive(Default)]
pub(crate) struct Seen {
    manner: Manner,
    /// How long ago it says that it signs.
    ago: Duration,
    authorities: String,
    pub(crate) tokens: Vec<String>,
    /// Whose certificates were shown.
    pub(crate) renewals: Vec<Vec<String>>,
}

pub(crate) struct Office {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    registry: Registry,
    _directory: TempDir,
}

struct Service {
    authority: Authority,
    seen: Arc<Mutex<Seen>>,
}

pub(crate) struct Host {
    pub(crate) settings: Settings,
    directory: TempDir,
}

impl Office {
    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (authority, _) = Authority::create("a CA", "x://ca", 9 * HOUR, SystemTime::now()).unwrap();
        fs::write(path("ca.crt"), authority.pem()).unwrap();
        let key = PrivateKey::generate().unwrap();
        let order = order("fleetknock://blue/controller/c-1", true, HOUR);
        let issued = authority.sign(&key.public().unwrap(), &order, SystemTime::now()).unwrap();
        write_new(&path("c.crt"), &issued.pem, Access::Everybody).unwrap();
        write_new(&path("c.key"), key.pem(), Access::Owner).unwrap();
        let own = OwnFiles { certificate: path("c.crt"), key: path("c.key"), rule: UriRule::anybody() };
        let files = Files { own: Some(own), authorities: vec![path("ca.crt")] };
        let credentials = Credentials::load(files).unwrap();
        let acceptor = Acceptor::new(credentials.clone(), Clients::Optional(UriRule::anybody())).unwrap();
        let mut registry = Registry::default();
        acceptor.register(&mut registry);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authorities = credentials.current().authorities_pem();
        let seen = Arc::new(Mutex::new(Seen { authorities, ..Seen::default() }));
        let service = Service { authority, seen: seen.clone() };
        let serving = Server::builder()
            .add_service(EnrolmentServiceServer::new(service))
            .serve_with_incoming(Incoming::tls(listener, acceptor, Limits::default()));
        tokio::spawn(async move { serving.await.expect("the server runs") });
        Self { address, seen, registry, _directory: directory }
    }

    /// Nobody is there.
    pub(crate) async fn closed() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self { address, ..Self::open().await }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn become_one(&self, manner: Manner) {
        self.seen().manner = manner;
    }

    pub(crate) fn sign_as_of(&self, ago: Duration) {
        self.seen().ago = ago;
    }

    pub(crate) fn authorities(&self) -> String {
        self.seen().authorities.clone()
    }

    pub(crate) fn trust_another(&self) {
        let (other, _) = Authority::create("another CA", "x://ca", 9 * HOUR, SystemTime::now()).unwrap();
        self.seen().authorities.push_str(other.pem());
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Handshakes that the other side ended.
    pub(crate) fn turned_away(&self) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = "tls_handshakes_total{outcome=\"turned_away\"} ";
        text.lines().find_map(|text| text.strip_prefix(line)?.parse().ok()).unwrap_or_default()
    }

    /// A host with a token and nothing else, that knows this controller and those.
    pub(crate) fn host(&self, others: &[&Self]) -> Host {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("token"), format!("{TOKEN}\n{}", self.authorities())).unwrap();
        let urls: Vec<_> = [&[self][..], others]
            .concat()
            .iter()
            .map(|office| format!("https://{}", office.address))
            .collect();
        let settings = Settings::try_parse_from([
            "agent",
            "--host=edge-1",
            "--fleet=blue",
            &format!("--controller={}", urls.join(",")),
            &format!("--tls-cert={}", path("tls.crt")),
            &format!("--tls-key={}", path("tls.key")),
            &format!("--tls-ca={}", path("ca.crt")),
            &format!("--enroll-token={}", path("token")),
        ]);
        Host { settings: settings.unwrap().checked().unwrap(), directory }
    }

    /// A host whose token and authorities are in volumes that the kubelet keeps, and that knows this controller.
    pub(crate) fn node(&self, token: &str) -> (Host, Volume, Volume) {
        let mut host = self.host(&[]);
        let token = Volume::new(&host.path("run"), "token", token);
        let ca = Volume::new(&host.path("ca"), "ca.crt", &self.authorities());
        host.settings.enroll_token = Some(host.path("run/token"));
        host.settings.tls.tls_ca = vec![host.path("ca/ca.crt")];
        (host, token, ca)
    }
}

impl Host {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn files(&self) -> Files {
        self.settings.tls_files().unwrap().unwrap()
    }
}

impl Service {
    fn sign(&self, request: &str) -> Result<Response<v1::IssuedCertificate>, Status> {
        let seen = self.seen.lock().unwrap();
        let name = match seen.manner {
            Manner::Sign => "edge-1",
            Manner::SignForAnother => "edge-2",
            Manner::Refuse => return Err(refuse::unknown_caller("the token is not known")),
            Manner::Away => return Err(refuse::unavailable("not now")),
        };
        let key = PublicKey::from_request(request).unwrap();
        let order = order(&format!("fleetknock://blue/host/{name}"), false, LIFE);
        let issued = self.authority.sign(&key, &order, SystemTime::now() - seen.ago).unwrap();
        Ok(Response::new(v1::IssuedCertificate {
            certificate: issued.pem,
            authorities: seen.authorities.clone(),
            not_after_ms: 0,
        }))
    }
}

#[tonic::async_trait]
impl EnrolmentService for Service {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let request = request.into_inner();
        self.seen.lock().unwrap().tokens.push(request.token);
        self.sign(&request.signing_request)
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let uris = request.extensions().get::<Peer>().map(|peer| peer.uris().to_vec()).unwrap_or_default();
        self.seen.lock().unwrap().renewals.push(uris);
        self.sign(&request.into_inner().signing_request)
    }
}

fn order(uri: &str, server: bool, valid_for: Duration) -> Order {
    Order { server, ..Order::client("somebody", uri, valid_for) }
}
