//! The same metrics that are scraped, pushed to an OTLP collector.
//!
//! What the registry writes is read back and said in the words of OTLP: counters are cumulative and monotonic since the
//! process started, histograms have explicit bounds. One request is under way at a time and nothing is kept for later: the
//! next one says more than the one that was lost.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value,
    },
    resource::v1::Resource,
};
use prometheus_client::registry::Registry;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::Collector;
use crate::metrics::text::{Family, Kind, Number, Sample, parse};

#[cfg(test)]
mod tests;

/// As often as Prometheus scrapes by habit.
const PUSH_EVERY: Duration = Duration::from_secs(15);
/// For the last request, when the process is to end.
const LAST_MAX: Duration = Duration::from_secs(2);
/// That the collector does not take them is said this often.
const SAY_EVERY: Duration = Duration::from_secs(300);

/// Who the metrics are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Such as `fleetknock-agent`: OTLP's `service.name`.
    pub service: &'static str,
    /// The host or the controller: `service.instance.id`.
    pub instance: String,
    /// `service.version`.
    pub version: &'static str,
}

/// Pushes a registry's metrics every fifteen seconds, and once more when told to stop, which takes two seconds at the most.
pub async fn run(collector: Collector, registry: Arc<Registry>, origin: Origin, stop: CancellationToken) {
    run_every(PUSH_EVERY, collector, registry, origin, stop).await;
}

async fn run_every(
    every: Duration,
    collector: Collector,
    registry: Arc<Registry>,
    origin: Origin,
    stop: CancellationToken,
) {
    let mut pusher = Pusher {
        client: MetricsServiceClient::new(collector.channel()),
        registry,
        origin,
        start: now_nanos(),
        failing: None,
    };
    let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if stop.run_until_cancelled(pusher.push()).await.is_none() {
            break;
        }
    }
    let _late = timeout(LAST_MAX, pusher.push()).await;
}

struct Pusher {
    client: MetricsServiceClient<tonic::transport::Channel>,
    registry: Arc<Registry>,
    origin: Origin,
    start: u64,
    /// When it was last said that the collector takes nothing.
    failing: Option<Instant>,
}

impl Pusher {
    async fn push(&mut self) {
        match self.try_push().await {
            Ok(()) => {
                if self.failing.take().is_some() {
                    tracing::info!("the OTLP collector takes metrics again");
                }
            }
            Err(reason) => {
                if self.failing.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                    tracing::warn!(
                        reason,
                        "metrics cannot be pushed to the OTLP collector (--otlp); trying on"
                    );
                    self.failing = Some(Instant::now());
                }
            }
        }
    }

    async fn try_push(&mut self) -> Result<(), String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .map_err(|error| error.to_string())?;
        let families = parse(&text).map_err(|error| error.to_string())?;
        let request = request(&families, &self.origin, self.start, now_nanos());
        let answer = self.client.export(request).await.map_err(|status| status.message().to_owned())?;
        match answer.into_inner().partial_success {
            Some(part) if part.rejected_data_points > 0 => {
                Err(format!("{} values were rejected: {}", part.rejected_data_points, part.error_message))
            }
            _ => Ok(()),
        }
    }
}

/// The same values in the words of OTLP. Times are nanoseconds since 1970: when counting began, and now.
pub fn request(families: &[Family], origin: &Origin, start: u64, now: u64) -> ExportMetricsServiceRequest {
    let times = Times { start, now };
    let attributes = [
        ("service.name", origin.service),
        ("service.namespace", "fleetknock"),
        ("service.instance.id", &origin.instance),
        ("service.version", origin.version),
    ];
    let resource = Resource {
        attributes: attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: origin.service.to_owned(),
        version: origin.version.to_owned(),
        ..InstrumentationScope::default()
    };
    let metrics = families.iter().filter(|family| !family.samples.is_empty());
    let metrics = metrics.map(|family| metric(family, times)).collect();
    let scoped = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scoped],
            ..ResourceMetrics::default()
        }],
    }
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

fn metric(family: &Family, times: Times) -> Metric {
    let numbers =
        |start| family.samples.iter().map(|sample| point(sample, Times { start, ..times })).collect();
    let data = match family.kind {
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(times.start),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        // A level has no beginning.
        Kind::Gauge | Kind::Info => Data::Gauge(Gauge { data_points: numbers(0) }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: histograms(&family.samples, times),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    // Whoever keeps them for Prometheus adds `_total` and units by himself.
    let name = match family.kind {
        Kind::Info => format!("{}_info", family.name),
        Kind::Counter | Kind::Gauge | Kind::Histogram => family.name.clone(),
    };
    // UCUM, as OTLP wants it.
    let unit = if family.unit == "seconds" { "s" } else { &family.unit };
    Metric {
        name,
        description: family.help.clone(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn point(sample: &Sample, times: Times) -> NumberDataPoint {
    let value = match sample.value {
        Number::Whole(whole) => Value::AsInt(whole),
        Number::Real(real) => Value::AsDouble(real),
    };
    NumberDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

/// One per set of labels: the text has the samples of each together, cumulative buckets among them.
fn histograms(samples: &[Sample], times: Times) -> Vec<HistogramDataPoint> {
    let mut points: Vec<HistogramDataPoint> = Vec::new();
    let mut below = 0;
    for sample in samples {
        let attributes = attributes(sample);
        if points.last().is_none_or(|point| point.attributes != attributes) {
            below = 0;
            points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                ..HistogramDataPoint::default()
            });
        }
        let Some(point) = points.last_mut() else { continue };
        if let Some(bound) = sample.label("le") {
            let count = whole(sample.value);
            point.bucket_counts.push(count.saturating_sub(below));
            below = count;
            // The last bucket has no bound.
            point.explicit_bounds.extend(bound.parse::<f64>().ok().filter(|bound| bound.is_finite()));
        } else if sample.name.ends_with("_sum") {
            point.sum = Some(sample.value.as_f64());
        } else if sample.name.ends_with("_count") {
            point.count = whole(sample.value);
        }
    }
    points
}

fn whole(value: Number) -> u64 {
    match value {
        Number::Whole(whole) => u64::try_from(whole).unwrap_or_default(),
        Number::Real(_) => 0,
    }
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    let labels = sample.labels.iter().filter(|(key, _)| key != "le");
    labels.map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
