//! Calls of the control service that come as JSON: read, made, and their answers written.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{ConnectInfo, Path, State},
    http::{
        HeaderMap, HeaderName, Uri,
        header::{self, AUTHORIZATION},
        uri::PathAndQuery,
    },
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use bytes::Bytes;
use fleetknock_proto::{limits, status as refuse, v1::control_service_server::ControlServiceServer};
use fleetknock_runtime::tls::Peer;
use futures::{Stream, StreamExt as _, stream};
use prost_reflect::{DynamicMessage, Value};
use tokio::time::timeout;
use tonic::{Request, Status, client::Grpc, metadata::MetadataMap};
use tower_layer::Layer as _;

use super::{
    Web,
    answer::{self, Refused},
    json::{self, Method, Methods, MethodsError},
    origin, session,
};
use crate::{
    control_api,
    limits::{ANSWER_MAX, Limited, LimitsLayer, REQUEST_MAX},
    trust::{
        Refusals,
        gate::{Gate, GateLayer},
    },
};

/// How often a stream of events says that it lives; proxies give up silent ones, mostly after a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What of a request's headers a call has too: who makes it, and which trace it belongs to.
const PASSED_ON: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// Makes calls of the control service, as they are made over gRPC.
#[derive(Clone)]
pub struct Api {
    stack: Stack,
    methods: Methods,
    pub(super) gate: GateLayer,
    pub(super) refusals: Refusals,
}

type Stack = Gate<Limited<ControlServiceServer<control_api::Service>>>;

impl Api {
    /// Calls pass this gate and these limits, which they share with those over gRPC; whose certificate is refused is noted
    /// as there.
    ///
    /// # Errors
    /// When the descriptors that are part of the program are broken.
    pub fn new(
        control: ControlServiceServer<control_api::Service>,
        gate: GateLayer,
        callers: &LimitsLayer,
        refusals: Refusals,
    ) -> Result<Self, MethodsError> {
        let stack = gate.layer(callers.layer(control));
        Ok(Self { stack, methods: Methods::new()?, gate, refusals })
    }

    fn method(&self, name: &str) -> Result<Method, Status> {
        self.methods.of(name).ok_or_else(|| no_such_call(name))
    }

    async fn grpc(&self) -> Result<Grpc<Stack>, Status> {
        let mut grpc = Grpc::new(self.stack.clone())
            .max_decoding_message_size(limits::MESSAGE_MAX)
            .max_encoding_message_size(limits::MESSAGE_MAX);
        grpc.ready().await.map_err(|error| refuse::unavailable(error.to_string()))?;
        Ok(grpc)
    }
}

/// There is no method of this name.
pub(super) fn no_such_call(name: &str) -> Status {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    refuse::not_found("call", &shown)
}

/// `POST /api/v1/{Method}`.
pub(super) async fn call(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answering = async {
        let api = web.api()?;
        let method = api.method(&name)?;
        origin::check_change(&headers)?;
        if method.is_stream() {
            let reason = "this call is a stream, which has no form in JSON here; make it over gRPC, as fleetknock does";
            return Err(Status::unimplemented(reason));
        }
        let request = method.read(&read(body).await?)?;
        let request = as_grpc(request, peer, &headers);
        let answer = api.grpc().await?.unary(request, path(&method)?, method.codec()).await?;
        json::write(answer.get_ref())
    };
    match answering.await {
        Ok(text) => answer::json(text).into_response(),
        Err(status) => answer::refused(&status),
    }
}

/// `GET /api/v1/WatchEvents`.
pub(super) async fn watch(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let watching = async {
        let api = web.api()?;
        let method = api.method("WatchEvents")?;
        origin::check(&headers)?;
        let request = as_grpc(asked_for(&method, uri.query().unwrap_or_default())?, peer, &headers);
        let told = api.grpc().await?.server_streaming(request, path(&method)?, method.codec()).await?;
        Ok::<_, Status>(told.into_inner())
    };
    match watching.await {
        Ok(told) => {
            let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("here");
            let events = Sse::new(sent(told)).keep_alive(heartbeat);
            ([(header::CACHE_CONTROL, "no-store")], events).into_response()
        }
        Err(status) => answer::refused(&status),
    }
}

/// What is watched, of a query such as `door=bastion&source=203.0.113.5`.
fn asked_for(method: &Method, query: &str) -> Result<DynamicMessage, Status> {
    let mut message = method.read(b"")?;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !matches!(&*name, "door" | "source") {
            return Err(refuse::invalid("", "the query has door and source only"));
        }
        message.set_field_by_name(&name, Value::String(value.into_owned()));
    }
    Ok(message)
}

/// Events as they are sent; the last one says why there are no more, when that is known.
fn sent(
    told: impl Stream<Item = Result<DynamicMessage, Status>> + Send + 'static,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let first = stream::once(async { Ok(Event::default().comment("here")) });
    first.chain(told.map(|event| {
        Ok(match event.and_then(|event| json::write(&event)) {
            Ok(text) => Event::default().data(text),
            Err(status) => Event::default().event("end").data(Refused::of(&status).to_json()),
        })
    }))
}

/// The body of a request, as far as one may be.
pub(super) async fn read(body: Body) -> Result<Bytes, Status> {
    let read = timeout(ANSWER_MAX, to_bytes(body, REQUEST_MAX)).await;
    let read = read.map_err(|_| Status::deadline_exceeded("the body came too slowly"))?;
    read.map_err(|error| Status::out_of_range(format!("the body: {error}; it may have {REQUEST_MAX} bytes")))
}

/// The call as it is made over gRPC: by the same peer, who shows the same.
fn as_grpc(message: DynamicMessage, peer: Peer, headers: &HeaderMap) -> Request<DynamicMessage> {
    let mut request = Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(shown(&peer, headers));
    request.extensions_mut().insert(peer);
    request
}

/// What of a request's headers a call has too. A cookie counts where nothing else is shown: a browser sends it unasked.
pub(super) fn shown(peer: &Peer, headers: &HeaderMap) -> HeaderMap {
    let mut shown = HeaderMap::new();
    for name in PASSED_ON {
        for value in headers.get_all(&name) {
            shown.append(&name, value.clone());
        }
    }
    if !shown.contains_key(AUTHORIZATION) && peer.certificate.is_none() {
        for bearer in session::cookies(headers) {
            shown.append(AUTHORIZATION, bearer);
        }
    }
    shown
}

fn path(method: &Method) -> Result<PathAndQuery, Status> {
    method.path().parse().map_err(|_| Status::internal("the method has no path"))
}
