//! What OTLP says is what the registry holds, and no collector holds anybody up.

use std::{
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value},
    metrics::v1::{Metric, metric::Data, number_data_point::Value},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use proptest::prelude::*;
use tokio::{net::TcpListener, sync::Notify, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Origin, request, run_every};
use crate::{metrics::text::parse, otlp::Settings};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn every_kind_is_said_in_the_words_of_otlp() {
    let mut registry = Registry::default();
    let took = Family::<[(&str, &str); 1], Histogram>::new_with_constructor(|| Histogram::new([0.1, 1.0]));
    took.get_or_create(&[("operation", "get")]).observe(0.05);
    for value in [0.05, 0.5, 7.0] {
        took.get_or_create(&[("operation", "put")]).observe(value);
    }
    registry.register_with_unit("took", "How long", Unit::Seconds, took);
    let knocks = Counter::<u64>::default();
    knocks.inc_by(u64::try_from(i64::MAX).unwrap());
    registry.register("knocks", "Knocks", knocks);
    registry.register("build", "What", Info::new([("version", "1.2")]));

    let said = said(&registry);
    let metrics = metrics(&said);
    let Some(Data::Sum(sum)) = &metric(metrics, "knocks").data else { panic!("not a sum") };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "cumulative is 2");
    let point = &sum.data_points[0];
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (100, 200));
    assert_eq!(point.value, Some(Value::AsInt(i64::MAX)));
    let Some(Data::Gauge(build)) = &metric(metrics, "build_info").data else { panic!("not a gauge") };
    assert_eq!(label(&build.data_points[0].attributes, "version"), "1.2");
    let took = metric(metrics, "took_seconds");
    assert_eq!((took.unit.as_str(), took.description.as_str()), ("s", "How long."));
    let Some(Data::Histogram(histogram)) = &took.data else { panic!("not a histogram") };
    let of = |operation| {
        let mut points = histogram.data_points.iter();
        points.find(|point| label(&point.attributes, "operation") == operation).unwrap()
    };
    assert_eq!(of("put").explicit_bounds, [0.1, 1.0]);
    assert_eq!((&of("put").bucket_counts[..], of("put").count), (&[1, 1, 1][..], 3));
    assert_eq!(of("put").sum, Some(7.55));
    assert_eq!((&of("get").bucket_counts[..], of("get").count), (&[1, 0, 0][..], 1));
    let resource = said.resource_metrics[0].resource.as_ref().unwrap();
    assert_eq!(label(&resource.attributes, "service.name"), "fleetknock-test");
    assert_eq!(label(&resource.attributes, "service.instance.id"), "edge-1");
}

proptest! {
    #[test]
    fn no_value_and_no_label_changes_on_the_way(
        count in 0..=u64::try_from(i64::MAX).unwrap(),
        level in any::<f64>().prop_filter("a number", |level| !level.is_nan()),
        name in "\\PC{0,20}|[\\\\\"\n,{}= ]{0,8}",
        observed in proptest::collection::vec(0.0..20.0_f64, 0..50),
    ) {
        let mut registry = Registry::default();
        let (counts, levels) = (Family::<[(&str, String); 1], Counter>::default(), Gauge::<f64, AtomicU64>::default());
        counts.get_or_create(&[("name", name.clone())]).inc_by(count);
        levels.set(level);
        let took = Histogram::new([0.5, 2.5, 10.0]);
        observed.iter().for_each(|value| took.observe(*value));
        registry.register("counts", "Counts", counts);
        registry.register("levels", "Levels", levels);
        registry.register_with_unit("took", "How long", Unit::Seconds, took);
        let said = said(&registry);
        let metrics = metrics(&said);
        let Some(Data::Sum(sum)) = &metric(metrics, "counts").data else { panic!("not a sum") };
        prop_assert_eq!(&sum.data_points[0].value, &Some(Value::AsInt(i64::try_from(count).unwrap())));
        prop_assert_eq!(label(&sum.data_points[0].attributes, "name"), name);
        let Some(Data::Gauge(gauge)) = &metric(metrics, "levels").data else { panic!("not a gauge") };
        let shown = match gauge.data_points[0].value {
            Some(Value::AsDouble(real)) => real,
            #[allow(clippy::cast_precision_loss, reason = "it was written without a fraction")]
            Some(Value::AsInt(whole)) => whole as f64,
            None => f64::NAN,
        };
        prop_assert_eq!(shown, level);
        let Some(Data::Histogram(histogram)) = &metric(metrics, "took_seconds").data else { panic!("no histogram") };
        let point = &histogram.data_points[0];
        let below = |bound: f64| observed.iter().filter(|value| **value <= bound).count() as u64;
        let expected = [below(0.5), below(2.5) - below(0.5), below(10.0) - below(2.5), below(99.0) - below(10.0)];
        prop_assert_eq!(&point.bucket_counts[..], &expected[..]);
        prop_assert_eq!((point.count, point.sum), (observed.len() as u64, Some(observed.iter().sum())));
    }
}

