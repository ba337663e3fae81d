//! What the agent tells its trace collector: nothing on its own. A controller says which knocks belonged to an attempt that
//! ended, and which trace an opening is part of.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fleetknock_proto::{
    limits,
    v1::{self, HostOpeningState},
};
use fleetknock_runtime::otlp::traces::{Context, Span, Traces};

use super::Driver;

/// Orders that wait for the kernel's answer; more than a message brings are not told of.
const ORDERS_MAX: usize = limits::OPENINGS_MAX;
/// Batches of which it is remembered when they were sent; of older ones it is not told.
const BATCHES_MAX: usize = 1_024;

/// What is remembered for traces; nothing without a collector.
#[derive(Debug, Default)]
pub(super) struct Trail {
    traces: Traces,
    /// The agent's boot, as its Hello says.
    boot: Vec<u8>,
    firewall: String,
    /// By id and generation: the span of the controller that pushed it, and when it came.
    orders: HashMap<(String, u64), (Context, SystemTime)>,
    /// The first and the last counter of a batch that was sent for the first time, and when.
    sent: VecDeque<(u64, u64, SystemTime)>,
}

impl Trail {
    pub(super) fn new(traces: Traces, hello: &v1::Hello) -> Self {
        let (boot, firewall) = (hello.boot.clone(), hello.firewall.clone());
        Self { traces, boot, firewall, ..Self::default() }
    }

    /// Takes in which orders are part of a trace.
    pub(super) fn ordered(&mut self, openings: &[v1::HostOpening]) {
        if !self.traces.is_on() {
            return;
        }
        let now = SystemTime::now();
        for opening in openings.iter().filter(|opening| !opening.traceparent.is_empty()) {
            if let Ok(context) = opening.traceparent.parse()
                && self.orders.len() < ORDERS_MAX
            {
                self.orders.insert((opening.id.clone(), opening.generation), (context, now));
            }
        }
    }

    /// Says what became of such an order.
    pub(super) fn answered(&mut self, result: &v1::OpeningResult) {
        if self.orders.is_empty() {
            return;
        }
        let key = (result.id.clone(), result.generation);
        let Some((context, since)) = self.orders.remove(&key) else { return };
        let now = SystemTime::now();
        let span = Span::beneath(context, "apply", since, now)
            .with("fleetknock.opening", key.0)
            .with("fleetknock.firewall", self.firewall.clone());
        if result.state() == HostOpeningState::Applied {
            tracing::info!(trace_id = context.trace_id(), opening = result.id, "an opening is applied");
            self.traces.add(span);
        } else {
            tracing::warn!(trace_id = context.trace_id(), opening = result.id, "an opening is not applied");
            self.traces.add(span.failed(result.reason.chars().take(300).collect::<String>()));
        }
    }

    /// What the kernel is not asked for any more is answered by nobody.
    pub(super) fn forget_orders(&mut self) {
        self.orders.clear();
    }

    /// Remembers when observations were sent for the first time.
    pub(super) fn sent(&mut self, observations: &[v1::Observation]) {
        if let (true, Some(first), Some(last)) =
            (self.traces.is_on(), observations.first(), observations.last())
        {
            if self.sent.len() >= BATCHES_MAX {
                self.sent.pop_front();
            }
            self.sent.push_back((first.counter, last.counter, SystemTime::now()));
        }
    }

    fn sent_at(&self, counter: u64) -> Option<SystemTime> {
        let batch = self.sent.iter().find(|(first, last, _)| (*first..=*last).contains(&counter));
        batch.map(|(_, _, at)| *at)
    }
}

impl Driver {
    /// Tells of the knocks that belonged to an attempt. What is not understood or not kept any more is passed over: no
    /// trace is worth a stream.
    pub(super) fn trace(&self, traced: &v1::Traced) {
        let Trail { traces, boot, .. } = &self.trail;
        let Ok(context) = traced.traceparent.parse::<Context>() else { return };
        if !traces.is_on() || traced.boot != *boot || traced.counters.len() > limits::OBSERVATIONS_MAX {
            return;
        }
        let (now, system_now) = (Instant::now(), SystemTime::now());
        for kept in traced.counters.iter().filter_map(|counter| self.window.of(*counter)) {
            let captured = UNIX_EPOCH + Duration::from_micros(kept.seen.time.as_micros());
            let taken = system_now - now.saturating_duration_since(kept.since());
            traces.add(Span::beneath(context, "capture", captured, taken));
            if let Some(sent) = self.trail.sent_at(kept.counter) {
                traces.add(Span::beneath(context, "report", taken, sent));
            }
        }
    }
}
