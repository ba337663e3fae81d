//! An accepted connection, and who is at its other end.

use std::{
    io,
    net::{IpAddr, SocketAddr},
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

use super::{
    Certificate,
    crowd::Place,
    sessions::{Ended, Membership},
};

/// Who is at the other end of a connection; among the extensions of each request that came by it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// The certificate, verified; none for those who need not show one, and in plain text.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether nobody on the way can read and change what is said.
    pub is_private: bool,
    /// Ends the connection.
    pub line: Line,
}

/// Ends a connection, with every call that came by it. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Line(Ended);

impl Line {
    /// Ends the connection for this reason, as one does whose other end does not read: it would hold what it was sent
    /// for ever.
    pub fn cut(&self, reason: impl Into<String>) {
        self.0.end(reason.into());
    }
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
    lease: Lease,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What lets a connection live: it ends when this is over, and what it holds is free when it ends.
#[derive(Debug)]
struct Lease {
    ended: Ended,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    _held: Held,
}

/// A place among those with a certificate, whose end is waited for, or among those without, as all are in plain text.
#[derive(Debug)]
pub(super) enum Held {
    Known { _place: Place<String>, _membership: Membership },
    Unknown { _place: Place<IpAddr> },
}

impl Connection {
    pub(super) fn plain(stream: TcpStream, address: SocketAddr, ended: Ended, held: Held) -> Self {
        let line = Line(ended.clone());
        let peer = Peer { address, certificate: None, is_private: false, line };
        Self { stream: Stream::Plain(stream), peer, lease: Lease::new(ended, held) }
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        certificate: Option<Certificate>,
        ended: Ended,
        held: Held,
    ) -> Self {
        let line = Line(ended.clone());
        let peer = Peer { address, certificate: certificate.map(Arc::new), is_private: true, line };
        Self { stream: Stream::Tls(Box::new(stream)), peer, lease: Lease::new(ended, held) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// An error once it is over; the task is woken when that happens.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Lease { ended, over, .. } = &mut self.lease;
        // A future must not be polled again once it was ready.
        if ended.token.is_cancelled() || over.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, ended.reason().to_owned()));
        }
        Ok(())
    }
}

impl Lease {
    fn new(ended: Ended, held: Held) -> Self {
        let over = Box::pin(ended.token.clone().cancelled_owned());
        Self { ended, over, _held: held }
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
