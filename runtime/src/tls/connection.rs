//! An accepted connection, and who is at its other end.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::{Certificate, sessions::Membership};

/// Who is at the other end of a connection; among the extensions of each request that came by it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// The certificate, verified; none for those who need not show one, and in plain text.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether nobody on the way can read and change what is said.
    pub is_private: bool,
}

impl Peer {
    /// The URIs of the verified certificate.
    pub fn uris(&self) -> &[String] {
        self.certificate.as_ref().map_or(&[], |certificate| &certificate.uris)
    }
}

/// An accepted connection: TLS after its handshake, or plain text.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    session: Option<Session>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug)]
struct Session {
    membership: Membership,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    pub(super) fn plain(stream: TcpStream, address: SocketAddr) -> Self {
        let peer = Peer { address, certificate: None, is_private: false };
        Self { stream: Stream::Plain(stream), peer, session: None }
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        known: Option<(Certificate, Membership)>,
    ) -> Self {
        let (certificate, membership) = known.unzip();
        let peer = Peer { address, certificate: certificate.map(Arc::new), is_private: true };
        let session = membership.map(|membership| Session {
            ended: Box::pin(membership.ended.token.clone().cancelled_owned()),
            membership,
        });
        Self { stream: Stream::Tls(Box::new(stream)), peer, session }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// An error once the certificate is no longer good; the task is woken when that happens.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(Session { membership, ended }) = &mut self.session else { return Ok(()) };
        // A future must not be polled again once it was ready.
        if membership.ended.token.is_cancelled() || ended.as_mut().poll(context).is_ready() {
            let reason = membership.ended.reason().to_owned();
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason));
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