#[tokio::test]
async fn they_are_pushed_again_and_again_also_after_a_failure_and_once_more_at_the_end() {
    let (heard, (address, listener)) = (Heard::default(), serve_later());
    let settings = Settings { otlp: Some(format!("http://{address}").parse().unwrap()), otlp_ca: Vec::new() };
    let collector = settings.collector().unwrap().unwrap();
    let mut registry = Registry::default();
    let knocks = Counter::<u64>::default();
    registry.register("knocks", "Knocks", knocks.clone());
    let (stop, origin) = (CancellationToken::new(), origin());
    let every = Duration::from_millis(20);
    let pushing = tokio::spawn(run_every(every, collector, Arc::new(registry), origin, stop.clone()));
    // Nobody answers yet.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let server = tonic::transport::Server::builder()
        .add_service(MetricsServiceServer::new(heard.clone()))
        .serve_with_incoming(TcpListenerStream::new(TcpListener::from_std(listener.listen()).unwrap()));
    let serving = tokio::spawn(server);
    timeout(PATIENCE, heard.until(3)).await.unwrap();
    knocks.inc_by(41);
    stop.cancel();
    timeout(PATIENCE, pushing).await.unwrap().unwrap();
    let last = heard.0.requests.lock().unwrap().last().cloned().unwrap();
    let Some(Data::Sum(sum)) = &metric(metrics(&last), "knocks").data else { panic!("not a sum") };
    assert_eq!(sum.data_points[0].value, Some(Value::AsInt(41)), "what is counted last is pushed too");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_never_answers_holds_up_the_end_for_two_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let settings = Settings { otlp: Some(url.parse().unwrap()), otlp_ca: Vec::new() };
    let collector = settings.collector().unwrap().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let start = tokio::time::Instant::now();
    super::run(collector, Arc::new(Registry::default()), origin(), stop).await;
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
}

/// An address at which nobody answers until somebody listens.
fn serve_later() -> (std::net::SocketAddr, Later) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), Later(socket))
}

struct Later(tokio::net::TcpSocket);

impl Later {
    fn listen(self) -> std::net::TcpListener {
        self.0.listen(16).unwrap().into_std().unwrap()
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Shared>);

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<ExportMetricsServiceRequest>>,
    more: Notify,
}

impl Heard {
    async fn until(&self, count: usize) {
        while self.0.requests.lock().unwrap().len() < count {
            self.0.more.notified().await;
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Heard {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.requests.lock().unwrap().push(request.into_inner());
        self.0.more.notify_one();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn origin() -> Origin {
    Origin { service: "fleetknock-test", instance: "edge-1".to_owned(), version: "0.1.0" }
}

fn said(registry: &Registry) -> ExportMetricsServiceRequest {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    request(&parse(&text).unwrap(), &origin(), 100, 200)
}

fn metrics(said: &ExportMetricsServiceRequest) -> &[Metric] {
    &said.resource_metrics[0].scope_metrics[0].metrics
}

fn metric<'a>(metrics: &'a [Metric], name: &str) -> &'a Metric {
    metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn label(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key).unwrap();
    match &found.value.as_ref().unwrap().value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}
