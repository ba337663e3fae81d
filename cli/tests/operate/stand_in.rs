//! A controller that keeps its doors, openings and bans in memory and decides nothing.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fleetknock_core::door::Door;
use fleetknock_proto::{
    convert, status,
    v1::{
        self,
        control_service_server::{ControlService, ControlServiceServer},
        create_token_request::Holder as Asked,
    },
};
use fleetknock_runtime::tls::{Acceptor, Clients, Credentials, Files, Incoming, Limits, UriRule};
use futures::stream;
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{Request, Response, Status};

use super::{backup, fleet, logs, wall};

type Answer<T> = Result<Response<T>, Status>;
type Parts<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;
type EventStream = Parts<v1::Event>;

/// Runs until it is dropped.
pub(crate) struct StandIn {
    scheme: &'static str,
    address: SocketAddr,
    bans: Arc<Mutex<BTreeMap<String, v1::Ban>>>,
    openings: Arc<Mutex<Vec<v1::Opening>>>,
    log_orders: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        Self::serve(Service::default())
    }

    /// One whose lease is gone.
    pub(crate) fn suspended() -> Self {
        Self::serve(Service { suspended: true, ..Service::default() })
    }

    /// One of three controllers: of the others, one is cut off, and one does not answer.
    pub(crate) fn of_three() -> Self {
        Self::serve(Service { of_three: true, ..Service::default() })
    }

    /// One with a fleet to look at.
    pub(crate) fn with_a_wall() -> Self {
        Self::with_a_wall_at("127.0.0.1:0")
    }

    /// The same there, where one may have been before.
    pub(crate) fn with_a_wall_at(address: &str) -> Self {
        let service = Service { wall: true, ..Service::default() };
        *service.openings.lock().unwrap() = wall::openings(now_ms());
        let bans = wall::bans(now_ms()).into_iter().map(|ban| (ban.source.clone(), ban));
        service.bans.lock().unwrap().extend(bans);
        Self::serve_at(address, service, None)
    }

    /// One that speaks TLS, as whom the files say, to whoever the fleet's authority vouches for.
    pub(crate) fn secure(files: Files) -> Self {
        Self::serve_with(Service::default(), Some(files))
    }

    /// One that takes calls with this token only, from whoever needs no certificate.
    pub(crate) fn for_token(files: Files, token: &str) -> Self {
        let authorization = Some(format!("Bearer {token}"));
        Self::serve_with(Service { authorization, ..Service::default() }, Some(files))
    }

    fn serve(service: Service) -> Self {
        Self::serve_with(service, None)
    }

    fn serve_with(service: Service, files: Option<Files>) -> Self {
        Self::serve_at("127.0.0.1:0", service, files)
    }

    fn serve_at(address: &str, service: Service, files: Option<Files>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let (bans, openings) = (service.bans.clone(), service.openings.clone());
        let log_orders = service.log_orders.clone();
        let within = runtime.enter();
        let (scheme, incoming) = match files {
            None => ("http", Incoming::plain(listener, Limits::default())),
            Some(files) => {
                let clients = match service.authorization {
                    None => Clients::Required(UriRule::anybody()),
                    Some(_) => Clients::Optional(UriRule::anybody()),
                };
                let acceptor = Acceptor::new(Credentials::load(files).unwrap(), clients).unwrap();
                ("https", Incoming::tls(listener, acceptor, Limits::default()))
            }
        };
        let service = ControlServiceServer::new(service);
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(incoming));
        drop(within);
        Self { scheme, address, bans, openings, log_orders, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What is open.
    pub(crate) fn openings(&self) -> Vec<String> {
        self.openings.lock().unwrap().iter().map(|opening| opening.id.clone()).collect()
    }
    /// What was ordered to be logged.
    pub(crate) fn log_orders(&self) -> Vec<String> {
        self.log_orders.lock().unwrap().clone()
    }
    /// Who is banned.
    pub(crate) fn bans(&self) -> Vec<String> {
        self.bans.lock().unwrap().keys().cloned().collect()
    }
}

#[derive(Default)]
struct Service {
    doors: Arc<Mutex<BTreeMap<String, Door>>>,
    /// Doors that wait to be confirmed, and until when.
    waiting: Mutex<BTreeMap<String, u64>>,
    openings: Arc<Mutex<Vec<v1::Opening>>>,
    bans: Arc<Mutex<BTreeMap<String, v1::Ban>>>,
    tokens: Mutex<Vec<v1::Token>>,
    log_orders: Arc<Mutex<Vec<String>>>,
    /// What whoever calls must show for itself, if anything.
    authorization: Option<String>,
    streams: AtomicU32,
    suspended: bool,
    of_three: bool,
    /// There is something to look at.
    wall: bool,
}

