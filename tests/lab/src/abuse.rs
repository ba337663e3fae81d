//! Clients that only cost: connections that are never finished, streams that are never read, calls that are taken back.
//! Bounded in count, and inside a lab's namespaces only.

use std::{
    collections::VecDeque,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use fleetknock_proto::v1::{
    self as pb, agent_service_client::AgentServiceClient, control_service_client::ControlServiceClient,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};
use tonic::{Status, Streaming, codegen::tokio_stream::wrappers::ReceiverStream, transport::Channel};

use crate::{fleet::Controller, host::Host, pki::Identity, probe::connect};

/// How long a connect, and how long a call may take.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// How a TLS client begins: a record of 512 bytes with a ClientHello (RFC 8446 sections 5.1 and 4), of which no more comes.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
/// What a client that does not read lets the server send on one stream, in bytes.
const WINDOW: u32 = 1_024;

/// Opens at least `total` connections from these addresses in turn, and on until `enough`, and begins a handshake on each
/// that it never ends; `at_once` are held, the oldest goes for the next. Returns how many were opened.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn half_open(
    host: &Host,
    sources: &[IpAddr],
    to: SocketAddr,
    (total, at_once): (usize, usize),
    enough: &AtomicBool,
) -> Result<usize> {
    host.inside(|| {
        let mut held = VecDeque::new();
        let mut opened = 0;
        for source in sources.iter().cycle().take(6 * total) {
            if opened >= total && enough.load(Ordering::Relaxed) {
                break;
            }
            let Ok(mut stream) = connect(Some(*source), to, CONNECT) else { continue };
            let _gone = stream.write_all(HALF_A_HELLO);
            opened += 1;
            held.push_back(stream);
            if held.len() > at_once {
                held.pop_front();
            }
        }
        opened
    })
}

/// Streams that nobody reads, over a connection that is well.
#[derive(Debug)]
pub struct Unread {
    runtime: Runtime,
    watchers: Vec<Streaming<pb::Event>>,
    _agent: Option<(mpsc::Sender<pb::AgentMessage>, Streaming<pb::ControllerMessage>)>,
}

impl Unread {
    /// This many watchers of one user; beside them the refusals of those that were not let in.
    ///
    /// # Errors
    /// When the controller cannot be reached.
    pub fn watchers(
        from: &Host,
        controller: &Controller,
        identity: &Identity,
        count: usize,
    ) -> Result<(Self, Vec<Status>)> {
        let url = controller.url();
        from.inside(|| {
            let runtime = runtime()?;
            let (watchers, refused) = runtime.block_on(async {
                let mut client = ControlServiceClient::new(narrow(identity, &url).await?);
                let (mut watchers, mut refused) = (Vec::new(), Vec::new());
                for _ in 0..count {
                    let watch = client.watch_events(pb::WatchEventsRequest::default());
                    match timeout(ANSWER, watch).await.context("no answer")? {
                        Ok(events) => watchers.push(events.into_inner()),
                        Err(status) => refused.push(status),
                    }
                }
                anyhow::Ok((watchers, refused))
            })?;
            Ok((Self { runtime, watchers, _agent: None }, refused))
        })?
    }

    /// An agent that says who it is and reads nothing, not even what its clock is asked.
    ///
    /// # Errors
    /// When the controller cannot be reached.
    pub fn agent(from: &Host, controller: &Controller, identity: &Identity, claimed: &str) -> Result<Self> {
        let url = controller.url();
        from.inside(|| {
            let runtime = runtime()?;
            let agent = runtime.block_on(async {
                let (say, messages) = mpsc::channel(16);
                let hello = pb::Hello { host: claimed.to_owned(), boot: vec![9; 16], ..pb::Hello::default() };
                let kind = Some(pb::agent_message::Kind::Hello(hello));
                say.send(pb::AgentMessage { kind }).await?;
                let mut client = AgentServiceClient::new(narrow(identity, &url).await?);
                let attach = client.attach(ReceiverStream::new(messages));
                let told = timeout(ANSWER, attach).await.context("no answer")??.into_inner();
                anyhow::Ok((say, told))
            })?;
            Ok(Self { runtime, watchers: Vec::new(), _agent: Some(agent) })
        })?
    }

    /// Reads on with each watcher: why its stream ended, when it has within `deadline`.
    pub fn read_on(&mut self, deadline: Duration) -> Vec<Option<Status>> {
        let Self { runtime, watchers, .. } = self;
        runtime.block_on(async {
            let mut ends = Vec::new();
            for watcher in watchers {
                let end = timeout(deadline, async {
                    loop {
                        match watcher.message().await {
                            Ok(Some(_)) => {}
                            Ok(None) => return Status::ok("it just ended"),
                            Err(status) => return status,
                        }
                    }
                });
                ends.push(end.await.ok());
            }
            ends
        })
    }
}

/// Calls that are taken back as soon as they are made.
#[derive(Debug)]
pub struct Resets {
    runtime: Runtime,
    identity: Identity,
    url: String,
}

impl Resets {
    /// By whoever has this certificate.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn new(from: &Host, controller: &Controller, identity: &Identity) -> Result<Self> {
        let runtime = from.inside(runtime)??;
        Ok(Self { runtime, identity: identity.clone(), url: controller.url() })
    }

    /// Makes and takes back this many, on as many connections as that takes: a server may end one for it. Returns how many
    /// connections there were.
    ///
    /// # Errors
    /// When the controller cannot be reached any more.
    pub fn send(&self, count: usize) -> Result<usize> {
        let (identity, url) = (self.identity.clone(), self.url.clone());
        // On the runtime's own thread, which is in the namespace; this one is not.
        let sending = self.runtime.spawn(async move {
            let (mut sent, mut connections) = (0, 0);
            while sent < count {
                connections += 1;
                let channel = timeout(ANSWER, identity.channel(&url)).await??;
                let client = ControlServiceClient::new(channel);
                while sent < count {
                    let mut burst = Vec::new();
                    for _ in 0..200 {
                        let mut client = client.clone();
                        burst.push(tokio::spawn(async move {
                            client.list_hosts(pb::ListHostsRequest::default()).await.map(drop)
                        }));
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    sent += burst.len();
                    let mut broken = false;
                    for call in burst {
                        call.abort();
                        broken |= matches!(call.await, Ok(Err(_)));
                    }
                    if broken {
                        break;
                    }
                }
            }
            Ok(connections)
        });
        self.runtime.block_on(sending)?
    }
}

/// Its threads are in the namespace of the one that makes them.
fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

async fn narrow(identity: &Identity, url: &str) -> Result<Channel> {
    identity.channel_with(url, |endpoint| endpoint.initial_stream_window_size(WINDOW)).await
}
