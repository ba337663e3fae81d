//! What is read off the fleet's copy, the sessions and the peers whenever somebody asks for metrics: nothing of it is
//! kept, so that doors, hosts and peers which are gone leave no series behind.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use fleetknock_core::door::DoorName;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use tokio::time::Instant;

use super::doors::Counts;
use crate::{
    peers::{Peers, route::Link},
    shared::{Shared, Standing},
};

/// Sees the fleet from when it is told where it is. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<OnceLock<(Weak<Shared>, Weak<Peers>)>>);

impl View {
    /// Says where the fleet is; once.
    pub fn of(&self, shared: &Arc<Shared>, peers: &Arc<Peers>) {
        let _second = self.0.set((Arc::downgrade(shared), Arc::downgrade(peers)));
    }

    fn look(&self) -> Option<Seen> {
        let (shared, peers) = self.0.get()?;
        Some(look(&*shared.upgrade()?, &*peers.upgrade()?))
    }
}

/// One look at everything.
struct Seen {
    plain: Vec<(&'static str, &'static str, u64)>,
    seconds: Vec<(&'static str, &'static str, f64)>,
    /// By host: offset and uncertainty, seconds.
    clocks: Vec<(String, f64, f64)>,
    openings: BTreeMap<String, u64>,
    doors: Vec<(DoorName, Counts)>,
    peers: BTreeMap<&'static str, u64>,
}

fn look(shared: &Shared, peers: &Peers) -> Seen {
    let now = shared.now();
    let lease = match shared.standing() {
        Standing::Serving { until, .. } => until.saturating_duration_since(Instant::now()),
        Standing::Joining | Standing::Leaving | Standing::Suspended => Duration::ZERO,
    };
    let held = u64::from(shared.fence().is_some());
    let own = (micros_as_seconds(shared.clock_offset_us()), shared.now_uncertainty().as_secs_f64());
    let committed = shared.metrics.store.committed();
    let links = peers.links();

    let state = shared.state();
    let (fleet, sessions) = (&state.fleet, &state.sessions);
    let mut openings: BTreeMap<_, u64> = fleet.doors().keys().map(|door| (door.to_string(), 0)).collect();
    for held in fleet.openings().values().filter(|held| fleet.is_effective(&held.record, now)) {
        *openings.entry(held.record.door.to_string()).or_default() += 1;
    }
    let clocks = sessions.hosts().filter_map(|host| {
        let offset = sessions.of(host)?.info.offset?;
        Some((host.to_string(), micros_as_seconds(offset.micros), offset.uncertainty.as_secs_f64()))
    });
    let bans = fleet.bans().values().filter(|held| held.record.expires > now).count();
    let plain = vec![
        ("agents_connected", "Agents connected now", sessions.len() as u64),
        ("bans_active", "Bans that hold now", bans as u64),
        ("doors", "Doors declared", fleet.doors().len() as u64),
        ("hosts", "Hosts known, connected or not", fleet.hosts().len() as u64),
        ("lease_held", "1 while this controller's lease holds", held),
        ("members", "Controllers whose leases hold", fleet.members().len() as u64),
        ("watchers_connected", "Streams of events that somebody reads now", shared.watchers() as u64),
        (
            "store_watch_lag_revisions",
            "Revisions of the store committed through this controller that its copy does not show yet",
            committed.saturating_sub(fleet.revision()),
        ),
    ];
    let clocks = clocks.collect();
    let doors = shared.metrics.doors.of(fleet.doors().keys());
    drop(state);

    let mut by_link = BTreeMap::from([("connecting", 0), ("cut", 0), ("dead", 0), ("up", 0)]);
    for link in links {
        let name = match link {
            Link::Connecting => "connecting",
            Link::Cut => "cut",
            Link::Dead => "dead",
            Link::Up => "up",
        };
        *by_link.entry(name).or_default() += 1;
    }
    let seconds = vec![
        (
            "lease_remaining",
            "How much longer this controller may decide, 0 without a lease",
            lease.as_secs_f64(),
        ),
        ("clock_offset", "The fleet's time minus the clock of this controller's machine", own.0),
        ("clock_uncertainty", "Within what the fleet's time is certain here", own.1),
    ];
    Seen { plain, seconds, clocks, openings, doors, peers: by_link }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "microseconds are shown in seconds; 2^53 of them are 285 years"
)]
fn micros_as_seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

impl Collector for View {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(seen) = self.look() else { return Ok(()) };
        for (name, help, value) in &seen.plain {
            gauge(&mut encoder, name, help, None, *value)?;
        }
        for (name, help, value) in &seen.seconds {
            gauge(&mut encoder, name, help, Some(&Unit::Seconds), *value)?;
        }
        let help = "Openings active now, by door";
        family(&mut encoder, "openings_active", help, None, "door", &seen.openings)?;
        counts(&mut encoder, &seen.doors)?;
        let help = "Other controllers, by how they can be reached";
        let peers = seen.peers.iter().map(|(link, count)| ((*link).to_owned(), *count)).collect();
        family(&mut encoder, "peers", help, None, "link", &peers)?;
        let offsets = seen.clocks.iter().map(|(host, offset, _)| (host.clone(), *offset)).collect();
        let help = "The clock of each connected host minus the fleet's time";
        family(&mut encoder, "agent_clock_offset", help, Some(&Unit::Seconds), "host", &offsets)?;
        let certain = seen.clocks.into_iter().map(|(host, _, within)| (host, within)).collect();
        let help = "Within what the offset of each connected host's clock is certain";
        family(&mut encoder, "agent_clock_uncertainty", help, Some(&Unit::Seconds), "host", &certain)
    }
}

/// What happened to openings, by door.
fn counts(encoder: &mut DescriptorEncoder<'_>, doors: &[(DoorName, Counts)]) -> fmt::Result {
    let help = "Openings granted or refreshed by this controller, by door.";
    let mut granted = encoder.encode_descriptor("openings", help, None, MetricType::Counter)?;
    for (door, counts) in doors {
        for (kind, count) in [("granted", counts.granted), ("refreshed", counts.refreshed)] {
            let labels = [("door", door.as_str()), ("kind", kind)];
            ConstCounter::new(count).encode(granted.encode_family(&labels)?)?;
        }
    }
    type Of = fn(&Counts) -> u64;
    let counted: [(&str, &str, Of); 4] = [
        (
            "openings_pushed",
            "Orders to hold an opening, sent to agents when it was granted or refreshed",
            |c| c.pushed,
        ),
        ("openings_applied", "Openings that agents connected here hold, each once", |c| c.applied),
        ("openings_failed", "Openings that agents connected here could not hold", |c| c.failed),
        ("openings_withdrawn", "Openings that this controller took back before their time", |c| c.withdrawn),
    ];
    for (name, help, of) in counted {
        let help = format!("{help}, by door.");
        let mut encoder = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
        for (door, counts) in doors {
            ConstCounter::new(of(counts)).encode(encoder.encode_family(&[("door", door.as_str())])?)?;
        }
    }
    Ok(())
}

fn gauge<N>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: N,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let encoder = encoder.encode_descriptor(name, &format!("{help}."), unit, MetricType::Gauge)?;
    ConstGauge::new(value).encode(encoder)
}

fn family<N: Copy>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    label: &str,
    values: &BTreeMap<String, N>,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let mut encoder = encoder.encode_descriptor(name, &format!("{help}."), unit, MetricType::Gauge)?;
    for (of, value) in values {
        ConstGauge::new(*value).encode(encoder.encode_family(&[(label, of.as_str())])?)?;
    }
    Ok(())
}
