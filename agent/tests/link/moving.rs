//! How an agent finds a controller among several, and another one when it loses that.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use fleetknock_agent::link::{
    Event, GOOD_AFTER, Link, Parting,
    names::{Lookup, Names},
};
use fleetknock_proto::v1::{self, controller_message::Kind};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tonic::Code;

use super::{
    controller::{AgentStream, Controller, Manner},
    host::{Host, eventually, within},
};
use crate::LONG;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_controller_is_asked_before_any_is_asked_again_and_only_answers_make_a_last_resort() {
    let refusing = Manner::Refuse(Code::FailedPrecondition);
    let controllers = [
        Controller::start_as(refusing).await,
        Controller::start_as(Manner::EndWith(Code::PermissionDenied)).await,
        Controller::start_as(refusing).await,
    ];
    // Nobody listens there any more, which is no answer.
    let gone = Controller::start().await;
    let _host = Host::start_with(&controllers.each_ref(), |parts| parts.controllers.push(gone.url()));
    gone.stop().await;
    let asked = || controllers.iter().map(|controller| controller.seen().hellos.len());
    eventually("four rounds", || asked().all(|count| count >= 4)).await;
    let mut order = Vec::new();
    for (index, controller) in controllers.iter().enumerate() {
        order.extend(controller.seen().hellos.iter().map(|(at, _)| (*at, index)));
        assert!(!controller.last_resorts().contains(&true));
    }
    order.sort_unstable();
    for round in order.chunks_exact(3).take(4) {
        assert_eq!(round.iter().map(|(_, index)| *index).collect::<BTreeSet<_>>().len(), 3, "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_refuse_and_one_is_unavailable_the_next_round_is_a_last_resort() {
    for unavailable in
        [Manner::Refuse(Code::Unavailable), Manner::EndWith(Code::Unavailable), Manner::Dismiss]
    {
        let one = Controller::start_as(unavailable).await;
        let other = Controller::start_as(Manner::Refuse(Code::PermissionDenied)).await;
        let _host = Host::start(&[&one, &other]);
        eventually("two rounds", || one.last_resorts().len() >= 2 && other.last_resorts().len() >= 2).await;
        for controller in [&one, &other] {
            assert_eq!(controller.last_resorts()[..2], [false, true], "{unavailable:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_resort_is_one_for_its_stream_only() {
    let one = Controller::start_as(Manner::LastResortOnly).await;
    let other = Controller::start_as(Manner::Refuse(Code::Unavailable)).await;
    let host = Host::start(&[&one, &other]);
    let mut stream = one.attach(LONG).await;
    host.see("203.0.113.5", "tcp/7001");
    assert_eq!(stream.observations().await.observations[0].port, 7001);
    assert_eq!(one.last_resorts(), [false, true]);
    let before = other.last_resorts().len();
    stream.dismiss();

    // All are asked properly first, and then as a last resort again.
    let mut stream = one.attach(LONG).await;
    assert_eq!(one.last_resorts(), [false, true, false, true]);
    assert!(!other.last_resorts()[before]);

    // One that is well takes the agent without.
    other.become_one(Manner::Accept);
    stream.dismiss();
    other.attach(LONG).await;
    assert_eq!(other.last_resorts().last(), Some(&false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dismissed_agent_goes_to_another_controller_without_asking_the_one_that_dismissed() {
    let controllers = [Controller::start().await, Controller::start().await, Controller::start().await];
    let host = Host::start(&controllers.each_ref());
    let (first, mut stream) = attached(&controllers).await;
    stream.dismiss();
    let (second, mut stream) = attached(&controllers).await;
    assert_ne!(first, second);
    assert_eq!(controllers[first].seen().hellos.len(), 1);
    host.see("203.0.113.5", "tcp/7001");
    assert_eq!(stream.observations().await.observations[0].port, 7001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_long_stream_too_the_controller_that_dismissed_is_asked_last() {
    let controllers = [Controller::start().await, Controller::start().await, Controller::start().await];
    // Chance would send two agents in three to another one.
    let mut agents = Vec::new();
    for _ in 0..12 {
        let host = Host::start(&controllers.each_ref());
        let (at, stream) = attached(&controllers).await;
        agents.push((host, at, stream));
    }
    tokio::time::sleep(GOOD_AFTER).await;
    let mut moved = Vec::new();
    for (_host, at, stream) in &mut agents {
        let before = controllers[*at].seen().hellos.len();
        stream.dismiss();
        moved.push(attached(&controllers).await);
        assert_eq!(controllers[*at].seen().hellos.len(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_the_controller_and_resends_are_counted() {
    let controllers = [Controller::start().await, Controller::start().await, Controller::start().await];
    let mut registry = Registry::default();
    let host = Host::start_with(&controllers.each_ref(), |parts| parts.metrics.register(&mut registry));
    let (_, mut stream) = attached(&controllers).await;
    stream.dismiss();
    let (_, mut stream) = attached(&controllers).await;
    host.see("203.0.113.5", "tcp/7001");
    stream.observations().await;
    stream.say(Kind::Resend(v1::Resend {}));
    stream.observations().await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in
        ["links_total 2", "controller_changes_total 1", "resends_total 1", "observations_resent_total 1"]
    {
        assert!(text.lines().any(|shown| shown == format!("fleetknock_agent_{line}")), "{line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_only_controller_that_dismisses_is_asked_again() {
    let controller = Controller::start().await;
    let _host = Host::start(&[&controller]);
    controller.attach(LONG).await.dismiss();
    controller.attach(LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_welcomes_only_to_dismiss_is_asked_ever_more_slowly() {
    let controller = Controller::start_as(Manner::WelcomeAndDismiss).await;
    let _host = Host::start(&[&controller]);
    eventually("six streams", || controller.seen().hellos.len() >= 6).await;
    let seen = controller.seen();
    let took = seen.hellos[5].0 - seen.hellos[0].0;
    // Half of 100, 200, 400, 800 and 1,600 ms.
    assert!(took >= Duration::from_millis(1_550), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_hangs_is_passed_over() {
    let hanging = Hanging::start().await;
    let alive = Controller::start().await;
    // Whom an agent asks first is a matter of chance.
    for _ in 0..64 {
        let host = Host::start_with(&[&alive], |parts| parts.controllers.push(hanging.url()));
        drop(alive.attach(LONG).await);
        host.stop().await.unwrap();
        if hanging.asked.load(Relaxed) > 0 {
            return;
        }
    }
    panic!("of 64 agents none asked the second controller first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_whose_machine_is_gone_is_left_though_nobody_closes_the_stream() {
    let behind = Controller::start().await;
    let wire = Wire::start(behind.address()).await;
    let host = Host::start_with(&[], |parts| parts.controllers.push(wire.url()));
    let mut stream = behind.attach(LONG).await;
    // Observations come after Welcome has come.
    host.see("203.0.113.5", "tcp/7001");
    stream.observations().await;
    wire.cut.store(true, Relaxed);
    eventually("the agent to dial again", || wire.dialled.load(Relaxed) >= 2).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_a_name_is_a_controller_and_is_called_by_that_name() {
    let (one, other) = same_port().await;
    let dns = Records::default();
    dns.set(&["127.0.0.1", "127.0.0.2"]);
    let name = format!("controllers.test:{}", one.address().port());
    one.become_one(Manner::Refuse(Code::Unavailable));
    other.become_one(Manner::Refuse(Code::Unavailable));
    let running = run(dns.link(&name));
    eventually("both to be asked", || {
        [&one, &other].iter().all(|controller| !controller.seen().hellos.is_empty())
    })
    .await;
    for controller in [&one, &other] {
        assert!(controller.seen().authorities.iter().all(|authority| *authority == name));
    }
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_moves_to_another_address_is_followed() {
    let (one, other) = same_port().await;
    let dns = Records::default();
    let running = run(dns.link(&format!("controllers.test:{}", one.address().port())));
    // At first there is no such name.
    tokio::time::sleep(Duration::from_millis(50)).await;
    dns.set(&["127.0.0.1"]);
    one.attach(LONG).await;
    dns.set(&["127.0.0.2"]);
    one.become_one(Manner::Refuse(Code::Unavailable));
    other.attach(LONG).await;
    running.abort();
}

/// The first controller to which an agent comes.
async fn attached(controllers: &[Controller; 3]) -> (usize, AgentStream) {
    let [one, other, third] = controllers;
    tokio::select! {
        stream = one.attach(LONG) => (0, stream),
        stream = other.attach(LONG) => (1, stream),
        stream = third.attach(LONG) => (2, stream),
    }
}

/// Two controllers at two addresses with one port.
async fn same_port() -> (Controller, Controller) {
    let one = Controller::start_at("127.0.0.1:0").await;
    let other = Controller::start_at(&format!("127.0.0.2:{}", one.address().port())).await;
    (one, other)
}

/// A link that does as a driver does.
fn run(mut link: Link) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut outbound = None;
        loop {
            match link.next().await {
                Event::Attached(sender) => outbound = Some(sender),
                Event::Lost => outbound = None,
                Event::Heard(message) => match message.kind {
                    Some(Kind::Welcome(_)) => link.welcomed("scripted", LONG),
                    Some(Kind::Goodbye(_)) => link.leave("goodbye", Parting::Dismissed),
                    _ => {}
                },
            }
            assert!(outbound.as_ref().is_none_or(|outbound| outbound.capacity() > 0));
        }
    })
}

/// The addresses of the one name that there is; at first it has none.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<Vec<String>>>);

impl Records {
    fn set(&self, addresses: &[&str]) {
        *self.0.lock().unwrap() = addresses.iter().map(ToString::to_string).collect();
    }

    fn link(&self, name_and_port: &str) -> Link {
        let records = Arc::clone(&self.0);
        let lookup: Lookup = Arc::new(move |_| {
            let found = records.lock().unwrap().iter().map(|address| address.parse().unwrap()).collect();
            Box::pin(async move { Ok(found) })
        });
        let url = format!("http://{name_and_port}").parse().unwrap();
        let hello = v1::Hello { host: "edge-1".into(), boot: vec![7; 16], ..v1::Hello::default() };
        Link::new(Names::with_lookup(vec![url], lookup), None, hello).unwrap()
    }
}

/// Takes connections and says nothing.
struct Hanging {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Hanging {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                held.push(connection);
                count.fetch_add(1, Relaxed);
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> fleetknock_agent::config::ControllerUrl {
        format!("http://{}", self.address).parse().unwrap()
    }
}

/// A wire to a controller that can be cut: then nothing passes any more, and nobody is told.
struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    dialled: Arc<AtomicUsize>,
}

impl Wire {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, dialled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_cut, count) = (Arc::clone(&cut), Arc::clone(&dialled));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let far = within("the controller", TcpStream::connect(to)).await.unwrap();
                let (near, far) = (Arc::new(near), Arc::new(far));
                tokio::spawn(pass(Arc::clone(&near), Arc::clone(&far), Arc::clone(&is_cut)));
                tokio::spawn(pass(far, near, Arc::clone(&is_cut)));
            }
        });
        Self { address, cut, dialled }
    }

    fn url(&self) -> fleetknock_agent::config::ControllerUrl {
        format!("http://{}", self.address).parse().unwrap()
    }
}

async fn pass(from: Arc<TcpStream>, to: Arc<TcpStream>, cut: Arc<AtomicBool>) {
    let mut buffer = [0; 4_096];
    while from.readable().await.is_ok() {
        let Ok(count) = from.try_read(&mut buffer) else { continue };
        let mut rest = &buffer[..count];
        while !rest.is_empty() && to.writable().await.is_ok() {
            if cut.load(Relaxed) {
                std::future::pending::<()>().await;
            }
            if let Ok(written) = to.try_write(rest) {
                rest = &rest[written..];
            }
        }
        if count == 0 && !cut.load(Relaxed) {
            return;
        }
    }
}
