//! An authority in a directory, and a server that says who came.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use prometheus_client::{encoding::text::encode, registry::Registry};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_stream::StreamExt as _;
use tonic::codegen::http::Uri;

use super::super::{
    Acceptor, Clients, Connector, Credentials, Expected, Files, Incoming, Limits, OwnFiles, Peer, Refusal,
    UriRule,
    authority::{Access, Authority, Order, PrivateKey, Staged},
};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A directory with an authority, as old as a month.
pub(crate) struct Lab {
    directory: TempDir,
    pub(crate) authority: Authority,
    pub(crate) now: SystemTime,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::named("a CA")
    }

    pub(crate) fn named(name: &str) -> Self {
        let now = SystemTime::now();
        let directory = tempfile::tempdir().unwrap();
        let (authority, _) = Authority::create(name, "x://ca", 100 * DAY, now - 30 * DAY).unwrap();
        fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
        Self { directory, authority, now }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for a day in files of this name; a client's, and a controller's also a server's.
    pub(crate) fn leaf(&self, name: &str, uri: &str) -> OwnFiles {
        self.leaf_at(name, uri, |_| {}, self.now)
    }

    pub(crate) fn leaf_at(
        &self,
        name: &str,
        uri: &str,
        change: impl FnOnce(&mut Order),
        at: SystemTime,
    ) -> OwnFiles {
        let server = uri.contains("/controller/");
        let mut order = Order { server, ..Order::client(name, uri, DAY) };
        change(&mut order);
        let key = PrivateKey::generate().unwrap();
        let issued = self.authority.sign(&key.public().unwrap(), &order, at).unwrap();
        let files = OwnFiles {
            certificate: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            rule: UriRule::anybody(),
        };
        let certificate = Staged::new(&files.certificate, &issued.pem, Access::Everybody).unwrap();
        Staged::new(&files.key, key.pem(), Access::Owner).unwrap().commit().unwrap();
        certificate.commit().unwrap();
        files
    }

    pub(crate) fn files(&self, own: OwnFiles) -> Files {
        Files { own: Some(own), authorities: vec![self.path("ca.crt")] }
    }

    /// Dials controllers of the blue fleet.
    pub(crate) fn connector(&self, own: OwnFiles) -> Connector {
        let credentials = Credentials::load(self.files(own)).unwrap();
        Connector::new(credentials, Expected::Uri(only("x://blue/controller/")))
    }

    pub(crate) fn stand(&self, clients: Clients) -> Stand {
        let files = self.files(self.leaf("c-1", "x://blue/controller/c-1"));
        Stand::new(Credentials::load(files).unwrap(), clients, Limits::default())
    }

    pub(crate) fn stand_within(&self, limits: Limits) -> Stand {
        let files = self.files(self.leaf("c-1", "x://blue/controller/c-1"));
        Stand::new(Credentials::load(files).unwrap(), Clients::Required(UriRule::anybody()), limits)
    }
}

/// One URI, with this in it.
pub(crate) fn only(part: &'static str) -> UriRule {
    UriRule::new(move |uris| match uris {
        [uri] if uri.contains(part) => Ok(()),
        _ => Err(format!("it is not of {part}")),
    })
}

/// A server that tells each client its URIs in a line, and then gives back what it gets.
pub(crate) struct Stand {
    pub(crate) address: SocketAddr,
    pub(crate) peers: Arc<Mutex<Vec<Peer>>>,
    /// Connections that are served.
    pub(crate) open: Arc<AtomicUsize>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    registry: Registry,
    _tasks: JoinSet<()>,
}

impl Stand {
    pub(crate) fn new(credentials: Credentials, clients: Clients, limits: Limits) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let refusals = Arc::<Mutex<Vec<Refusal>>>::default();
        let observed = refusals.clone();
        let acceptor = Acceptor::new(credentials, clients)
            .unwrap()
            .on_refusal(move |refusal| observed.lock().unwrap().push(refusal.clone()));
        let mut registry = Registry::default();
        acceptor.register(&mut registry);
        let listener = TcpListener::from_std(listener).unwrap();
        Self { refusals, registry, ..Self::of(Incoming::tls(listener, acceptor, limits), address) }
    }

    pub(crate) fn of(mut incoming: Incoming, address: SocketAddr) -> Self {
        let (peers, open) = (Arc::<Mutex<Vec<Peer>>>::default(), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let (seen, count) = (peers.clone(), open.clone());
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Some(Ok(mut connection)) = incoming.next().await {
                seen.lock().unwrap().push(connection.peer().clone());
                let count = count.clone();
                count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(async move {
                    let greeting = format!("{}\n", connection.peer().uris().join(","));
                    // That the client left early is for the client's side of a test.
                    if connection.write_all(greeting.as_bytes()).await.is_ok() {
                        let mut buffer = [0; 256];
                        while let Ok(length @ 1..) = connection.read(&mut buffer).await {
                            if connection.write_all(&buffer[..length]).await.is_err() {
                                break;
                            }
                        }
                    }
                    count.fetch_sub(1, Ordering::SeqCst);
                    let _ = connection.shutdown().await;
                });
            }
        });
        Self { address, peers, open, refusals: Arc::default(), registry: Registry::default(), _tasks: tasks }
    }

    pub(crate) fn uri(&self) -> Uri {
        format!("http://{}/", self.address).parse().unwrap()
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.refusals.lock().unwrap().clone()
    }

    /// The next refusal.
    pub(crate) async fn refused(&self) -> Refusal {
        eventually(|| self.refusals.lock().unwrap().pop()).await
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits until so many handshakes ended like this.
    pub(crate) async fn counted(&self, outcome: &str, count: u64) {
        let line = format!("tls_handshakes_total{{outcome=\"{outcome}\"}} {count}\n");
        eventually(|| self.metrics().contains(&line).then_some(())).await;
    }

    pub(crate) async fn counted_at_least(&self, outcome: &str, count: u64) {
        let line = format!("tls_handshakes_total{{outcome=\"{outcome}\"}} ");
        eventually(|| {
            let metrics = self.metrics();
            let value = metrics.lines().find_map(|text| text.strip_prefix(&line))?;
            (value.parse::<u64>().unwrap() >= count).then_some(())
        })
        .await;
    }
}

/// What the server says about who came, or what went wrong.
pub(crate) async fn talk(connector: &Connector, address: SocketAddr) -> Result<String, String> {
    let uri = format!("http://{address}/").parse().unwrap();
    let mut stream = connector.connect(&uri).await.map_err(|error| error.to_string())?;
    let talk = async {
        stream.write_all(b"ping").await?;
        let mut said = vec![];
        while !said.ends_with(b"ping") {
            if stream.read_buf(&mut said).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        std::io::Result::Ok(said)
    };
    let said = String::from_utf8(talk.await.map_err(|error| error.to_string())?).unwrap();
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Waits, at most 10 s.
pub(crate) async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come in time");
}
