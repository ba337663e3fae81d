//! An operator changes what the agent logs, and it goes back by itself.

use fleetknock_proto::v1::{self, controller_message::Kind};
use fleetknock_runtime::log::{Dial, Filter};

use super::{
    controller::Controller,
    host::{Host, eventually},
};
use crate::LONG;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_logs_as_it_is_told_for_as_long_as_it_is_told() {
    let controller = Controller::start().await;
    let dial = Dial::new(Filter::detached("info").unwrap(), "info");
    let own = dial.clone();
    let _host = Host::start_with(&[&controller], |parts| parts.log_dial = own);
    let mut stream = controller.attach(LONG).await;
    let order = |filter: &str, for_ms| Kind::Log(v1::LogOrder { filter: filter.to_owned(), for_ms });
    let current = || dial.current().unwrap();

    stream.say(order("fleetknock_agent=debug", 600_000));
    eventually("the new filter", || current() == "fleetknock_agent=debug").await;
    // What cannot be meant changes nothing, and ends nothing.
    stream.say(order("no=such=filter", 600_000));
    stream.say(order("", 0));
    eventually("the filter of the start", || current() == "info").await;
    stream.say(order("trace", 0));
    eventually("a filter", || current() == "trace").await;
    eventually("its end", || current() == "info").await;
}
