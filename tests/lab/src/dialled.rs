//! A TLS connection by somebody who shows whatever it likes, with nothing of our own programs in between: what a server
//! says to a certificate that they would not even send.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};

use crate::{
    host::Host,
    pki::{Identity, Pki},
    probe::connect,
};

/// How long a connect, and how long an answer may take on a busy machine.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// How a client of HTTP/2 begins (RFC 9113 section 3.4): the preface, and settings without any in them.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Where the type of a frame stands, and that of settings, with which a server begins (RFC 9113 sections 4.1 and 6.5).
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// A connection that a server serves.
#[derive(Debug)]
pub struct Dialled {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Dialled {
    /// Dials from this host and shows a certificate or none; whom `trusted` vouches for is talked to. The inner error is
    /// what the server refused with.
    ///
    /// # Errors
    /// When nobody listens, the server itself is not trusted, or it says neither yes nor no.
    pub fn open(
        host: &Host,
        to: SocketAddr,
        shown: Option<&Identity>,
        trusted: &Pki,
    ) -> Result<std::result::Result<Self, String>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted.certificate())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificate = CertificateDer::from_pem_file(identity.certificate())?;
                let key = PrivateKeyDer::from_pem_file(identity.key())?;
                builder.with_client_auth_cert(vec![certificate], key)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connection = ClientConnection::new(Arc::new(config), to.ip().into())?;
        let stream = host.inside(|| connect(None, to, CONNECT))??;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut stream = StreamOwned::new(connection, stream);
        // In TLS 1.3 the client is done before the server has looked at its certificate: the first answer tells.
        let mut first = [0; 64];
        let answered = stream.write_all(PREFACE).and_then(|()| stream.read(&mut first));
        match answered {
            Ok(count) if count > FRAME_TYPE && first[FRAME_TYPE] == SETTINGS => Ok(Ok(Self { stream })),
            Ok(0) => Ok(Err("it closed the connection".to_owned())),
            Ok(_) => bail!("{to} does not speak HTTP/2"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("{to} says nothing")
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Waits until the server has ended it.
    ///
    /// # Errors
    /// When it has not within `deadline`.
    pub fn wait_ended(mut self, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        let mut buffer = [0; 1024];
        while start.elapsed() < deadline {
            match self.stream.read(&mut buffer) {
                Ok(1..) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Ok(0) | Err(_) => return Ok(()),
            }
        }
        bail!("the connection was not ended within {deadline:?}")
    }
}

/// What a server answers to HTTP/2 in plain text: whether it serves it.
///
/// # Errors
/// When nobody listens.
pub fn serves_plain_text(host: &Host, to: SocketAddr) -> Result<bool> {
    let mut stream = host.inside(|| connect(None, to, CONNECT))??;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(PREFACE).context("nobody takes a byte")?;
    let mut first = [0; 64];
    Ok(matches!(stream.read(&mut first), Ok(count) if count > FRAME_TYPE && first[FRAME_TYPE] == SETTINGS))
}
