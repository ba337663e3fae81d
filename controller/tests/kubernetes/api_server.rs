//! An API server in the test's own process: keeps objects as a real one does, as far as what is tested can tell.
//!
//! It knows no kinds: an object lies at the path of its collection under its name, and has a resource version that rises
//! with each change. What is created twice, or changed from an older version, is a conflict. TokenReviews are answered as
//! the test says, and any call can be made to fail.
#![allow(dead_code, reason = "each test program uses its own part of it")]

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
    http::{Method, StatusCode, Uri},
    response::Response,
};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// No request of ours is longer.
const BODY_MAX: usize = 1 << 20;

/// What becomes of a call instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused with this code, and nothing is changed.
    Code(u16),
    /// It is done, and answered as if it had failed.
    DoneAnd(u16),
    /// It is answered with something that is no object.
    Nonsense,
    /// It is not answered.
    Silence,
}

/// What happened, and what is to happen.
#[derive(Default)]
pub(crate) struct Kept {
    revision: u64,
    /// By the path of the collection, then by name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// The `status` of the review of each token; any other is not authenticated.
    pub(crate) tokens: BTreeMap<String, Value>,
    /// Each as `POST /api/v1/...`.
    pub(crate) calls: Vec<String>,
    /// The specs of the reviews that were asked for.
    pub(crate) reviews: Vec<Value>,
    faults: Vec<(String, Fault)>,
}

pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    serving: JoinHandle<()>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let routes = Router::new().fallback(answer).with_state(kept.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { address, kept, serving }
    }

    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// A client as a pod's would be.
    pub(crate) fn client(&self) -> Client {
        let mut config = Config::new(format!("http://{}", self.address).parse().unwrap());
        // Retries are the client library's; a test wants to see each failure.
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    /// The next call that begins so (`PUT /api/v1/namespaces/x/secrets`) goes wrong.
    pub(crate) fn spoil(&self, call: &str, fault: Fault) {
        self.kept().faults.push((call.to_owned(), fault));
    }

    pub(crate) fn object(&self, collection: &str, name: &str) -> Option<Value> {
        self.kept().objects.get(collection)?.get(name).cloned()
    }

    /// Puts an object there as somebody else would.
    pub(crate) fn put(&self, collection: &str, name: &str, object: Value) {
        self.kept().put(collection, name, object);
    }

    pub(crate) fn delete(&self, collection: &str, name: &str) {
        self.kept().objects.entry(collection.to_owned()).or_default().remove(name);
    }
}

impl Kept {
    fn put(&mut self, collection: &str, name: &str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.entry(collection.to_owned()).or_default().insert(name.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        if path == TOKEN_REVIEWS {
            let token = body["spec"]["token"].as_str().unwrap_or_default();
            let refused = json!({"authenticated": false, "error": "[invalid bearer token]"});
            let status = self.tokens.get(token).cloned().unwrap_or(refused);
            self.reviews.push(body["spec"].clone());
            let mut review = body;
            review["status"] = status;
            return (StatusCode::CREATED, review);
        }
        if *method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if self.objects.get(path).is_some_and(|there| there.contains_key(&name)) {
                return refusal(409, "AlreadyExists", &format!("\"{name}\" already exists"));
            }
            return (StatusCode::CREATED, self.put(path, &name, body));
        }
        let (collection, name) = path.rsplit_once('/').unwrap();
        let Some(there) = self.objects.get(collection).and_then(|all| all.get(name)).cloned() else {
            return refusal(404, "NotFound", &format!("\"{name}\" not found"));
        };
        match *method {
            Method::GET => (StatusCode::OK, there),
            Method::PUT => {
                let asked = &body["metadata"]["resourceVersion"];
                if asked.is_string() && *asked != there["metadata"]["resourceVersion"] {
                    return refusal(409, "Conflict", "the object has been modified");
                }
                (StatusCode::OK, self.put(collection, name, body))
            }
            _ => refusal(405, "MethodNotAllowed", "this API server does not know how"),
        }
    }
}

async fn answer(State(kept): State<Arc<Mutex<Kept>>>, method: Method, uri: Uri, body: Body) -> Response {
    let body: Bytes = axum::body::to_bytes(body, BODY_MAX).await.unwrap();
    let path = uri.path().to_owned();
    let call = format!("{method} {path}");
    let fault = {
        let mut kept = kept.lock().unwrap();
        kept.calls.push(call.clone());
        let found = kept.faults.iter().position(|(begin, _)| call.starts_with(begin));
        found.map(|place| kept.faults.remove(place).1)
    };
    if fault == Some(Fault::Silence) {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    let done = || {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        kept.lock().unwrap().answer(&method, &path, body)
    };
    let (code, object) = match fault {
        None => done(),
        Some(Fault::Code(code)) => refusal(code, "Broken", "the test wants it so"),
        Some(Fault::DoneAnd(code)) => {
            done();
            refusal(code, "Broken", "the test wants it so")
        }
        Some(Fault::Nonsense | Fault::Silence) => (StatusCode::OK, json!("nonsense")),
    };
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Body::from(object.to_string()))
        .unwrap()
}

fn refusal(code: u16, reason: &str, message: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (StatusCode::from_u16(code).unwrap(), status)
}
