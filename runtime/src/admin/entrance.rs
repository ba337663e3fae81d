//! How connections come to the admin server: so many at a time, and none that is silent for long.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_stream::StreamExt as _;

use crate::tls::{Connection, Incoming, Peer};

/// Connections as they come in.
#[derive(Debug)]
pub struct Entrance {
    incoming: Incoming,
    address: SocketAddr,
    idle_max: Duration,
}

/// A connection that ends when nothing is heard and nothing could be said for a while: one over which events are sent
/// lasts, as long as its other end takes them.
#[derive(Debug)]
pub struct Heard {
    connection: Connection,
    idle: Pin<Box<Sleep>>,
    idle_max: Duration,
}

impl Entrance {
    pub(super) fn new(incoming: Incoming, address: SocketAddr, idle_max: Duration) -> Self {
        Self { incoming, address, idle_max }
    }
}

impl Heard {
    /// What came of reading or writing; an error when nothing has for too long.
    fn unless_idle<T>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.idle.as_mut().reset(Instant::now() + self.idle_max);
            return done;
        }
        self.idle.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Listener for Entrance {
    type Io = Heard;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Heard, SocketAddr) {
        loop {
            if let Some(Ok(connection)) = self.incoming.next().await {
                let address = connection.peer().address;
                let idle = Box::pin(sleep(self.idle_max));
                return (Heard { connection, idle, idle_max: self.idle_max }, address);
            }
            // The task that accepts lives as long as this: never more than once in a while.
            sleep(self.idle_max).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, Entrance>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Entrance>) -> Self {
        stream.io().connection.peer().clone()
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.connection).poll_read(context, buffer);
        this.unless_idle(context, read)
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.connection).poll_write(context, bytes);
        this.unless_idle(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
