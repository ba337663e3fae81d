//! The client's side: dials, shows the certificate of now, and checks whom it reached.
//!
//! For tonic: `Endpoint::from_shared("http://ADDRESS/")?.origin(HTTPS_URL).connect_with_connector(connector)`. The scheme
//! of the endpoint must not be `https`, by which tonic asks for its own TLS, which cannot change certificates.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    sign::SingleCertAndKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{codegen::http::Uri, transport::Endpoint};
use tower_service::Service;

use super::{
    Certificate, Credentials, Derived, Material, Spoken, UriRule, provider,
    words::{self, End},
};

/// How long a server's first bytes, or its refusal, are waited for.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// As much of them as is kept, in bytes.
const EARLY_MAX: usize = 256;
/// From dialling to the end of the handshake.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How a server is known to be the right one, beside being vouched for by an authority.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Its certificate has the name or address that is dialled among its alternative names (RFC 9525).
    Name,
    /// The rule likes its URIs, whatever address is dialled: behind a service's name or a forwarded port it is still
    /// the same one. A name in its certificate is then worth nothing, so that a client's certificate that happens to
    /// have one cannot serve.
    Uri(UriRule),
}

/// Dials servers. Cloning shares what was prepared.
#[derive(Clone, Debug)]
pub struct Connector {
    credentials: Credentials,
    expected: Expected,
    named: Option<ServerName<'static>>,
    within: Duration,
    spoken: Spoken,
    built: Arc<Derived<ClientConfig>>,
}

impl Connector {
    /// Connects within 10 s.
    pub fn new(credentials: Credentials, expected: Expected) -> Self {
        let (spoken, built) = (Spoken::default(), Arc::new(Derived::new()));
        Self { credentials, expected, named: None, within: CONNECT_MAX, spoken, built }
    }

    /// Speaks this within TLS; HTTP/2 unless said otherwise.
    #[must_use]
    pub fn speaking(self, spoken: Spoken) -> Self {
        Self { spoken, built: Arc::new(Derived::new()), ..self }
    }

    /// Within another time, from dialling to the end of the handshake.
    #[must_use]
    pub fn within(mut self, most: Duration) -> Self {
        self.within = most;
        self
    }

    /// Expects and asks for this name, where an address is dialled that was looked up before.
    ///
    /// # Errors
    /// When it is neither a DNS name nor an address.
    pub fn named(mut self, name: &str) -> Result<Self, ConnectError> {
        self.named = Some(server_name(name)?);
        Ok(self)
    }

    /// For tonic: an endpoint that dials this address, with requests that carry the URL `origin`. This connector's place
    /// is in [`Endpoint::connect_with_connector`].
    ///
    /// # Errors
    /// When the address has no form that a URL may hold.
    pub fn endpoint(address: &str, origin: Uri) -> Result<Endpoint, tonic::transport::Error> {
        Ok(Endpoint::from_shared(format!("http://{address}/"))?.origin(origin))
    }

    /// Connects to the host and port of a URI; without a port to 443.
    ///
    /// # Errors
    /// When nobody answers there, or not the right one.
    pub async fn connect(&self, uri: &Uri) -> Result<ClientStream, ConnectError> {
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let within = self.within;
        let connect = async {
            let name = self.named.clone().map_or_else(|| server_name(host), Ok)?;
            let stream = dial(host, port).await?;
            self.handshake(stream, name).await
        };
        timeout(within, connect).await.unwrap_or(Err(ConnectError::Slow { within }))
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> Result<ClientStream, ConnectError> {
        let address =
            stream.peer_addr().map_err(|source| ConnectError::Broken { reason: source.to_string() })?;
        let config = self.config().map_err(|error| ConnectError::Broken { reason: words::of(&error) })?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        let stream = connected.map_err(|error| match words::end(&error) {
            End::Refused(reason) => ConnectError::Refused { address, reason },
            End::TurnedAway(reason) => ConnectError::TurnedAway { reason },
            End::Broken(reason) => ConnectError::Broken { reason },
        })?;
        if stream.get_ref().1.alpn_protocol() != Some(self.spoken.alpn()) {
            return Err(ConnectError::Broken { reason: words::of(&Error::NoApplicationProtocol) });
        }
        let stream = ClientStream { stream: Box::new(stream), early: Vec::new() };
        match self.spoken {
            Spoken::Http2 => stream.settled().await,
            // The client speaks first: there is nothing to wait for.
            Spoken::Http1 => Ok(stream),
        }
    }

    /// The configuration for the credentials of now.
    fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        self.built.of(&self.credentials.current(), |material| build(material, &self.expected, self.spoken))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<ClientStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await.map(TokioIo::new) })
    }
}

