//! A collector behind https:// is checked like any other server: by its authorities and by its name.

use tonic::transport::Channel;

use super::*;
use crate::otlp;

#[tokio::test]
async fn a_collector_is_spoken_to_when_its_authority_vouches_for_its_address() {
    let lab = Lab::new();
    let stranger = Lab::named("another CA");
    for (trusted, named, answers) in [(&lab, true, true), (&lab, false, false), (&stranger, true, false)] {
        let address = collector(&lab, named).await;
        let settings = otlp::Settings {
            otlp: Some(format!("https://{address}").parse().unwrap()),
            otlp_ca: vec![trusted.path("ca.crt")],
        };
        let collector = settings.collector().unwrap().unwrap();
        let asked = ask(collector.channel()).await;
        assert_eq!(asked.is_ok(), answers, "{asked:?}");
    }
}

async fn ask(channel: Channel) -> Result<(), tonic::Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(drop)
}

/// Stands in for a collector: a gRPC server with a certificate that has its address, or has not.
async fn collector(lab: &Lab, named: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = if named { "named" } else { "nameless" };
    let leaf = lab.leaf_at(
        name,
        "x://blue/controller/otlp",
        |order| order.addresses.extend(named.then(|| address.ip())),
        lab.now,
    );
    let credentials = Credentials::load(lab.files(leaf)).unwrap();
    let acceptor = Acceptor::new(credentials, Clients::Optional(UriRule::anybody())).unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = Incoming::tls(listener, acceptor, Limits::default());
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    address
}
