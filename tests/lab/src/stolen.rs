//! Whoever has an agent's key: speaks to a controller as an agent does, and says what it likes.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use fleetknock_proto::v1::{
    self as pb, agent_message::Kind as Say, agent_service_client::AgentServiceClient,
    controller_message::Kind as Told,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};
use tonic::{Status, codegen::tokio_stream::wrappers::ReceiverStream};

use crate::{fleet::Controller, host::Host, knock::Shot, pki::Identity};

/// How long a controller may take to say Welcome, and to acknowledge a report.
const ANSWER: Duration = Duration::from_secs(20);

/// A stream to a controller with an agent's certificate.
#[derive(Debug)]
pub struct StolenAgent {
    runtime: Runtime,
    say: mpsc::Sender<pb::AgentMessage>,
    acknowledged: mpsc::Receiver<u64>,
    counter: u64,
}

impl StolenAgent {
    /// Attaches from this host and says that it is the host `claimed`. The inner error is the controller's refusal.
    ///
    /// # Errors
    /// When the controller cannot be reached.
    pub fn attach(
        from: &Host,
        controller: &Controller,
        identity: &Identity,
        claimed: &str,
    ) -> Result<std::result::Result<Self, Status>> {
        let url = controller.url();
        from.inside(|| {
            // Its threads are in the namespace of the one that makes them.
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let attached = runtime.block_on(async {
                let channel = identity.channel(&url).await?;
                timeout(ANSWER, greet(AgentServiceClient::new(channel), claimed)).await.context("no Welcome")
            })?;
            Ok(attached.map(|(say, acknowledged)| Self { runtime, say, acknowledged, counter: 0 }))
        })?
    }

    /// Reports these knocks as its own, from this source, and waits until the controller has taken them in.
    ///
    /// # Errors
    /// When it does not.
    pub fn report(&mut self, source: IpAddr, shots: &[Shot]) -> Result<()> {
        let mut observations = Vec::new();
        for shot in shots {
            self.counter += 1;
            let protocol = match shot {
                Shot::Tcp(_) => pb::Protocol::Tcp,
                Shot::Udp(_) => pb::Protocol::Udp,
            };
            observations.push(pb::Observation {
                counter: self.counter,
                time_us: now_us()?,
                source: bytes(source),
                destination: bytes(shot.to().ip()),
                protocol: protocol.into(),
                port: shot.to().port().into(),
                fingerprint: 0,
            });
        }
        let last = self.counter;
        let kind =
            Say::Observations(pb::ObservationBatch { observations, ..pb::ObservationBatch::default() });
        self.runtime.block_on(async {
            self.say.send(pb::AgentMessage { kind: Some(kind) }).await.context("the stream is over")?;
            timeout(ANSWER, async {
                while let Some(counter) = self.acknowledged.recv().await {
                    if counter >= last {
                        return Ok(());
                    }
                }
                bail!("the stream ended before the report was taken in")
            })
            .await
            .context("the report was not taken in")?
        })
    }
}

type Attached = (mpsc::Sender<pb::AgentMessage>, mpsc::Receiver<u64>);

/// Up to Welcome; then a task goes on answering probes and passing on what was acknowledged.
async fn greet(
    mut client: AgentServiceClient<tonic::transport::Channel>,
    claimed: &str,
) -> std::result::Result<Attached, Status> {
    let (say, messages) = mpsc::channel(16);
    let (passed_on, acknowledged) = mpsc::channel(16);
    let hello = pb::Hello { host: claimed.to_owned(), boot: vec![7; 16], ..pb::Hello::default() };
    let gone = |_| Status::aborted("the stream is over");
    say.send(pb::AgentMessage { kind: Some(Say::Hello(hello)) }).await.map_err(gone)?;
    let mut told = client.attach(ReceiverStream::new(messages)).await?.into_inner();
    let answer = say.clone();
    let answer = async move |probe: pb::Probe| {
        let at = now_us().unwrap_or_default();
        let reply =
            pb::ProbeReply { id: probe.id, probe_sent_us: probe.sent_us, received_us: at, sent_us: at };
        let _gone = answer.send(pb::AgentMessage { kind: Some(Say::ProbeReply(reply)) }).await;
    };
    loop {
        match told.message().await?.and_then(|message| message.kind) {
            Some(Told::Probe(probe)) => answer(probe).await,
            Some(Told::Welcome(_)) => break,
            Some(_) => {}
            None => return Err(Status::aborted("the stream ended before Welcome")),
        }
    }
    tokio::spawn(async move {
        while let Ok(Some(message)) = told.message().await {
            match message.kind {
                Some(Told::Probe(probe)) => answer(probe).await,
                Some(Told::Acknowledge(pb::Acknowledge { counter })) => {
                    let _unread = passed_on.try_send(counter);
                }
                _ => {}
            }
        }
    });
    Ok((say, acknowledged))
}

fn now_us() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
