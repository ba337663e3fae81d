//! Mutual TLS: who is let in, and what each may do.

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleetknock_controller::{
    enrolment::issuer::Issuer,
    store::{Store, memory::MemoryStore},
    trust::{Trust, rule},
};
use fleetknock_core::identity::{Expected, FleetName};
use fleetknock_proto::v1::{
    self as pb, agent_message::Kind as Say, agent_service_client::AgentServiceClient,
    control_service_client::ControlServiceClient, peer_message::Kind as PeerSay,
    peer_service_client::PeerServiceClient,
};
use fleetknock_runtime::tls::{
    self, Connector, Credentials, Files, OwnFiles, UriRule,
    authority::{Access, Authority, Order, PrivateKey, write_new},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{Agent, Controller, apply, door, shown_steps};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_agent_speaks_for_its_own_host_and_for_no_other() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let edge = blue.dial(&controller, "host/edge-1").await;
    let agent = Agent::over(edge.clone(), "edge-1", "edge", false).await.unwrap();

    let mut viewer = ControlServiceClient::new(blue.dial(&controller, "user/v?role=viewer").await);
    let mut events = viewer.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    let refused = Agent::over(edge, "db-1", "db", false).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("that of host edge-1, which cannot speak for host 'db-1'"),
        "{refused}"
    );
    let warning = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.kind() == pb::EventKind::Impostor {
                return event;
            }
        }
    };
    let warning = timeout(PATIENCE, warning).await.unwrap();
    assert_eq!(warning.host, "edge-1");
    assert_eq!(warning.message, "the agent of host edge-1 said that it is host 'db-1' and was cut off");
    assert!(!warning.id.is_empty(), "it is kept");
    assert_eq!(warning.actor.unwrap().who, "host edge-1");

    let hosts = viewer.list_hosts(pb::ListHostsRequest::default()).await.unwrap().into_inner().hosts;
    assert_eq!(hosts.len(), 1, "the other host was never registered: {hosts:?}");
    assert!(hosts[0].connected, "the first stream lives on");
    drop(agent);
}

#[tokio::test]
async fn hosts_and_users_and_controllers_keep_to_their_own_service() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    for (who, may) in [
        ("host/edge-1", [true, false, false]),
        ("controller/ctl-2", [false, true, false]),
        ("user/a?role=admin", [false, false, true]),
    ] {
        let channel = blue.dial(&controller, who).await;
        let codes = [attach(&channel).await, describe(&channel).await, list(&channel).await];
        let expected = may.map(|may| if may { Ok(()) } else { Err(Code::PermissionDenied) });
        assert_eq!(codes, expected, "{who}");
    }
}

#[tokio::test]
async fn a_controller_forwards_in_its_own_name_only() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let channel = blue.dial(&controller, "controller/ctl-2").await;
    let hello = async |name: &str| {
        let hello = pb::PeerHello {
            controller: name.to_owned(),
            meant: "ctl-1".to_owned(),
            fleet: "another".to_owned(),
            ..pb::PeerHello::default()
        };
        let message = pb::PeerMessage { kind: Some(PeerSay::Hello(hello)) };
        let mut client = PeerServiceClient::new(channel.clone());
        let mut answers = client.forward(tokio_stream::iter([message])).await.unwrap().into_inner();
        answers.message().await.unwrap_err().code()
    };
    assert_eq!(hello("ctl-3").await, Code::PermissionDenied);
    assert_eq!(
        hello("ctl-2").await,
        Code::FailedPrecondition,
        "its name is right, and its fleet looked at next"
    );
}