impl Service {
    fn serving(&self) -> Result<(), Status> {
        if self.suspended { Err(status::unavailable(SUSPENDED)) } else { Ok(()) }
    }

    fn unanswered(&self) -> Vec<String> {
        if self.of_three { vec!["ctl-3".to_owned()] } else { Vec::new() }
    }
}

/// Why it does nothing.
pub(crate) const SUSPENDED: &str = "ctl-1 is suspended: its lease is gone, the store does not answer";

#[tonic::async_trait]
impl ControlService for Service {
    type WatchEventsStream = EventStream;

    async fn apply_door(&self, request: Request<v1::ApplyDoorRequest>) -> Answer<v1::ApplyDoorResponse> {
        let request = request.into_inner();
        let door = convert::door(&request.door.unwrap_or_default())?;
        if door.name().as_str() == "taken-port" {
            return Err(status::invalid("door.name", "the controller does not like it"));
        }
        let mut doors = self.doors.lock().unwrap();
        let mut changes = Vec::new();
        let outcome = match doors.get(door.name().as_str()) {
            None => v1::ApplyOutcome::Created,
            Some(old) if *old == door => v1::ApplyOutcome::Unchanged,
            Some(old) => {
                let [before, after] =
                    [old, &door].map(|door| fleetknock_core::door::yaml::time_text(door.opens().duration));
                changes.push(v1::FieldChange { field: "spec.opens.for".to_owned(), before, after });
                v1::ApplyOutcome::Changed
            }
        };
        let mut message = convert::door_message(&door, false);
        if request.confirm_within_ms > 0 && outcome != v1::ApplyOutcome::Unchanged {
            message.confirm_until_ms = now_ms() + request.confirm_within_ms;
        }
        if !request.dry_run {
            self.waiting.lock().unwrap().insert(door.name().to_string(), message.confirm_until_ms);
            doors.insert(door.name().to_string(), door);
        }
        Ok(Response::new(v1::ApplyDoorResponse {
            door: Some(message),
            outcome: outcome.into(),
            changes,
            warnings: Vec::new(),
        }))
    }

    async fn get_door(&self, request: Request<v1::GetDoorRequest>) -> Answer<v1::Door> {
        let request = request.into_inner();
        let doors = self.doors.lock().unwrap();
        let door = doors.get(&request.name).ok_or_else(|| status::not_found("door", &request.name))?;
        Ok(Response::new(convert::door_message(door, request.reveal)))
    }

    async fn list_doors(&self, request: Request<v1::ListDoorsRequest>) -> Answer<v1::ListDoorsResponse> {
        self.serving()?;
        let shown = request.metadata().get("authorization").map(|value| value.to_str().unwrap());
        if shown != self.authorization.as_deref() {
            return Err(status::unknown_caller(format!(
                "{} is shown",
                if shown.is_some() { "something" } else { "nothing" }
            )));
        }
        let request = request.into_inner();
        let doors = self.doors.lock().unwrap();
        let rest = doors.range(request.page_token..).map(|(_, door)| door);
        let mut page: Vec<_> = rest.take(3).map(|door| convert::door_message(door, request.reveal)).collect();
        let next_page_token = page.get(2).map(|door| door.name.clone()).unwrap_or_default();
        page.truncate(2);
        for door in &mut page {
            door.confirm_until_ms = self.waiting.lock().unwrap().get(&door.name).copied().unwrap_or(0);
        }
        Ok(Response::new(v1::ListDoorsResponse { doors: page, next_page_token }))
    }

    async fn delete_door(&self, request: Request<v1::DeleteDoorRequest>) -> Answer<v1::DeleteDoorResponse> {
        let name = request.into_inner().name;
        self.doors.lock().unwrap().remove(&name).ok_or_else(|| status::not_found("door", &name))?;
        Ok(Response::new(v1::DeleteDoorResponse { openings_withdrawn: 1 }))
    }

    async fn get_host(&self, request: Request<v1::GetHostRequest>) -> Answer<v1::Host> {
        let name = request.into_inner().name;
        let host = fleet::hosts().into_iter().find(|host| self.of_three && host.name == name);
        host.map(Response::new).ok_or_else(|| status::not_found("host", &name))
    }

    /// In pages of one.
    async fn list_hosts(&self, request: Request<v1::ListHostsRequest>) -> Answer<v1::ListHostsResponse> {
        if self.wall {
            let hosts = wall::hosts(now_ms());
            return Ok(Response::new(v1::ListHostsResponse { hosts, ..Default::default() }));
        }
        let after = request.into_inner().page_token;
        let hosts = if self.of_three { fleet::hosts() } else { Vec::new() };
        let mut hosts = hosts.into_iter().filter(|host| host.name > after);
        let page: Vec<_> = hosts.by_ref().take(1).collect();
        let next_page_token = hosts.next().map_or_else(String::new, |_| page[0].name.clone());
        let unanswered = self.unanswered();
        Ok(Response::new(v1::ListHostsResponse { hosts: page, next_page_token, unanswered }))
    }

