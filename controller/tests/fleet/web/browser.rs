//! What a browser does, without one: a request on a connection of its own, and a stream of events.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fleetknock_runtime::tls::OwnFiles;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) struct Browser {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    /// Sent with each request.
    always: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Browser {
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, always: Vec::new() }
    }

    /// One that shows this certificate, or none. It takes whatever server it reaches: those have no names in a test.
    pub(super) fn tls(address: SocketAddr, own: Option<OwnFiles>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_file_iter(&own.certificate).unwrap();
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        // As browsers offer them.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { address, tls: Some(Arc::new(config)), always: Vec::new() }
    }

    /// Sends this header with each request from now on.
    pub(super) fn always(mut self, name: &str, value: &str) -> Self {
        self.always.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As the dashboard's page calls.
    pub(super) async fn call(&self, method: &str, request: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("fleetknock-request", "1")];
        self.send("POST", &format!("/api/v1/{method}"), &headers, &request.to_string()).await
    }

    pub(super) async fn send(&self, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let sending = async {
            let mut stream = self.request(verb, path, headers, body).await;
            let (status, headers) = head(&mut stream).await;
            let mut body = String::new();
            // A controller that closes without a word of TLS says no less.
            let _closed = stream.read_to_string(&mut body).await;
            Answer { status, headers, body }
        };
        timeout(PATIENCE, sending).await.unwrap()
    }

    pub(super) async fn watch(&self, path: &str) -> Events {
        let watching = async {
            let mut stream = self.request("GET", path, &[("accept", "text/event-stream")], "").await;
            let (status, headers) = head(&mut stream).await;
            assert!(status == 200, "{status} {headers:?}");
            assert!(headers.iter().any(|(_, value)| value == "text/event-stream"), "{headers:?}");
            Events { stream }
        };
        timeout(PATIENCE, watching).await.unwrap()
    }

    /// The status of a page; nothing when the server does not speak with this one.
    pub(super) async fn try_get(&self, path: &str) -> Option<u16> {
        let asking = async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let mut stream: Box<dyn Duplex> = match &self.tls {
                None => Box::new(stream),
                Some(tls) => {
                    let name = ServerName::from(self.address.ip());
                    Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await.ok()?)
                }
            };
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            let _closed = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
        };
        timeout(PATIENCE, asking).await.unwrap()
    }

    async fn connect(&self) -> Box<dyn Duplex> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let Some(tls) = &self.tls else { return Box::new(stream) };
        let name = ServerName::from(self.address.ip());
        Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await.unwrap())
    }

    async fn request(
        &self,
        verb: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> BufReader<Box<dyn Duplex>> {
        let mut stream = BufReader::new(self.connect().await);
        let mut text =
            format!("{verb} {path} HTTP/1.0\r\nhost: {}\r\ncontent-length: {}\r\n", self.address, body.len());
        let always = self.always.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in headers.iter().copied().chain(always) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        // What is refused early is not read to its end.
        let _refused = stream.write_all(text.as_bytes()).await;
        stream
    }
}

async fn head(stream: &mut BufReader<Box<dyn Duplex>>) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { return (status, headers) };
        headers.push((name.to_owned(), value.to_owned()));
    }
}

pub(super) struct Events {
    stream: BufReader<Box<dyn Duplex>>,
}

impl Events {
    /// The next event, also the one that says why there are no more; nothing when the stream is over.
    pub(super) async fn event(&mut self) -> Option<Value> {
        let reading = async {
            loop {
                let mut line = String::new();
                if !matches!(self.stream.read_line(&mut line).await, Ok(1..)) {
                    return None;
                }
                if let Some(data) = line.strip_prefix("data: ") {
                    return Some(serde_json::from_str(data).unwrap());
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap()
    }
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
