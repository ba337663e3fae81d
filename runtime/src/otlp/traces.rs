//! Spans on their way to an OTLP collector, and the context that ties those of several processes together.
//!
//! What is kept is decided by whoever makes spans: each that is made here is exported. Most are made when their times are
//! past; what is under way is a `tracing` span with the target [`TARGET`] that was [adopted](adopt). Spans wait in a bounded
//! queue, from which one task sends them in batches. When it is full, new ones are dropped and counted: a collector that
//! is down or slow holds up nothing.

use std::{
    borrow::Cow,
    fmt,
    str::FromStr,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, Value,
    trace::{
        SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        SdkTracer, SdkTracerProvider, SpanData, SpanEvents, SpanExporter as _, SpanLinks, SpanProcessor,
    },
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{Collector, metrics::Origin};

#[cfg(test)]
mod tests;

/// The target of `tracing` spans that are exported; no others are.
pub const TARGET: &str = "fleetknock::trace";
/// Spans that wait: those of some hundred knocks. When it is full, new ones are dropped and counted.
const QUEUE: usize = 4_096;
/// Spans in one request.
const BATCH_MAX: usize = 512;
/// For how long spans are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(500);
/// For the last request, when the process is to end.
const LAST_MAX: Duration = Duration::from_secs(2);
/// That the collector does not take them is said this often.
const SAY_EVERY: Duration = Duration::from_secs(300);
/// A `traceparent` of version 0: two digits, 32, 16 and two, with dashes between.
const TRACEPARENT_BYTES: usize = 55;

/// Where a span stands: in which trace, and which span it is. Written as a W3C `traceparent` of version 0, always sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    trace: TraceId,
    span: SpanId,
}

impl Context {
    /// A new trace, by its first span.
    pub fn random() -> Self {
        Self { trace: TraceId::from(rand::random::<u128>().max(1)), span: random_span() }
    }

    /// Another span of this trace.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self { span: random_span(), ..self }
    }

    /// The trace, as logs name it: 32 hexadecimal digits.
    pub fn trace_id(self) -> String {
        self.trace.to_string()
    }

    fn span_context(self, is_remote: bool) -> SpanContext {
        SpanContext::new(self.trace, self.span, TraceFlags::SAMPLED, is_remote, TraceState::default())
    }
}

fn random_span() -> SpanId {
    SpanId::from(rand::random::<u64>().max(1))
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.span)
    }
}

impl FromStr for Context {
    type Err = NoContext;

    /// Strictly as <https://www.w3.org/TR/trace-context/#traceparent-header> says of version 0, and nothing longer.
    fn from_str(text: &str) -> Result<Self, NoContext> {
        let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != TRACEPARENT_BYTES || !text.is_ascii() {
            return Err(NoContext);
        }
        let parts: Vec<_> = text.split('-').collect();
        let ["00", trace, span, flags] = parts[..] else { return Err(NoContext) };
        if trace.len() != 32 || span.len() != 16 || ![trace, span, flags].into_iter().all(hex) {
            return Err(NoContext);
        }
        let trace = TraceId::from_hex(trace).map_err(|_| NoContext)?;
        let span = SpanId::from_hex(span).map_err(|_| NoContext)?;
        let valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        valid.then_some(Self { trace, span }).ok_or(NoContext)
    }
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of W3C Trace Context, version 00")]
pub struct NoContext;

/// A span whose times are known.
#[derive(Clone, Debug)]
pub struct Span {
    name: &'static str,
    context: Context,
    parent: Option<Context>,
    times: (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
    failure: Option<Cow<'static, str>>,
}

impl Span {
    /// The first of its trace.
    pub fn root(name: &'static str, context: Context, start: SystemTime, end: SystemTime) -> Self {
        let times = (start, end.max(start));
        Self { name, context, parent: None, times, attributes: Vec::new(), failure: None }
    }

    /// One beneath another, with an id of its own.
    pub fn beneath(parent: Context, name: &'static str, start: SystemTime, end: SystemTime) -> Self {
        Self::at(parent.sibling(), parent, name, start, end)
    }

    /// One that stands there, beneath another.
    pub fn at(own: Context, parent: Context, name: &'static str, start: SystemTime, end: SystemTime) -> Self {
        Self { parent: Some(parent), ..Self::root(name, own, start, end) }
    }