    async fn delete_host(&self, request: Request<v1::DeleteHostRequest>) -> Answer<v1::DeleteHostResponse> {
        Err(status::precondition("host", &request.into_inner().name, "it is connected; stop its agent first"))
    }

    async fn get_opening(&self, request: Request<v1::GetOpeningRequest>) -> Answer<v1::Opening> {
        Err(status::not_found("opening", &request.into_inner().id))
    }

    async fn list_openings(&self, _: Request<v1::ListOpeningsRequest>) -> Answer<v1::ListOpeningsResponse> {
        let openings = self.openings.lock().unwrap().clone();
        let unanswered = self.unanswered();
        Ok(Response::new(v1::ListOpeningsResponse { openings, next_page_token: String::new(), unanswered }))
    }

    async fn open(&self, request: Request<v1::OpenRequest>) -> Answer<v1::Opening> {
        let request = request.into_inner();
        let doors = self.doors.lock().unwrap();
        let door = doors.get(&request.door).ok_or_else(|| status::not_found("door", &request.door))?;
        let mut openings = self.openings.lock().unwrap();
        let opening = v1::Opening {
            id: format!("o{}", openings.len() + 1),
            door: request.door,
            source: request.source,
            ports: door.opens().ports.iter().copied().map(Into::into).collect(),
            state: v1::OpeningState::Active.into(),
            opened_ms: now_ms(),
            expires_ms: now_ms() + request.for_ms,
            generation: 1,
            hosts: vec![v1::OpeningOnHost { host: "a".to_owned(), ..v1::OpeningOnHost::default() }],
            ..v1::Opening::default()
        };
        openings.push(opening.clone());
        Ok(Response::new(opening))
    }

    async fn close(&self, request: Request<v1::CloseRequest>) -> Answer<v1::CloseResponse> {
        let request = request.into_inner();
        let mut openings = self.openings.lock().unwrap();
        let of = |opening: &v1::Opening| {
            opening.id == request.id || opening.source == request.source || opening.door == request.door
        };
        let (closed, open) = openings.drain(..).partition(of);
        *openings = open;
        Ok(Response::new(v1::CloseResponse { closed }))
    }

    async fn get_ban(&self, request: Request<v1::GetBanRequest>) -> Answer<v1::Ban> {
        Err(status::not_found("ban", &request.into_inner().source))
    }

    async fn list_bans(&self, _: Request<v1::ListBansRequest>) -> Answer<v1::ListBansResponse> {
        if self.wall {
            let bans = self.bans.lock().unwrap().values().cloned().collect();
            return Ok(Response::new(v1::ListBansResponse { bans, ..Default::default() }));
        }
        // Longer than any caller of the tests waits.
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok(Response::new(Default::default()))
    }

    async fn ban_source(&self, request: Request<v1::BanSourceRequest>) -> Answer<v1::Ban> {
        self.serving()?;
        let request = request.into_inner();
        let ban = v1::Ban {
            source: request.source.clone(),
            expires_ms: now_ms() + request.for_ms,
            ..v1::Ban::default()
        };
        self.bans.lock().unwrap().insert(request.source, ban.clone());
        Ok(Response::new(ban))
    }

    async fn unban_source(
        &self,
        request: Request<v1::UnbanSourceRequest>,
    ) -> Answer<v1::UnbanSourceResponse> {
        let source = request.into_inner().source;
        self.bans.lock().unwrap().remove(&source).ok_or_else(|| status::not_found("ban", &source))?;
        Ok(Response::new(Default::default()))
    }

    async fn confirm_door(&self, request: Request<v1::ConfirmDoorRequest>) -> Answer<v1::Door> {
        let name = request.into_inner().name;
        match self.waiting.lock().unwrap().insert(name.clone(), 0) {
            None => Err(status::not_found("door", &name)),
            Some(0) => Err(status::precondition("door", &name, "nothing waits to be confirmed")),
            Some(_) => Ok(Response::new(v1::Door { name, ..v1::Door::default() })),
        }
    }

    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Answer<v1::ListEventsResponse> {
        if self.wall {
            let events = wall::events(now_ms());
            return Ok(Response::new(v1::ListEventsResponse { events, ..Default::default() }));
        }
        Ok(Response::new(fleet::events(request.get_ref())))
    }

