//! Over TLS: the agent attaches to a controller of its fleet, and says nothing to anybody else.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Parser as _;
use fleetknock_agent::config::Settings;
use fleetknock_proto::v1::agent_message::Kind as Said;
use fleetknock_runtime::tls::{
    Acceptor, Clients, Connector, Credentials, Expected, Incoming, Limits, OwnFiles, UriRule,
    authority::{Access, Authority, Order, PrivateKey, write_new},
};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{
    controller::Controller,
    host::{Host, eventually},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_attaches_to_a_controller_of_its_fleet() {
    let office = Office::new();
    let controller = office.controller("fleetknock://blue/controller/c-1").await;
    let _host = office.host(&controller);
    let mut stream = controller.stream().await;
    let Said::Hello(hello) = stream.hear().await else { panic!("the first message is not Hello") };
    assert_eq!(hello.host, "edge-1");
    assert_eq!(controller.url().to_string(), format!("https://{}", controller.address()));
    let authority = controller.address().to_string();
    assert_eq!(controller.seen().authorities, [authority]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_controller_of_the_fleet_hears_nothing() {
    let office = Office::new();
    // They have a certificate of the same authority and may be servers by it.
    let mut wrong = Vec::new();
    for uri in ["fleetknock://red/controller/c-1", "fleetknock://blue/host/edge-2"] {
        wrong.push(office.controller(uri).await);
    }
    let right = office.controller("fleetknock://blue/controller/c-1").await;
    let all = [&wrong[0], &wrong[1], &right];
    let _hosts = [office.host_of(&all), office.host_of(&all), office.host_of(&all)];
    // Whatever order they try them in, all of them end at the right one.
    let streams = [right.stream().await, right.stream().await, right.stream().await];
    let alone = office.host_of(&[&wrong[0], &wrong[1]]);
    eventually("every wrong one to be dialled twice", || {
        wrong.iter().all(|controller| controller.turned_away() >= 2)
    })
    .await;
    for controller in &wrong {
        assert!(controller.seen().hellos.is_empty() && controller.seen().authorities.is_empty());
    }
    alone.stop().await.unwrap();
    drop(streams);
}

#[test]
fn the_own_certificate_must_be_that_of_the_host() {
    let office = Office::new();
    let files = office.settings("edge-1").tls_files().unwrap().unwrap();
    files.load(SystemTime::now()).unwrap();
    let files = office.settings("edge-2").tls_files().unwrap().unwrap();
    let error = files.load(SystemTime::now()).unwrap_err().to_string();
    assert!(error.contains("that of host edge-1, and host edge-2 is expected"), "{error}");
    assert!(error.contains("give the certificate's --host and --fleet"), "{error}");
}

/// Issues certificates of the blue fleet, and of others.
struct Office {
    directory: TempDir,
    authority: Authority,
}

impl Office {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (authority, _) = Authority::create("a CA", "x://ca", 2 * HOUR, SystemTime::now()).unwrap();
        fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
        let office = Self { directory, authority };
        office.own("agent", "fleetknock://blue/host/edge-1");
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn own(&self, name: &str, uri: &str) -> OwnFiles {
        let addresses = vec!["127.0.0.1".parse().unwrap()];
        let order = Order { server: true, addresses, ..Order::client("somebody", uri, HOUR) };
        let key = PrivateKey::generate().unwrap();
        let issued = self.authority.sign(&key.public().unwrap(), &order, SystemTime::now()).unwrap();
        let (certificate, key_path) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        write_new(&certificate, &issued.pem, Access::Everybody).unwrap();
        write_new(&key_path, key.pem(), Access::Owner).unwrap();
        OwnFiles { certificate, key: key_path, rule: UriRule::anybody() }
    }

    /// What an agent is told, as on its command line.
    fn settings(&self, host: &str) -> Settings {
        let path = |name: &str| self.path(name).display().to_string();
        let (certificate, key, authority) = (path("agent.crt"), path("agent.key"), path("ca.crt"));
        Settings::try_parse_from([
            "agent",
            "--host",
            host,
            "--fleet=blue",
            "--controller=https://127.0.0.1",
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
            "--tls-ca",
            &authority,
        ])
        .unwrap()
        .checked()
        .unwrap()
    }

    async fn controller(&self, uri: &str) -> Controller {
        let own = self.own(&format!("{:016x}", rand::random::<u64>()), uri);
        let files = fleetknock_runtime::tls::Files { own: Some(own), authorities: vec![self.path("ca.crt")] };
        let clients = Clients::Required(UriRule::anybody());
        let acceptor = Acceptor::new(Credentials::load(files).unwrap(), clients).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = prometheus_client::registry::Registry::default();
        acceptor.register(&mut registry);
        Controller::secure(Incoming::tls(listener, acceptor, Limits::default()), address, registry)
    }

    fn host(&self, controller: &Controller) -> Host {
        self.host_of(&[controller])
    }

    fn host_of(&self, controllers: &[&Controller]) -> Host {
        let settings = self.settings("edge-1");
        let credentials = Credentials::load(settings.tls_files().unwrap().unwrap()).unwrap();
        let connector = Connector::new(credentials, Expected::Uri(settings.controller_rule()));
        Host::start_with(controllers, |parts| parts.connector = Some(connector))
    }
}
