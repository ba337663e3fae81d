//! An API server in the test's own process, for Doors and secrets: lists, watches with bookmarks and versions that grow old,
//! finalizers, server-side apply of the status, conflicts; and whatever goes wrong with one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::Response,
};
use fleetknock_controller::operator::crd::Door;
use futures::stream;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::against::wrong;

const DOORS: &str = "doors";
const SECRETS: &str = "secrets";

type Place = (&'static str, String, String);

/// What it holds, and how it is.
#[derive(Default)]
pub(crate) struct Held {
    version: u64,
    /// Versions before this are forgotten.
    oldest: u64,
    objects: BTreeMap<Place, Value>,
    history: Vec<(u64, &'static str, Value)>,
    /// Every call is answered with 503, and every watch ends.
    pub(crate) away: bool,
    /// So many changes are answered with this code before one is taken.
    pub(crate) failing: (u32, u16),
    /// How long it thinks.
    pub(crate) delay: Duration,
    pub(crate) secrets_forbidden: bool,
    pub(crate) definition_deleted: bool,
    /// Changes that were asked for, such as `PATCH doors/ops/ssh/status`.
    pub(crate) changes: Vec<String>,
    /// Watches that have begun.
    pub(crate) watches: u32,
    uids: u32,
}

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    held: Arc<Mutex<Held>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(Mutex::new(Held { version: 100, oldest: 0, ..Held::default() }));
        let api = Self { address, held, changed: Arc::new(watch::Sender::new(0)) };
        let routes = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        api
    }

    pub(crate) fn client(&self) -> kube::Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        fleetknock_controller::operator::doors::client(kube::Config::new(url)).unwrap()
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held());
        self.changed.send_modify(|count| *count += 1);
    }

    /// All that was changed so far is forgotten: whoever goes on from before is told that it is gone.
    pub(crate) fn forget(&self) {
        self.set(|held| {
            held.version += 10;
            held.oldest = held.version;
            held.history.clear();
        });
    }

    pub(crate) fn door(&self, name: &str) -> Option<Value> {
        self.held().objects.get(&(DOORS, "ops".to_owned(), name.to_owned())).cloned()
    }

    /// As `kubectl apply` does; the schema is held against it.
    pub(crate) fn apply_door(&self, name: &str, spec: Value, annotations: Value) {
        let schema = serde_json::to_value(Door::crd()).unwrap();
        let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(wrong(schema, &spec), None);
        self.put_door(name, spec, annotations);
    }

    /// The same whatever the schema says, as from a time when it said something else.
    pub(crate) fn put_door(&self, name: &str, spec: Value, annotations: Value) {
        self.set(|held| {
            let place = (DOORS, "ops".to_owned(), name.to_owned());
            let before = held.objects.get(&place).cloned();
            held.uids += 1;
            let uid = format!("uid-{}", held.uids);
            let mut object = before.unwrap_or_else(|| {
                json!({
                    "apiVersion": "fleetknock.io/v1", "kind": "Door",
                    "metadata": {"name": name, "namespace": "ops", "uid": uid, "generation": 0},
                })
            });
            let generation = object["metadata"]["generation"].as_i64().unwrap();
            if object["spec"] != spec {
                object["metadata"]["generation"] = (generation + 1).into();
            }
            object["spec"] = spec;
            object["metadata"]["annotations"] = annotations;
            held.put(place, object);
        });
    }

    pub(crate) fn apply_secret(&self, name: &str, key: &str, text: &str) {
        self.set(|held| {
            let data = data_encoding::BASE64.encode(text.as_bytes());
            let object = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "fleetknock.io/sequence",
                "metadata": {"name": name, "namespace": "ops", "uid": name},
                "data": {key: data},
            });
            held.put((SECRETS, "ops".to_owned(), name.to_owned()), object);
        });
    }

    pub(crate) fn delete_door(&self, name: &str) {
        self.set(|held| {
            let place = (DOORS, "ops".to_owned(), name.to_owned());
            let mut object = held.objects[&place].clone();
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            held.put(place, object);
        });
    }

    /// Somebody takes the finalizers off by hand and deletes it.
    pub(crate) fn tear_out_door(&self, name: &str) {
        self.set(|held| {
            let place = (DOORS, "ops".to_owned(), name.to_owned());
            let mut object = held.objects[&place].clone();
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            object["metadata"]["finalizers"] = json!([]);
            held.put(place, object);
        });
    }
}

