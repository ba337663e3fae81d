//! What a controller says, in the picture's types. Everything is hostile until it is parsed.
//!
//! One opening that cannot be understood is refused by itself and reported as failed; a guard, ban or withdrawal that
//! cannot be understood refuses the whole message, and with it the stream: half a guard is worse than the old one.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use fleetknock_core::port::{Port, Protocol};
use fleetknock_proto::{FieldError, Seen, convert, limits, v1};

use crate::{
    capture::Sighting,
    firewall::Counts,
    picture::{Delta, FleetGuard, OpeningId, Order, Refused, Snapshot},
    window::Kept,
};

/// Bytes of an opening's id.
const ID_MAX: usize = 128;
/// Guarded ports, observed ports and ranges of the knock space in one guard, of each kind.
const PORTS_MAX: usize = 4_096;
/// Ports of one opening.
const OPENING_PORTS_MAX: usize = fleetknock_core::door::OPEN_PORTS_MAX;

/// A part of a snapshot, and the openings in it that cannot be held.
///
/// # Errors
/// When anything but an opening cannot be understood, or a list is too long.
pub fn snapshot(message: v1::Snapshot) -> Result<(Snapshot, Vec<Refused>), FieldError> {
    bounded(message.openings.len(), "snapshot.openings")?;
    bounded(message.bans.len(), "snapshot.bans")?;
    let (openings, refused) = orders(message.openings);
    let part = Snapshot {
        revision: message.revision,
        guard: message.guard.map(|guard| fleet_guard(&guard, "snapshot.guard")).transpose()?,
        openings,
        bans: bans(&message.bans, "snapshot.bans")?,
        reassertion: message.reassertion,
        more: message.more,
    };
    Ok((part, refused))
}

/// A change, and the openings in it that cannot be held.
///
/// # Errors
/// As [`snapshot`].
pub fn delta(message: v1::Delta) -> Result<(Delta, Vec<Refused>), FieldError> {
    bounded(message.openings.len(), "delta.openings")?;
    bounded(message.withdrawn.len(), "delta.withdrawn")?;
    bounded(message.bans.len(), "delta.bans")?;
    bounded(message.unbanned.len(), "delta.unbanned")?;
    let (openings, refused) = orders(message.openings);
    let withdrawn = message.withdrawn.iter().map(|withdrawal| {
        Ok((opening_id(&withdrawal.id, "delta.withdrawn.id")?, withdrawal.kill_connections))
    });
    let unbanned = message.unbanned.iter().map(|text| convert::source(text, "delta.unbanned"));
    let change = Delta {
        revision: message.revision,
        guard: message.guard.map(|guard| fleet_guard(&guard, "delta.guard")).transpose()?,
        openings,
        withdrawn: withdrawn.collect::<Result<_, FieldError>>()?,
        bans: bans(&message.bans, "delta.bans")?,
        unbanned: unbanned.collect::<Result<_, _>>()?,
    };
    Ok((change, refused))
}

/// What was counted on these ports, for the wire; of the others only the first [`limits`] allow.
pub fn guard_counts(ports: impl Iterator<Item = Port>, totals: &Counts) -> Vec<v1::GuardCount> {
    let counted = ports.filter_map(|port| {
        let count = totals.get(&port)?;
        Some(v1::GuardCount { port: Some(port.into()), dropped: count.dropped, observed: count.observed })
    });
    counted.take(PORTS_MAX).collect()
}

