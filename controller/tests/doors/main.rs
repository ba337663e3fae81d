//! Doors as resources of a cluster: what is applied there is in force in the fleet, what became of it is said there, and
//! nothing that goes wrong lifts a guard. The API server is one of the tests' own; the controllers are real.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../../src/operator/crd/against.rs"]
mod against;
mod api;
#[path = "../fleet/support.rs"]
#[allow(dead_code, reason = "the tests of the fleet use the rest")]
mod support;

mod trouble;

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use fleetknock_controller::{
    config::Scope,
    operator::{doors, metrics::Metrics},
    store::{Store, memory::MemoryStore},
};
use fleetknock_proto::v1::{
    self as pb, agent_message::Kind as Say, control_service_client::ControlServiceClient,
    controller_message::Kind as Told,
};
use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};
use tonic::{Code, transport::Channel};

use api::Api;
use support::{Agent, Controller, apply, door, tcp};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(40);
/// The steps of the doors below; nothing that is said of them may hold one.
const STEPS: [&str; 3] = ["17412", "23981", "51003"];

type Operator = ControlServiceClient<Channel>;

#[tokio::test]
async fn an_applied_resource_is_in_force_and_its_status_says_so() {
    let (api, controller) = fleet().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    api.apply_door("ssh", spec(&[22]), json!({}));
    let revision = guards(&mut bastion, &[22]).await;
    let status = status(&api, "ssh", |status| condition(status, "Accepted") == ("True", "Accepted")).await;
    assert_eq!((status["observedGeneration"].as_i64(), status["door"].as_str()), (Some(1), Some("ssh")));
    assert!(status["strengthBits"].as_i64().unwrap() > 40, "{status}");
    assert_eq!((condition(&status, "Enforced").0, status["enforced"].as_str()), ("False", Some("0/1")));
    let finalizers = api.door("ssh").unwrap()["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!(["fleetknock.io/withdraw"]));

    bastion.tell(Say::Report(pb::HostReport { revision, ..pb::HostReport::default() })).await;
    let status =
        self::status(&api, "ssh", |status| condition(status, "Enforced") == ("True", "AllHosts")).await;
    assert_eq!(status["enforced"], "1/1");
    let mut operator = controller.operator().await;
    let event = applied(&mut operator).await;
    assert_eq!(event.actor.unwrap().who, "kubernetes door ops/ssh");

    // What does not concern guard leaves it at once as it was.
    let mut changed = spec(&[22]);
    changed["opens"]["for"] = "45s".into();
    api.apply_door("ssh", changed, json!({}));
    until(async || (shown(&mut operator, "ssh").await?.spec?.open_for_ms == 45_000).then_some(())).await;
    let status = self::status(&api, "ssh", |status| status["observedGeneration"] == 2).await;
    assert_eq!(status["enforced"], "1/1");
    // Nothing is written while nothing changes.
    let changes = api.held().changes.len();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(api.held().changes.len(), changes, "{:?}", api.held().changes);
    nothing_was_told();
}

#[tokio::test]
async fn a_deleted_resource_goes_after_its_guard_and_its_openings() {
    let (api, controller) = fleet().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let mut operator = controller.operator().await;
    api.apply_door("ssh", spec(&[22]), json!({}));
    guards(&mut bastion, &[22]).await;
    let open = pb::OpenRequest {
        door: "ssh".to_owned(),
        source: "203.0.113.5".to_owned(),
        for_ms: 3_600_000,
        ..pb::OpenRequest::default()
    };
    operator.open(open).await.unwrap();
    bastion.opening().await;
    // While the store cannot say so, the resource stays.
    api.delete_door("ssh");
    guards(&mut bastion, &[]).await;
    until(async || api.door("ssh").is_none().then_some(())).await;
    assert!(shown(&mut operator, "ssh").await.is_none());
    let openings = operator.list_openings(pb::ListOpeningsRequest::default()).await.unwrap().into_inner();
    assert!(openings.openings.is_empty(), "{openings:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said_and_the_last_good_door_stays_in_force() {
    let (api, controller) = fleet().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let mut operator = controller.operator().await;
    let mut wrong = spec(&[22]);
    wrong["knock"]["within"] = "1h".into();
    api.apply_door("ssh", wrong.clone(), json!({}));
    let status = status(&api, "ssh", |status| condition(status, "Accepted").0 == "False").await;
    assert_eq!(condition(&status, "Accepted").1, "Invalid");
    assert!(message(&status, "Accepted").contains("spec.knock.within: must be from 1s to 5m"), "{status}");
    assert!(shown(&mut operator, "ssh").await.is_none());

    api.apply_door("ssh", spec(&[22]), json!({}));
    guards(&mut bastion, &[22]).await;
    api.apply_door("ssh", wrong, json!({}));
    let status = self::status(&api, "ssh", |status| status["observedGeneration"] == 3).await;
    assert_eq!(condition(&status, "Accepted"), ("False", "Invalid"));
    assert!(message(&status, "Accepted").contains("accepted last stays in force"), "{status}");
    assert_eq!(status["enforced"], "0/1", "it is still told how the door stands that is in force");
    assert!(shown(&mut operator, "ssh").await.is_some());

    // A step that cannot be read is not repeated: whoever reads statuses may not know it.
    let mut odd = spec(&[22]);
    odd["knock"]["sequence"][1]["port"] = "udp23981".into();
    api.put_door("odd", odd, json!({}));
    let status = self::status(&api, "odd", |status| condition(status, "Accepted").0 == "False").await;
    assert!(message(&status, "Accepted").contains("spec.knock.sequence[1].port"), "{status}");

    // A weak knock needs its annotation.
    let mut weak = spec(&[80]);
    weak["knock"]["sequence"] = json!([{"port": "tcp/17412"}]);
    api.apply_door("weak", weak.clone(), json!({}));
    let status =
        self::status(&api, "weak", |status| condition(status, "Accepted") == ("False", "Refused")).await;
    assert!(message(&status, "Accepted").contains("bits"), "{status}");
    api.apply_door("weak", weak, json!({"fleetknock.io/weak": "true"}));
    self::status(&api, "weak", |status| condition(status, "Accepted").0 == "True").await;
    nothing_was_told();
}

#[tokio::test]
async fn a_sequence_in_a_secret_is_followed_and_never_told() {
    let (api, controller) = fleet().await;
    let mut operator = controller.operator().await;
    let mut kept = spec(&[22]);
    kept["knock"] =
        json!({"within": "15s", "sequenceFrom": {"secretKeyRef": {"name": "ssh", "key": "steps"}}});
    api.apply_door("ssh", kept, json!({}));
    let status = status(&api, "ssh", |status| condition(status, "Accepted").0 == "False").await;
    assert_eq!(condition(&status, "Accepted").1, "SecretMissing");
    api.apply_secret("ssh", "other", "[]");
    let no_key = |status: &Value| message(status, "Accepted").contains("has no key 'steps'");
    self::status(&api, "ssh", no_key).await;

    let steps = "- {port: tcp/17412}\n- {port: udp/23981}\n- {port: tcp/51003}\n";
    api.apply_secret("ssh", "steps", steps);
    self::status(&api, "ssh", |status| condition(status, "Accepted").0 == "True").await;
    let first = shown(&mut operator, "ssh").await.unwrap().revision;
    api.apply_secret("ssh", "steps", &steps.replace("udp/23981", "udp/23980"));
    until(async || (shown(&mut operator, "ssh").await?.revision > first).then_some(())).await;
    let revealed = pb::GetDoorRequest { name: "ssh".to_owned(), reveal: true };
    let revealed = operator.get_door(revealed).await.unwrap().into_inner();
    assert_eq!(support::shown_steps(&revealed), [17412, 23980, 51003]);

    for wrong in ["steps: {port: tcp/17412", "tcp/17412", "- {port: tcp17412}", ""] {
        api.apply_secret("ssh", "steps", steps);
        self::status(&api, "ssh", |status| condition(status, "Accepted").0 == "True").await;
        api.apply_secret("ssh", "steps", wrong);
        let status = self::status(&api, "ssh", |status| condition(status, "Accepted").0 == "False").await;
        assert!(message(&status, "Accepted").contains("stays in force"), "{wrong}: {status}");
    }
    nothing_was_told();
    let trail = operator.list_events(pb::ListEventsRequest::default()).await.unwrap().into_inner();
    assert_free(&format!("{trail:?}"), "the trail");
    assert_free(&serde_json::to_string(&api.door("ssh").unwrap()["status"]).unwrap(), "the status");
}

#[tokio::test]
async fn a_door_belongs_to_who_declares_it() {
    let (api, controller) = fleet().await;
    let mut operator = controller.operator().await;
    api.apply_door("ssh", spec(&[22]), json!({}));
    status(&api, "ssh", |status| condition(status, "Accepted").0 == "True").await;
    let mine = pb::Door { name: "ssh".to_owned(), ..door() };
    let refused = operator.apply_door(apply(mine.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("declared by the Kubernetes resource Door ops/ssh"),
        "{}",
        refused.message()
    );
    let delete = pb::DeleteDoorRequest { name: "ssh".to_owned(), ..Default::default() };
    let refused = operator.delete_door(delete.clone()).await.unwrap_err();
    assert!(refused.message().contains("kubectl --namespace ops edit"), "{}", refused.message());

    // The other way round.
    operator.apply_door(apply(pb::Door { name: "web".to_owned(), ..door() })).await.unwrap();
    api.apply_door("web", spec(&[443]), json!({}));
    let taken = status(&api, "web", |status| condition(status, "Accepted") == ("False", "NameTaken")).await;
    assert!(message(&taken, "Accepted").contains("fleetknock.io/adopt=true"), "{taken}");
    assert_eq!(shown(&mut operator, "web").await.unwrap().spec.unwrap().open_ports, vec![tcp(22)]);
    // Its deletion is no reason to touch the other's door.
    api.delete_door("web");
    until(async || api.door("web").is_none().then_some(())).await;
    assert!(shown(&mut operator, "web").await.is_some());
    api.apply_door("web", spec(&[443]), json!({"fleetknock.io/adopt": "true"}));
    status(&api, "web", |status| condition(status, "Accepted").0 == "True").await;
    assert_eq!(shown(&mut operator, "web").await.unwrap().spec.unwrap().open_ports, vec![tcp(443)]);

    // A controller that does not take resources leaves nobody without a way.
    let without = Controller::named("without", controller.shared.store.clone()).await;
    let mut other = without.operator().await;
    let deleted = pb::DeleteDoorRequest { name: "web".to_owned(), ..Default::default() };
    other.delete_door(deleted).await.unwrap();
}

async fn fleet() -> (Api, Controller) {
    let api = Api::start().await;
    let controller = started("ctl-1", Arc::new(MemoryStore::new()), &api).await;
    (api, controller)
}

/// A controller that takes the doors of the namespace `ops`.
async fn started(name: &str, store: Arc<dyn Store>, api: &Api) -> Controller {
    let _ = log();
    let controller = Controller::named(name, store).await;
    let sync = doors::Sync {
        shared: controller.shared.clone(),
        peers: controller.running.peers.clone(),
        client: api.client(),
        scope: Scope::Namespace("ops".to_owned()),
        metrics: Metrics::default(),
    };
    let over = controller.running.over.clone();
    tokio::spawn(async move { over.run_until_cancelled(doors::run(sync)).await });
    controller
}

fn spec(ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|port| format!("tcp/{port}")).collect();
    json!({
        "knock": {
            "sequence": [
                {"hosts": {"matchLabels": {"role": "edge"}}, "port": "tcp/17412"},
                {"port": "udp/23981"},
                {"port": "tcp/51003"},
            ],
            "within": "15s",
        },
        "opens": {"hosts": {"matchLabels": {"role": "bastion"}}, "ports": ports, "for": "30s"},
    })
}

/// Waits until the agent is told to guard exactly these, and says with which revision.
async fn guards(agent: &mut Agent, ports: &[u32]) -> u64 {
    let wanted: BTreeSet<_> = ports.iter().copied().collect();
    let is = |guard: &Option<pb::Guard>| {
        guard
            .as_ref()
            .is_some_and(|guard| guard.ports.iter().map(|port| port.port).collect::<BTreeSet<_>>() == wanted)
    };
    let told = agent.until(|told| match told {
        Told::Delta(delta) if is(&delta.guard) => Some(delta.revision),
        Told::Snapshot(snapshot) if is(&snapshot.guard) => Some(snapshot.revision),
        _ => None,
    });
    timeout(PATIENCE, told).await.unwrap()
}

async fn status(api: &Api, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let seen = Mutex::new(Value::Null);
    let looking = until(async || {
        let status = api.door(name)?["status"].clone();
        *seen.lock().unwrap() = status.clone();
        wanted(&status).then_some(status)
    });
    match timeout(PATIENCE / 2, looking).await {
        Ok(status) => status,
        Err(_) => panic!("the status of {name} is {}", seen.lock().unwrap()),
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let found = status["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == kind));
    let text = |key| found.and_then(|one| one[key].as_str()).unwrap_or_default();
    (text("status"), text("reason"))
}

fn message<'a>(status: &'a Value, kind: &str) -> &'a str {
    let found = status["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == kind));
    found.and_then(|one| one["message"].as_str()).unwrap_or_default()
}

async fn shown(operator: &mut Operator, name: &str) -> Option<pb::Door> {
    let request = pb::GetDoorRequest { name: name.to_owned(), ..Default::default() };
    match operator.get_door(request).await {
        Ok(door) => Some(door.into_inner()),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => panic!("{status}"),
    }
}

async fn applied(operator: &mut Operator) -> pb::Event {
    let events = operator.list_events(pb::ListEventsRequest::default()).await.unwrap().into_inner().events;
    events.into_iter().find(|event| event.kind() == pb::EventKind::DoorApplied).unwrap()
}

async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("what was waited for did not come")
}

/// Everything that this process logs, at every level, but for the library that the runtime keeps quiet.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        use tracing_subscriber::{
            Layer as _, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
        };
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let ours = filter_fn(|event| {
            event.target() != "kube_client::client"
                && (event.target().starts_with("kube") || event.target().starts_with("fleetknock"))
        });
        tracing_subscriber::registry().with(lines.with_filter(ours)).init();
        log
    })
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn nothing_was_told() {
    let log = log().0.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("takes the doors of Kubernetes"), "the log was not seen");
    assert_free(&text, "the log");
}

fn assert_free(text: &str, what: &str) {
    for step in STEPS {
        let place = text.find(step).map(|at| &text[at.saturating_sub(100)..(at + 60).min(text.len())]);
        assert!(place.is_none(), "{what} tells a step: {place:?}");
    }
}

/// A controller that can be killed like a process.
struct Doomed {
    _controller: Controller,
    runtime: Runtime,
}

impl Doomed {
    async fn start(name: &'static str, store: Arc<dyn Store>, api: &Api) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let api = api.clone();
        let controller = runtime.spawn(async move { started(name, store, &api).await }).await.unwrap();
        Self { _controller: controller, runtime }
    }

    fn kill(self) {
        self.runtime.shutdown_background();
    }
}