#[tokio::test]
async fn a_viewer_looks_an_operator_opens_and_an_admin_changes_doors() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let mut users = Vec::new();
    for role in ["viewer", "operator", "admin"] {
        let channel = blue.dial(&controller, &format!("user/u?role={role}")).await;
        users.push(ControlServiceClient::new(channel));
    }
    let [viewer, operator, admin] = &mut users[..] else { panic!("three roles") };

    for user in [&mut *viewer, operator] {
        let refused = user.apply_door(apply(door())).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(
            refused.message().starts_with("ApplyDoor needs the role admin, and user u has the role "),
            "{refused}"
        );
    }
    admin.apply_door(apply(door())).await.unwrap();

    let open =
        pb::OpenRequest { door: "bastion-ssh".into(), source: "203.0.113.5".into(), ..Default::default() };
    let refused = viewer.open(open.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "Open needs the role operator, and user u has the role viewer");
    operator.open(open).await.unwrap();
    let ban = pb::BanSourceRequest { source: "203.0.113.9".into(), ..Default::default() };
    assert_eq!(viewer.ban_source(ban.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    operator.ban_source(ban).await.unwrap();

    let ask = |reveal| pb::GetDoorRequest { name: "bastion-ssh".into(), reveal };
    for user in [&mut *viewer, operator] {
        let shown = user.get_door(ask(false)).await.unwrap().into_inner();
        assert!(shown_steps(&shown).is_empty());
        let refused = user.get_door(ask(true)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("(--reveal) needs the role admin"), "{refused}");
        let all = pb::ListDoorsRequest { reveal: true, ..Default::default() };
        assert_eq!(user.list_doors(all).await.unwrap_err().code(), Code::PermissionDenied);
    }
    assert!(shown_steps(admin.get_door(ask(true)).await.unwrap().get_ref()).contains(&7412));

    let delete = pb::DeleteDoorRequest { name: "bastion-ssh".into(), ..Default::default() };
    assert_eq!(operator.delete_door(delete.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    admin.delete_door(delete).await.unwrap();
}

#[tokio::test]
async fn other_fleets_and_other_authorities_are_refused_at_each_service() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    // The same authority for another fleet, and another authority for the same.
    let red = Office { fleet: "red".parse().unwrap(), ..Office::new("blue").with_authority_of(&blue) };
    let other = Office::new("blue");
    for (office, said) in [(&red, "not this name, role or fleet"), (&other, "does not trust the authority")] {
        for who in ["host/edge-1", "controller/ctl-2", "user/a?role=admin"] {
            let connector = blue.connector_with(office.own(who));
            for call in 0..3 {
                let channel = match dial(&connector, controller.address).await {
                    // The refusal may come before the channel is used at all.
                    Err(error) => {
                        assert!(error.contains(said), "{who}: {error}");
                        continue;
                    }
                    Ok(channel) => channel,
                };
                let status = match call {
                    0 => attach_status(&channel).await,
                    1 => describe_status(&channel).await,
                    _ => list_status(&channel).await,
                };
                let status = status.unwrap_err();
                let told = chain(&status);
                assert!(told.contains(said), "{who}: {told}");
            }
        }
    }
    let reached = list(&blue.dial(&controller, "user/a?role=viewer").await).await;
    assert_eq!(reached, Ok(()), "the controller serves on");
}

#[tokio::test]
async fn without_a_certificate_health_answers_and_nothing_else() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let files = Files { own: None, authorities: vec![blue.path("ca.crt")] };
    let connector = blue.connector_of(Credentials::load(files).unwrap());
    let channel = dial(&connector, controller.address).await.unwrap();
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    for code in [attach(&channel).await, describe(&channel).await, list(&channel).await] {
        assert_eq!(code, Err(Code::Unauthenticated));
    }
    let plain = Channel::from_shared(format!("http://{}", controller.address)).unwrap().connect().await;
    if let Ok(plain) = plain {
        assert!(list(&plain).await.is_err(), "plain text is not spoken");
    }
}

#[tokio::test]
async fn controllers_link_with_each_other_by_name() {
    let blue = Office::new("blue");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = blue.controller_over("ctl-1", "ctl-1", store.clone()).await;
    let _second = blue.controller_over("ctl-2", "ctl-2", store.clone()).await;
    // It says that it is the third one, and shows the certificate of the second.
    let _third = blue.controller_over("ctl-3", "ctl-2", store).await;
    let mut admin = ControlServiceClient::new(blue.dial(&first, "user/a?role=admin").await);
    let peers = async {
        loop {
            let request = pb::GetControllerRequest { name: "ctl-1".to_owned() };
            let peers = admin.get_controller(request).await.unwrap().into_inner().peers;
            let of = |name: &str| peers.iter().find(|peer| peer.controller == name).cloned();
            if let (Some(second), Some(third)) = (of("ctl-2"), of("ctl-3"))
                && second.state() == pb::PeerState::Up
                && third.state() == pb::PeerState::Cut
            {
                return third;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let third = timeout(PATIENCE, peers).await.unwrap();
    assert!(third.reason.contains("that of controller ctl-2, and controller ctl-3 is expected"), "{third:?}");
}

#[test]
fn that_browsers_would_refuse_the_certificate_is_said() {
    let office = Office::new("blue");
    let trust = |names: &[&str]| {
        let files = office.files(office.own_named("controller/ctl-1", names));
        Trust::load(&office.fleet, Some(files)).unwrap()
    };
    let said = trust(&[]).foreign_to_browsers().unwrap();
    assert!(said.contains("--tls-cert") && said.contains("--dns NAME --ip ADDRESS"), "{said}");
    assert_eq!(trust(&["knock.example"]).foreign_to_browsers(), None);
    assert_eq!(Trust::Plain.foreign_to_browsers(), None);
}

async fn attach_status(channel: &Channel) -> Result<(), Status> {
    // Not a Hello: whoever is let in is told so.
    let report = pb::AgentMessage { kind: Some(Say::Report(pb::HostReport::default())) };
    let mut stream =
        AgentServiceClient::new(channel.clone()).attach(tokio_stream::iter([report])).await?.into_inner();
    match stream.message().await {
        Err(status) if status.code() == Code::InvalidArgument => Ok(()),
        Err(status) => Err(status),
        Ok(told) => panic!("a stream began without Hello: {told:?}"),
    }
}

async fn describe_status(channel: &Channel) -> Result<(), Status> {
    PeerServiceClient::new(channel.clone()).describe(pb::DescribeRequest {}).await.map(|_| ())
}

async fn list_status(channel: &Channel) -> Result<(), Status> {
    ControlServiceClient::new(channel.clone()).list_doors(pb::ListDoorsRequest::default()).await.map(|_| ())
}

async fn attach(channel: &Channel) -> Result<(), Code> {
    attach_status(channel).await.map_err(|status| status.code())
}

async fn describe(channel: &Channel) -> Result<(), Code> {
    describe_status(channel).await.map_err(|status| status.code())
}

async fn list(channel: &Channel) -> Result<(), Code> {
    list_status(channel).await.map_err(|status| status.code())
}

pub(crate) async fn dial(connector: &Connector, address: SocketAddr) -> Result<Channel, String> {
    let origin = format!("https://{address}").parse().unwrap();
    let endpoint = Connector::endpoint(&address.to_string(), origin).unwrap();
    endpoint.connect_with_connector(connector.clone()).await.map_err(|error| chain(&error))
}

/// An error with all that is beneath it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        told = format!("{told}: {error}");
        next = error.source();
    }
    told
}

/// Issues certificates of one fleet.
pub(crate) struct Office {
    directory: TempDir,
    authority: Arc<Authority>,
    fleet: FleetName,
    issuer: Option<Issuer>,
}

impl Office {
    pub(crate) fn new(fleet: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (authority, key) = Authority::create("a CA", "x://ca", 2 * HOUR, SystemTime::now()).unwrap();
        fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
        write_new(&directory.path().join("ca.key"), key.pem(), Access::Owner).unwrap();
        Self { directory, authority: Arc::new(authority), fleet: fleet.parse().unwrap(), issuer: None }
    }

    /// Its controllers sign hosts' certificates.
    pub(crate) fn issuing(fleet: &str, valid_for: Duration) -> Self {
        let office = Self::new(fleet);
        let issuer = Issuer::new(office.path("ca.crt"), office.path("ca.key"), valid_for);
        Self { issuer: Some(issuer), ..office }
    }

    fn with_authority_of(self, other: &Self) -> Self {
        Self { authority: other.authority.clone(), ..self }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// A new certificate for this path of a URI, in files.
    pub(crate) fn own(&self, who: &str) -> OwnFiles {
        self.own_named(who, &[])
    }

    /// The same with names of the network.
    fn own_named(&self, who: &str, dns_names: &[&str]) -> OwnFiles {
        let order = Order {
            common_name: "somebody".to_owned(),
            uri: format!("fleetknock://{}/{who}", self.fleet),
            dns_names: dns_names.iter().map(ToString::to_string).collect(),
            addresses: vec![],
            server: who.starts_with("controller/"),
            client: true,
            valid_for: HOUR,
        };
        let key = PrivateKey::generate().unwrap();
        let issued = self.authority.sign(&key.public().unwrap(), &order, SystemTime::now()).unwrap();
        let number: u64 = rand::random();
        let (certificate, key_path) =
            (self.path(&format!("{number}.crt")), self.path(&format!("{number}.key")));
        write_new(&certificate, &issued.pem, Access::Everybody).unwrap();
        write_new(&key_path, key.pem(), Access::Owner).unwrap();
        OwnFiles { certificate, key: key_path, rule: UriRule::anybody() }
    }

    fn files(&self, own: OwnFiles) -> Files {
        Files { own: Some(own), authorities: vec![self.path("ca.crt")] }
    }

    pub(crate) async fn controller(&self, name: &str) -> Controller {
        self.controller_over(name, name, Arc::new(MemoryStore::new())).await
    }

    pub(crate) async fn controller_over(
        &self,
        name: &str,
        certificate: &str,
        store: Arc<dyn Store>,
    ) -> Controller {
        Controller::trusting(name, store, self.trust_of(certificate)).await
    }

    /// A controller by whose cluster's word hosts enrol.
    #[cfg(feature = "operator")]
    pub(crate) async fn controller_asking(
        &self,
        name: &str,
        store: Arc<dyn Store>,
        cluster: Arc<dyn fleetknock_controller::enrolment::cluster::Cluster>,
    ) -> Controller {
        Controller::trusting(name, store, self.trust_of(name).with_cluster(cluster)).await
    }

    fn trust_of(&self, controller: &str) -> Trust {
        let files = self.files(self.own(&format!("controller/{controller}")));
        let trust = Trust::load(&self.fleet, Some(files)).unwrap();
        match &self.issuer {
            Some(issuer) => trust.with_issuer(issuer.clone()),
            None => trust,
        }
    }

    /// Trusts controllers of this fleet.
    pub(crate) fn connector_of(&self, credentials: Credentials) -> Connector {
        Connector::new(credentials, tls::Expected::Uri(rule(&self.fleet, Expected::AnyController)))
    }

    pub(crate) fn connector_with(&self, own: OwnFiles) -> Connector {
        self.connector_of(Credentials::load(self.files(own)).unwrap())
    }

    pub(crate) async fn dial(&self, controller: &Controller, who: &str) -> Channel {
        dial(&self.connector_with(self.own(who)), controller.address).await.unwrap()
    }
}