impl Held {
    /// An object that is being deleted and has no finalizer any more goes.
    fn put(&mut self, place: Place, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let metadata = &object["metadata"];
        let kept = metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        let kind = if metadata.get("deletionTimestamp").is_some() && !kept {
            self.objects.remove(&place);
            "DELETED"
        } else if self.objects.insert(place.clone(), object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.history.push((self.version, place.0, json!({"type": kind, "object": object})));
    }
}

async fn answer(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let delay = api.held().delay;
    tokio::time::sleep(delay).await;
    if api.held().away {
        return refuse(503, "ServiceUnavailable");
    }
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let path: Vec<_> = uri.path().trim_matches('/').split('/').collect();
    match (&method, path.as_slice()) {
        (&Method::GET, ["apis", "apiextensions.k8s.io", "v1", "customresourcedefinitions", name]) => {
            assert_eq!(*name, "doors.fleetknock.io");
            let mut metadata = json!({"name": name});
            if api.held().definition_deleted {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            let kind = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
            whole(&kind)
        }
        (&Method::GET, ["apis", "fleetknock.io", "v1", "namespaces", "ops", DOORS]) => {
            read(&api, DOORS, &query)
        }
        (&Method::GET, ["api", "v1", "namespaces", "ops", SECRETS]) => {
            assert_eq!(query["fieldSelector"], "type=fleetknock.io/sequence");
            if api.held().secrets_forbidden { refuse(403, "Forbidden") } else { read(&api, SECRETS, &query) }
        }
        (&Method::PATCH, ["apis", "fleetknock.io", "v1", "namespaces", "ops", DOORS, name, rest @ ..]) => {
            let kind = headers["content-type"].to_str().unwrap();
            let answer = patch(&mut api.held(), name, rest, kind, &query, &body);
            api.changed.send_modify(|count| *count += 1);
            answer
        }
        _ => refuse(404, "NotFound"),
    }
}

fn patch(
    held: &mut Held,
    name: &str,
    rest: &[&str],
    kind: &str,
    query: &BTreeMap<String, String>,
    body: &[u8],
) -> Response {
    let slash = if rest.is_empty() { "" } else { "/" };
    held.changes.push(format!("PATCH doors/ops/{name}{slash}{}", rest.join("/")));
    if held.failing.0 > 0 {
        held.failing.0 -= 1;
        return refuse(held.failing.1, "InternalError");
    }
    let place = (DOORS, "ops".to_owned(), name.to_owned());
    let Some(mut object) = held.objects.get(&place).cloned() else { return refuse(404, "NotFound") };
    let body: Value = serde_json::from_slice(body).unwrap();
    match (rest, kind) {
        ([], "application/merge-patch+json") => {
            let metadata = body["metadata"].as_object().unwrap();
            assert_eq!(metadata.len(), 2, "nothing but the finalizers is changed");
            if metadata["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return refuse(409, "Conflict");
            }
            object["metadata"]["finalizers"] = metadata["finalizers"].clone();
        }
        (["status"], "application/apply-patch+yaml") => {
            assert_eq!(
                (query["fieldManager"].as_str(), query["force"].as_str()),
                ("fleetknock-controller", "true")
            );
            let schema = serde_json::to_value(Door::crd()).unwrap();
            let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
            assert_eq!(wrong(schema, &body["status"]), None);
            object["status"] = body["status"].clone();
        }
        other => panic!("{other:?} is not expected"),
    }
    held.put(place, object.clone());
    whole(&object)
}

fn read(api: &Api, of: &'static str, query: &BTreeMap<String, String>) -> Response {
    if query.get("watch").is_none_or(|watch| watch != "true") {
        let held = api.held();
        let items: Vec<_> =
            held.objects.iter().filter(|((kind, ..), _)| *kind == of).map(|(_, o)| o).collect();
        let metadata = json!({"resourceVersion": held.version.to_string()});
        return whole(&json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}));
    }
    api.held().watches += 1;
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let bookmarks = query["allowWatchBookmarks"] == "true";
    let (api, changed) = (api.clone(), api.changed.subscribe());
    let lines = stream::unfold((from, changed), move |(from, mut changed)| {
        let api = api.clone();
        async move {
            loop {
                changed.borrow_and_update();
                {
                    let held = api.held();
                    if held.away {
                        return None;
                    }
                    if from < held.oldest {
                        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old",
                                            "reason": "Expired", "code": 410});
                        let event = json!({"type": "ERROR", "object": status});
                        return Some((line(&event), (u64::MAX, changed)));
                    }
                    let next = held.history.iter().find(|(version, kind, _)| *version > from && *kind == of);
                    if let Some((version, _, event)) = next {
                        return Some((line(event), (*version, changed)));
                    }
                    if from < held.version && bookmarks {
                        let metadata = json!({"resourceVersion": held.version.to_string()});
                        let object =
                            json!({"kind": "Door", "apiVersion": "fleetknock.io/v1", "metadata": metadata});
                        let event = json!({"type": "BOOKMARK", "object": object});
                        return Some((line(&event), (held.version, changed)));
                    }
                }
                changed.changed().await.ok()?;
            }
        }
    });
    Response::new(Body::from_stream(lines))
}

fn line(event: &Value) -> Result<String, std::io::Error> {
    Ok(format!("{event}\n"))
}

fn whole(value: &Value) -> Response {
    Response::new(Body::from(value.to_string()))
}

fn refuse(code: u16, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "as the test says",
                        "reason": reason, "code": code});
    let mut response = whole(&status);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