/// Tries every address of a name in turn.
async fn dial(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let unknown = |source| ConnectError::Unknown { host: host.to_owned(), source };
    let addresses = lookup_host((host, port)).await.map_err(unknown)?;
    let mut failure = unknown(io::Error::from(io::ErrorKind::NotFound));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small messages are waited for at the other end.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(source) => failure = ConnectError::Unreachable { address, source },
        }
    }
    Err(failure)
}

fn server_name(host: &str) -> Result<ServerName<'static>, ConnectError> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(ServerName::from(address)),
        Err(_) => {
            ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::NoName { host: host.to_owned() })
        }
    }
}

fn build(material: &Material, expected: &Expected, spoken: Spoken) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier =
        Verifier { roots: material.roots.clone(), expected: expected.clone(), provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &material.own {
        Some(own) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![spoken.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Verifies the chain, then asks the rule or compares the name.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match &self.expected {
            Expected::Name => verify_server_name(&parsed, server_name)?,
            Expected::Uri(rule) => {
                let certificate = Certificate::from_der(end_entity)
                    .map_err(|error| words::refusal(format!("its certificate cannot be read: {error}")))?;
                rule.judge(&certificate.uris).map_err(|reason| {
                    words::refusal(format!(
                        "its certificate ({}) is not the one expected: {reason}",
                        certificate.holder()
                    ))
                })?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection to a server that was verified. In TLS 1.3 a server judges the client's certificate only after the client
/// is done (RFC 8446 section 4.4.2.4): its refusal comes instead of the first byte, which is therefore waited for.
#[derive(Debug)]
pub struct ClientStream {
    stream: Box<TlsStream<TcpStream>>,
    /// What came while it was waited for, not yet read.
    early: Vec<u8>,
}

impl ClientStream {
    /// Waits for the first bytes. Who speaks HTTP/2 upon them would else meet the refusal in the middle of its first
    /// request, or as a connection that is closed for no reason, as it happens. A server of HTTP/2 speaks first (RFC 9113
    /// section 3.4); one that does not is not waited for long.
    async fn settled(mut self) -> Result<Self, ConnectError> {
        let mut first = [0; EARLY_MAX];
        match timeout(SETTLE_MAX, self.stream.read(&mut first)).await {
            // Not yet: then the first read tells.
            Err(_) => {}
            Ok(Ok(0)) => {
                return Err(ConnectError::Broken { reason: "the server closed the connection".to_owned() });
            }
            Ok(Ok(count)) => self.early.extend_from_slice(&first[..count]),
            Ok(Err(error)) => {
                return Err(match words::end(&error) {
                    End::TurnedAway(reason) => ConnectError::TurnedAway { reason },
                    End::Refused(reason) | End::Broken(reason) => ConnectError::Broken { reason },
                });
            }
        }
        Ok(self)
    }

    /// What the server's certificate says.
    pub fn server(&self) -> Option<Certificate> {
        let chain = self.stream.get_ref().1.peer_certificates()?;
        Certificate::from_der(chain.first()?).ok()
    }
}

fn plain_words(error: io::Error) -> io::Error {
    match words::tls(&error) {
        Some(tls) => io::Error::new(io::ErrorKind::PermissionDenied, words::of(tls)),
        None => error,
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..count]);
            self.early.drain(..count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.stream).poll_read(context, buffer).map_err(plain_words)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(context, bytes).map_err(plain_words)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context).map_err(plain_words)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

/// Why a server was not reached, or not the right one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It ended before anything was decided.
    #[error("no TLS connection: {reason}")]
    Broken {
        /// Why.
        reason: String,
    },
    /// Not a name that a certificate could have.
    #[error("'{host}' is neither a DNS name nor an address")]
    NoName {
        /// What was given.
        host: String,
    },
    /// Somebody is there, but not the right one.
    #[error("did not talk to {address}: {reason}")]
    Refused {
        /// Who was dialled.
        address: SocketAddr,
        /// Why it is not the right one.
        reason: String,
    },
    /// No end in time.
    #[error("no TLS connection within {within:?}")]
    Slow {
        /// How long was waited.
        within: Duration,
    },
    /// The server did not want this client.
    #[error("turned away: {reason}")]
    TurnedAway {
        /// Why, as far as it says.
        reason: String,
    },
    /// The name has no address.
    #[error("cannot find an address of {host}")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
