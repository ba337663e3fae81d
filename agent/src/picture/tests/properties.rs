//! Any sequence of messages leads to what a model without any cleverness holds, and so does a kernel that was only ever
//! told the changes.

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Delta(Delta),
    Pass(u64),
    Snapshot(Snapshot),
}

/// Recomputes everything from lists.
#[derive(Default)]
struct Model {
    openings: Vec<(Order, Instant)>,
    bans: BTreeMap<Source, Instant>,
}

impl Model {
    fn hold(&mut self, order: &Order, now: Instant) {
        let newer = |(held, deadline): &(Order, Instant)| {
            held.id == order.id && held.generation > order.generation && *deadline > now
        };
        if !self.openings.iter().any(newer) {
            self.openings.retain(|(held, _)| held.id != order.id);
            self.openings.push((order.clone(), now + order.remaining));
        }
    }

    fn ban(&mut self, source: Source, remaining: Duration, now: Instant) {
        if !remaining.is_zero() {
            self.bans.insert(source, now + remaining);
        }
    }

    fn take(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Delta(delta) => {
                self.openings.retain(|(held, _)| !delta.withdrawn.iter().any(|(id, _)| *id == held.id));
                self.bans.retain(|source, _| !delta.unbanned.contains(source));
                delta.bans.iter().for_each(|(source, remaining)| self.ban(*source, *remaining, now));
                delta.openings.iter().for_each(|order| self.hold(order, now));
            }
            Event::Snapshot(snapshot) => {
                self.openings.retain(|(held, _)| snapshot.openings.iter().any(|order| order.id == held.id));
                self.bans.retain(|source, _| snapshot.bans.iter().any(|(banned, _)| banned == source));
                snapshot.bans.iter().for_each(|(source, remaining)| self.ban(*source, *remaining, now));
                snapshot.openings.iter().for_each(|order| self.hold(order, now));
            }
            Event::Pass(_) => {}
        }
    }

    fn elements(&self, now: Instant) -> BTreeMap<Element, Duration> {
        let mut elements: BTreeMap<Element, Duration> = BTreeMap::new();
        for (order, deadline) in self.openings.iter().filter(|(_, deadline)| *deadline > now) {
            for port in &order.ports {
                let remaining = elements.entry(Element { source: order.source, port: *port }).or_default();
                *remaining = (*remaining).max(*deadline - now);
            }
        }
        elements
    }

    fn bans(&self, now: Instant) -> BTreeMap<Source, Duration> {
        let running = self.bans.iter().filter(|(_, deadline)| **deadline > now);
        running.map(|(source, deadline)| (*source, *deadline - now)).collect()
    }
}

/// Elements with timeouts, as the kernel has them.
#[derive(Default)]
struct Kernel {
    elements: BTreeMap<Element, Instant>,
    bans: BTreeMap<Source, Instant>,
}

impl Kernel {
    fn take(&mut self, changes: &Changes, now: Instant) {
        self.elements.retain(|element, _| !changes.close.contains(element));
        self.bans.retain(|source, _| !changes.unban.contains(source));
        self.bans.extend(changes.ban.iter().map(|(source, remaining)| (*source, now + *remaining)));
        let opened = changes.open.iter().flat_map(|opened| &opened.elements);
        for (element, remaining) in changes.shorten.iter().chain(opened) {
            self.elements.insert(*element, now + *remaining);
        }
    }

    fn elements(&self, now: Instant) -> BTreeMap<Element, Duration> {
        let running = self.elements.iter().filter(|(_, deadline)| **deadline > now);
        running.map(|(element, deadline)| (*element, *deadline - now)).collect()
    }

    fn bans(&self, now: Instant) -> BTreeMap<Source, Duration> {
        let running = self.bans.iter().filter(|(_, deadline)| **deadline > now);
        running.map(|(source, deadline)| (*source, *deadline - now)).collect()
    }
}

proptest! {
    #[test]
    fn picture_and_kernel_hold_what_the_model_holds(events in vec(event(), 1..40)) {
        let mut now = Instant::now();
        let (mut picture, mut model, mut kernel) = (Picture::default(), Model::default(), Kernel::default());
        for event in events {
            model.take(&event, now);
            let changes = match event {
                Event::Delta(delta) => picture.take_delta(delta, now),
                Event::Snapshot(snapshot) => picture.take_snapshot(snapshot, now).expect("no more parts"),
                Event::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    continue;
                }
            };
            kernel.take(&changes, now);
            let desired = picture.desired(now);
            prop_assert_eq!(&desired.openings, &model.elements(now));
            prop_assert_eq!(&desired.bans, &model.bans(now));
            prop_assert_eq!(&kernel.elements(now), &desired.openings);
            prop_assert_eq!(&kernel.bans(now), &desired.bans);
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    // Whole seconds, so that an element that a reassertion leaves alone is exact to the second.
    let remaining = || (0_u64..20).prop_map(Duration::from_secs);
    let who = || (1_u8..4).prop_map(|last| source(&format!("203.0.113.{last}")));
    let id = || (0_u8..5).prop_map(|n| OpeningId::from(format!("o{n}")));
    let ports =
        || proptest::collection::btree_set(prop_oneof![Just("tcp/22"), Just("tcp/80"), Just("udp/53")], 1..3);
    let order = move || {
        (id(), 0_u64..3, who(), ports(), remaining()).prop_map(
            |(id, generation, source, ports, remaining)| Order {
                id,
                generation,
                source,
                ports: ports.into_iter().map(|port| port.parse().unwrap()).collect(),
                remaining,
            },
        )
    };
    let bans = move || vec((who(), remaining()), 0..3);
    let delta = (vec(order(), 0..4), vec((id(), any::<bool>()), 0..3), bans(), vec(who(), 0..2)).prop_map(
        |(openings, withdrawn, bans, unbanned)| {
            Event::Delta(Delta { openings, withdrawn, bans, unbanned, ..Delta::default() })
        },
    );
    let snapshot = (vec(order(), 0..6), bans(), any::<bool>()).prop_map(|(openings, bans, reassertion)| {
        Event::Snapshot(Snapshot { openings, bans, reassertion, ..Snapshot::default() })
    });
    prop_oneof![4 => delta, 2 => snapshot, 2 => (0_u64..8).prop_map(Event::Pass)]
}