/// A kept observation for the wire.
pub fn observation(kept: &Kept<Sighting>) -> v1::Observation {
    let Sighting { source, destination, port, time, fingerprint } = kept.seen;
    let destination = match destination {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let seen = Seen { counter: kept.counter, time, source, port, fingerprint };
    v1::Observation { destination, ..seen.into() }
}

fn bounded(length: usize, field: &str) -> Result<(), FieldError> {
    match length {
        0..=limits::OPENINGS_MAX => Ok(()),
        _ => Err(FieldError::new(field, format_args!("{length} entries, at most {}", limits::OPENINGS_MAX))),
    }
}

fn fleet_guard(message: &v1::Guard, field: &str) -> Result<FleetGuard, FieldError> {
    for (length, name) in [
        (message.ports.len(), "ports"),
        (message.observed.len(), "observed"),
        (message.knock_space.len(), "knock_space"),
    ] {
        if length > PORTS_MAX {
            let reason = format_args!("{length} entries, at most {PORTS_MAX}");
            return Err(FieldError::new(format!("{field}.{name}"), reason));
        }
    }
    let ports_of = |ports: &[v1::Port], name: &str| {
        let field = format!("{field}.{name}");
        let ports = convert::ports(ports, &field)?;
        can_be_opened(&ports).map_err(|reason| FieldError::new(field, reason))?;
        Ok::<BTreeSet<Port>, FieldError>(ports.into_iter().collect())
    };
    let ports = ports_of(&message.ports, "ports")?;
    // Whatever is guarded is guarded.
    let observed = &ports_of(&message.observed, "observed")? - &ports;
    let ranges =
        message.knock_space.iter().map(|range| convert::port_range(range, &format!("{field}.knock_space")));
    Ok(FleetGuard {
        ports,
        observed,
        knock_space: ranges.collect::<Result<_, _>>()?,
        icmp: message.icmp,
        management: convert::networks(&message.management, &format!("{field}.management"))?
            .into_iter()
            .collect(),
    })
}

fn bans(
    messages: &[v1::HostBan],
    field: &str,
) -> Result<Vec<(fleetknock_core::source::Source, Duration)>, FieldError> {
    let read = |ban: &v1::HostBan| {
        Ok((
            convert::source(&ban.source, &format!("{field}.source"))?,
            Duration::from_millis(ban.remaining_ms),
        ))
    };
    messages.iter().map(read).collect()
}

fn orders(messages: Vec<v1::HostOpening>) -> (Vec<Order>, Vec<Refused>) {
    let (mut orders, mut refused) = (Vec::with_capacity(messages.len()), Vec::new());
    for message in messages {
        match order(&message) {
            Ok(order) => orders.push(order),
            Err(error) => {
                // An id that is none cannot be answered; its beginning is shown in the log by the caller.
                let id: String = message.id.chars().take(ID_MAX).collect();
                refused.push(Refused {
                    id: id.into(),
                    generation: message.generation,
                    reason: error.to_string(),
                });
            }
        }
    }
    (orders, refused)
}

fn order(message: &v1::HostOpening) -> Result<Order, FieldError> {
    let ports = &message.ports;
    if ports.is_empty() || ports.len() > OPENING_PORTS_MAX {
        let reason = format_args!("{} ports, an opening has 1 to {OPENING_PORTS_MAX}", ports.len());
        return Err(FieldError::new("opening.ports", reason));
    }
    let ports = convert::ports(ports, "opening.ports")?;
    can_be_opened(&ports).map_err(|reason| FieldError::new("opening.ports", reason))?;
    Ok(Order {
        id: opening_id(&message.id, "opening.id")?,
        generation: message.generation,
        source: convert::source(&message.source, "opening.source")?,
        ports: ports.into_iter().collect(),
        remaining: Duration::from_millis(message.remaining_ms),
    })
}

fn can_be_opened(ports: &[Port]) -> Result<(), String> {
    match ports.iter().find(|port| port.protocol() == Protocol::Icmp) {
        Some(port) => Err(format!("{port} cannot be guarded or opened: only tcp and udp ports can")),
        None => Ok(()),
    }
}

fn opening_id(text: &str, field: &str) -> Result<OpeningId, FieldError> {
    if text.is_empty() || text.len() > ID_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(FieldError::new(
            field,
            format_args!("an id has 1 to {ID_MAX} printable ASCII characters"),
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests;