    /// The secret tells how it was asked for.
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        let v1::CreateTokenRequest { holder, valid_for_ms } = request.into_inner();
        let (prefix, holder) = match holder.unwrap() {
            Asked::User(user) => ("fkt", v1::token::Holder::User(user)),
            Asked::Host(host) => ("fke", v1::token::Holder::Host(host)),
        };
        let mut tokens = self.tokens.lock().unwrap();
        let id = format!("{:016x}", tokens.len() + 1);
        let secret = format!("{prefix}_{id}_for_{valid_for_ms}");
        let token = v1::Token {
            id,
            holder: Some(holder),
            created_ms: now_ms(),
            expires_ms: now_ms() + valid_for_ms,
            created_by: "user a".to_owned(),
        };
        tokens.push(token.clone());
        Ok(Response::new(v1::CreateTokenResponse { token: Some(token), secret }))
    }

    /// In pages of one.
    async fn list_tokens(&self, request: Request<v1::ListTokensRequest>) -> Answer<v1::ListTokensResponse> {
        let after = request.into_inner().page_token;
        let tokens = self.tokens.lock().unwrap();
        let mut rest = tokens.iter().filter(|token| token.id > after).cloned();
        let page: Vec<_> = rest.by_ref().take(1).collect();
        let next_page_token = rest.next().map_or_else(String::new, |_| page[0].id.clone());
        Ok(Response::new(v1::ListTokensResponse { tokens: page, next_page_token }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Answer<v1::RevokeTokenResponse> {
        let id = request.into_inner().id;
        let mut tokens = self.tokens.lock().unwrap();
        let place = tokens.iter().position(|token| token.id == id);
        tokens.remove(place.ok_or_else(|| status::not_found("token", &id))?);
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }

    async fn get_controller(&self, request: Request<v1::GetControllerRequest>) -> Answer<v1::Controller> {
        let name = request.into_inner().name;
        let controller = fleet::controllers().into_iter().find(|controller| controller.name == name);
        controller.map(Response::new).ok_or_else(|| status::not_found("controller", &name))
    }

    async fn list_controllers(
        &self,
        _: Request<v1::ListControllersRequest>,
    ) -> Answer<v1::ListControllersResponse> {
        Ok(Response::new(v1::ListControllersResponse {
            controllers: fleet::controllers(),
            ..Default::default()
        }))
    }

    async fn list_attempts(&self, _: Request<v1::ListAttemptsRequest>) -> Answer<v1::ListAttemptsResponse> {
        if self.wall {
            let attempts = wall::attempts(now_ms());
            return Ok(Response::new(v1::ListAttemptsResponse { attempts, ..Default::default() }));
        }
        if self.of_three {
            let unanswered = self.unanswered();
            return Ok(Response::new(v1::ListAttemptsResponse { unanswered, ..Default::default() }));
        }
        Err(status::unavailable("the matcher is starting"))
    }

    /// One knock, and one more with each answer.
    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        self.serving()?;
        if self.wall {
            return Ok(Response::new(wall::explained(&request.get_ref().source, now_ms())));
        }
        let request = request.into_inner();
        if request.door == "none" {
            return Err(status::not_found("door", "none"));
        }
        let answers = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let mut explained = fleet::explained(&request, answers);
        explained.unanswered = self.unanswered();
        Ok(Response::new(explained))
    }

    async fn overview(&self, _: Request<v1::OverviewRequest>) -> Answer<v1::OverviewResponse> {
        if self.wall {
            return Ok(Response::new(wall::overview(now_ms())));
        }
        Err(status::unavailable("nothing is remembered yet"))
    }

    async fn set_log(&self, request: Request<v1::SetLogRequest>) -> Answer<v1::SetLogResponse> {
        let request = request.into_inner();
        let text = logs::order(&request)?;
        self.log_orders.lock().unwrap().push(text);
        let within = if request.for_ms == 0 { 600_000 } else { request.for_ms };
        let until_ms = if request.filter.is_empty() { 0 } else { now_ms() + within };
        Ok(Response::new(v1::SetLogResponse { until_ms }))
    }

    type BackupStream = Parts<v1::BackupPart>;
    /// Two parts; a controller that is suspended breaks off after the first.
    async fn backup(&self, _: Request<v1::BackupRequest>) -> Answer<Self::BackupStream> {
        Ok(Response::new(Box::pin(stream::iter(backup::file(self.serving())))))
    }

    type RestoreStream = Parts<v1::RestoreProgress>;
    /// Says what it was given.
    async fn restore(
        &self,
        request: Request<tonic::Streaming<v1::RestorePart>>,
    ) -> Answer<Self::RestoreStream> {
        self.serving()?;
        let told = backup::restored(request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream::iter(told.map(Ok)))))
    }

    /// One event, and then the stream ends.
    async fn watch_events(&self, _: Request<v1::WatchEventsRequest>) -> Answer<EventStream> {
        self.serving()?;
        let number = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let event = v1::Event {
            kind: v1::EventKind::Warning.into(),
            time_ms: now_ms(),
            message: format!("stream {number}"),
            ..v1::Event::default()
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(event)]))))
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
