//! An OTLP collector inside a lab's host: it keeps the spans that it is sent, and who sent which metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::status::StatusCode,
};
use tokio::runtime::Runtime;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::host::Host;

/// The port for OTLP over gRPC.
pub const OTLP_PORT: u16 = 4317;

/// A span that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The program: `service.name`.
    pub service: String,
    /// The host or controller: `host.name`.
    pub host: String,
    /// What it is of.
    pub name: String,
    /// Its trace, in hexadecimal digits.
    pub trace: String,
    /// Its own id.
    pub span: String,
    /// The id of the span above it; empty for the first of a trace.
    pub parent: String,
    /// Nanoseconds since 1970.
    pub times: (u64, u64),
    /// What else it says, as `key=value`.
    pub attributes: Vec<String>,
    /// Whether it says that something failed.
    pub failed: bool,
}

/// A collector that runs until it is dropped.
#[derive(Debug)]
pub struct Collector {
    url: String,
    sent: Kept,
    runtime: Option<Runtime>,
}

impl Collector {
    /// Listens on this host.
    ///
    /// # Errors
    /// When it cannot.
    pub fn start(host: &Host) -> Result<Self> {
        // A socket stays in the namespace in which it was made, whoever accepts on it.
        let listener = host.inside(|| TcpListener::bind(("0.0.0.0", OTLP_PORT)))?;
        let listener = listener.context("the collector cannot listen")?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let sent = Kept::default();
        let service = sent.clone();
        runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            let server = Server::builder()
                .add_service(TraceServiceServer::new(service.clone()))
                .add_service(MetricsServiceServer::new(service));
            let _ended = server.serve_with_incoming(TcpIncoming::from(listener)).await;
        });
        Ok(Self { url: format!("http://{}:{OTLP_PORT}", host.v4()), sent, runtime: Some(runtime) })
    }

    /// What `--otlp` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All spans that were sent so far.
    pub fn spans(&self) -> Vec<Sent> {
        self.sent.spans().clone()
    }

    /// The metrics that the agent of this host or this controller sent so far, by their names.
    pub fn metrics_of(&self, instance: &str) -> BTreeSet<String> {
        self.sent.metrics().get(instance).cloned().unwrap_or_default()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Kept {
    spans: Arc<Mutex<Vec<Sent>>>,
    metrics: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
}

impl Kept {
    fn spans(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metrics(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut sent = self.spans();
        for of_one in request.into_inner().resource_spans {
            let resource = of_one.resource.map(|resource| resource.attributes).unwrap_or_default();
            let (service, host) = (text(&resource, "service.name"), text(&resource, "host.name"));
            sent.extend(of_one.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Sent {
                service: service.clone(),
                host: host.clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                span: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                attributes:
                    span.attributes.iter().map(|pair| format!("{}={}", pair.key, value(pair))).collect(),
                failed: span.status.is_some_and(|status| status.code == StatusCode::Error as i32),
            }));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Kept {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut sent = self.metrics();
        for of_one in request.into_inner().resource_metrics {
            let resource = of_one.resource.map(|resource| resource.attributes).unwrap_or_default();
            let names = of_one.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            sent.entry(text(&resource, "service.instance.id"))
                .or_default()
                .extend(names.map(|metric| metric.name));
        }
        Ok(Response::new(Default::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    attributes.iter().find(|pair| pair.key == key).map(value).unwrap_or_default()
}

fn value(pair: &KeyValue) -> String {
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
