//! The firewall's thread, with a driver that does as the test says.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fleetknock_core::source::Source;

use super::*;
use crate::{
    firewall::{Counts, Guard},
    picture::OpeningId,
};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_order_is_guard_withdrawals_bans_openings() {
    let mut firewall = Recorder::default();
    let who: Source = "203.0.113.9".parse().unwrap();
    let changes = Changes {
        guard: Some(Guard::default()),
        close: vec![element(1)],
        cut: vec![element(1)],
        unban: vec![who],
        ban: vec![(who, MINUTE)],
        shorten: vec![(element(2), MINUTE)],
        open: vec![opened("o", &[3])],
        ..Changes::default()
    };
    let Outcome::Applied { results, failures, guarded } = apply(&mut firewall, changes, Instant::now())
    else {
        panic!("not applied")
    };
    assert_eq!(firewall.calls(), ["guard", "close 1", "cut 1", "unban", "ban", "open 2", "open 3"]);
    assert_eq!((results.len(), failures.len(), guarded), (1, 0, true));
}

#[test]
fn one_opening_that_fails_does_not_fail_the_others() {
    let mut firewall = Recorder { refused: Some(element(2)), ..Recorder::default() };
    let changes = Changes {
        close: vec![element(2)],
        open: vec![opened("a", &[1]), opened("b", &[2, 3]), opened("c", &[4]), opened("late", &[])],
        ..Changes::default()
    };
    let Outcome::Applied { results, .. } = apply(&mut firewall, changes, Instant::now()) else {
        panic!("not applied")
    };
    let shown: Vec<_> =
        results.iter().map(|result| (result.id.as_str(), result.state(), result.reason.is_empty())).collect();
    let (applied, failed) = (HostOpeningState::Applied, HostOpeningState::Failed);
    assert_eq!(
        shown,
        [("a", applied, true), ("b", failed, false), ("c", applied, true), ("late", failed, false)]
    );
    assert_eq!(firewall.calls(), ["close 2", "open 1 2 3 4", "open 1", "open 2 3", "open 4"]);
}

#[test]
fn a_failure_is_said_and_keeps_nothing_else_from_being_done() {
    let mut firewall = Recorder { no_guard: true, ..Recorder::default() };
    let changes =
        Changes { guard: Some(Guard::default()), open: vec![opened("a", &[1])], ..Changes::default() };
    let Outcome::Applied { results, failures, guarded } = apply(&mut firewall, changes, Instant::now())
    else {
        panic!("not applied")
    };
    assert_eq!(
        failures,
        ["cannot write the guard: not allowed to change the firewall; run the agent as root or with \
        the capability CAP_NET_ADMIN"]
    );
    assert_eq!((results[0].state(), guarded), (HostOpeningState::Applied, false));
}

#[tokio::test]
async fn what_was_given_is_done_before_the_end_however_full_the_queue() {
    let firewall = Recorder::default();
    let calls = Arc::clone(&firewall.calls);
    let mut hand = Hand::start(Box::new(firewall)).unwrap();
    let mut given = 0;
    // Nobody takes outcomes: both queues fill up, then there is no room.
    while hand.give(Task::Inspect) {
        given += 1;
        assert!(given <= 3 * TASKS_MAX, "the queue has no bound");
    }
    let outcomes = hand.finish(Some(Task::Remove)).await;
    assert!(outcomes.len() > given, "{} of {given}", outcomes.len());
    assert!(matches!(outcomes.last(), Some(Outcome::Removed(Ok(_)))));
    assert_eq!(calls.lock().unwrap().as_slice(), ["remove"]);
}

fn element(last: u8) -> Element {
    Element { source: format!("203.0.113.{last}").parse().unwrap(), port: "tcp/22".parse().unwrap() }
}

fn opened(id: &str, lasts: &[u8]) -> Opened {
    let elements = lasts.iter().map(|last| (element(*last), MINUTE)).collect();
    Opened { id: OpeningId::from(id), generation: 1, elements }
}

#[derive(Default)]
struct Recorder {
    calls: Arc<Mutex<Vec<String>>>,
    refused: Option<Element>,
    no_guard: bool,
}

impl Recorder {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, what: &str, elements: impl IntoIterator<Item = Element>) {
        let mut call = what.to_owned();
        for element in elements {
            let address = element.source.to_string();
            call.push(' ');
            call.push_str(address.rsplit('.').next().unwrap());
        }
        self.calls.lock().unwrap().push(call);
    }
}

impl Firewall for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn set_guard(&mut self, _: &Guard) -> Result<(), FirewallError> {
        self.note("guard", []);
        if self.no_guard { Err(FirewallError::Permission) } else { Ok(()) }
    }

    fn open(&mut self, openings: &[(Element, Duration)]) -> Result<(), FirewallError> {
        self.note("open", openings.iter().map(|(element, _)| *element));
        let refused = openings.iter().any(|(element, _)| Some(*element) == self.refused);
        if refused { Err(FirewallError::Permission) } else { Ok(()) }
    }

    fn close(&mut self, elements: &[Element]) -> Result<(), FirewallError> {
        self.note("close", elements.iter().copied());
        Ok(())
    }

    fn cut(&mut self, elements: &[Element]) -> Result<usize, FirewallError> {
        self.note("cut", elements.iter().copied());
        Ok(0)
    }

    fn ban(&mut self, _: &[(Source, Duration)]) -> Result<(), FirewallError> {
        self.note("ban", []);
        Ok(())
    }

    fn unban(&mut self, _: &[Source]) -> Result<(), FirewallError> {
        self.note("unban", []);
        Ok(())
    }

    fn reconcile(&mut self, _: &Desired) -> Result<Repairs, FirewallError> {
        Ok(Repairs::default())
    }

    fn counts(&mut self) -> Result<Counts, FirewallError> {
        Ok(Counts::default())
    }

    fn warnings(&mut self) -> Result<Vec<String>, FirewallError> {
        Ok(Vec::new())
    }

    fn remove(&mut self) -> Result<Vec<String>, FirewallError> {
        self.note("remove", []);
        Ok(Vec::new())
    }
}