    /// Where it stands, for spans beneath it.
    pub fn context(&self) -> Context {
        self.context
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Of something that failed.
    #[must_use]
    pub fn failed(mut self, why: impl Into<Cow<'static, str>>) -> Self {
        self.failure = Some(why.into());
        self
    }

    fn data(self) -> SpanData {
        SpanData {
            span_context: self.context.span_context(false),
            parent_span_id: self.parent.map_or(SpanId::INVALID, |parent| parent.span),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: self.name.into(),
            start_time: self.times.0,
            end_time: self.times.1,
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.failure.map_or(Status::Ok, |description| Status::Error { description }),
            instrumentation_scope: scope(),
        }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("fleetknock").build()
}

/// Takes spans. Cloning shares the queue; without a collector it takes none, and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Sink>);

#[derive(Clone, Debug)]
struct Sink {
    queue: mpsc::Sender<SpanData>,
    dropped: Counter,
}

impl Sink {
    fn take(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// The spans that wait.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<SpanData>);

impl Traces {
    /// Takes spans, and what [`run`] sends of them.
    pub fn new() -> (Self, Waiting) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self(Some(Sink { queue, dropped: Counter::default() })), Waiting(waiting))
    }

    /// Whether spans are of any use.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Exports a span.
    pub fn add(&self, span: Span) {
        if let Some(sink) = &self.0 {
            sink.take(span.data());
        }
    }

    /// Adds `trace_spans_dropped` to a registry; a prefix is the caller's.
    pub fn register(&self, registry: &mut Registry) {
        let dropped = self.0.as_ref().map(|sink| sink.dropped.clone()).unwrap_or_default();
        registry.register(
            "trace_spans_dropped",
            "Spans that could not be sent to the OTLP collector: too many waited, or it did not take them",
            dropped,
        );
    }

    /// What makes spans of those of `tracing`; for [`log::init`](crate::log::init_with).
    pub(crate) fn tracer(&self) -> Option<SdkTracer> {
        let processor = Processor(self.0.clone()?);
        // It ends nothing when it is dropped, and the tracer keeps it.
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        Some(provider.tracer("fleetknock"))
    }
}

/// Puts a `tracing` span with the target [`TARGET`] beneath another span.
pub fn adopt(span: &tracing::Span, parent: Context) {
    let parent = opentelemetry::Context::new().with_remote_span_context(parent.span_context(true));
    // Without a collector there is nothing to adopt it.
    let _not_exported = span.set_parent(parent);
}

#[derive(Debug)]
struct Processor(Sink);

impl SpanProcessor for Processor {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.take(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends spans to the collector as they come, and what is left when told to stop, which takes two seconds at the most.
pub async fn run(
    collector: Collector,
    traces: Traces,
    mut waiting: Waiting,
    origin: Origin,
    fleet: Option<String>,
    stop: CancellationToken,
) {
    let Some(sink) = traces.0 else { return };
    let exporter = SpanExporter::builder().with_tonic().with_channel(collector.channel()).build();
    let Ok(mut exporter) = exporter else { return };
    let attributes = [
        KeyValue::new("service.instance.id", origin.instance.clone()),
        KeyValue::new("service.version", origin.version),
        KeyValue::new("host.name", origin.instance),
    ];
    let fleet = fleet.map(|fleet| KeyValue::new("fleetknock.fleet", fleet));
    let resource = Resource::builder_empty().with_service_name(origin.service);
    exporter.set_resource(&resource.with_attributes(attributes.into_iter().chain(fleet)).build());
    let mut failing: Option<Instant> = None;
    let mut batch = Vec::new();
    while stop.run_until_cancelled(gather(&mut waiting.0, &mut batch)).await.is_some() {
        let count = batch.len() as u64;
        let Some(sent) = stop.run_until_cancelled(exporter.export(std::mem::take(&mut batch))).await else {
            sink.dropped.inc_by(count);
            break;
        };
        match sent {
            Ok(()) if failing.take().is_some() => tracing::info!("the OTLP collector takes traces again"),
            Ok(()) => {}
            Err(error) => {
                sink.dropped.inc_by(count);
                if failing.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                    tracing::warn!(%error, "traces cannot be sent to the OTLP collector (--otlp); trying on");
                    failing = Some(Instant::now());
                }
            }
        }
    }
    // What is done while the process ends is part of the story.
    tokio::time::sleep(GATHER.min(LAST_MAX / 4)).await;
    while let Ok(span) = waiting.0.try_recv() {
        batch.push(span);
    }
    if !batch.is_empty() {
        let _late = timeout(LAST_MAX, exporter.export(batch)).await;
    }
}

/// The next spans, at least one.
async fn gather(waiting: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    if waiting.recv_many(batch, BATCH_MAX).await == 0 {
        // Nobody is left who could make one.
        return std::future::pending().await;
    }
    let more = async {
        while batch.len() < BATCH_MAX && waiting.recv_many(batch, BATCH_MAX - batch.len()).await > 0 {}
    };
    let _enough = timeout(GATHER, more).await;
}
