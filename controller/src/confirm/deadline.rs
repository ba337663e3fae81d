//! Carries rollbacks out: one task, which acts while its controller is the longest-serving member and holds its lease.
//!
//! While the store is away nothing happens; as soon as it is back, what is due is rolled back late rather than never: the
//! operator who could not confirm may be locked out. After a restart of all controllers the same.

use std::{sync::Arc, time::Duration};

use fleetknock_core::{door::DoorName, time::Timestamp};
use fleetknock_proto::v1 as pb;
use tokio::time::{MissedTickBehavior, interval};

use super::{Step, overdue, roll_back, withdrawn};
use crate::{
    audit,
    control_api::doors::differences,
    decide::{self, DecideError},
    fleet::Fleet,
    record::{AuditRecord, DoorRecord},
    shared::Shared,
    store::Transaction,
};

/// How often the deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Rolls back what was not confirmed in time, until the process ends.
pub async fn run(shared: Arc<Shared>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        looks.tick().await;
        let due = if is_eldest(&shared) { overdue(&shared.state().fleet, shared.now()) } else { Vec::new() };
        let mut failing = false;
        for door in due {
            if let Err(error) = carry_out(&shared, &door).await {
                // Once for as long as it lasts: it is tried again twice a second.
                if !failed && !failing {
                    tracing::warn!(%door, %error, "a change that was not confirmed cannot be rolled back yet");
                }
                failing = true;
            }
        }
        failed = failing;
    }
}

fn is_eldest(shared: &Shared) -> bool {
    shared.state().fleet.eldest() == Some(&shared.name)
}

async fn carry_out(shared: &Shared, name: &DoorName) -> Result<(), DecideError> {
    loop {
        let (step, revision) = decide::contend(shared, |at| {
            let state = shared.state();
            let Some((step, mut transaction)) = roll_back(&state.fleet, name, at)? else {
                return Ok((None, Transaction::default()));
            };
            transaction.expect.push(shared.fence().ok_or(DecideError::Suspended)?);
            audit::append(&mut transaction, &state.fleet, events(shared, &state.fleet, name, &step, at))?;
            Ok((Some(step), transaction))
        })
        .await?;
        // The next look must not find the same again.
        shared.caught_up(revision).await;
        match step {
            Some(Step::Withdrawn(_)) => {}
            None | Some(Step::Restored) => return Ok(()),
            Some(Step::Deleted) => {
                // What was opened at the same moment is found now.
                let how = withdrawn(shared.now());
                let closed = decide::close(shared, |opening| opening.door == *name, &how, None);
                return closed.await.map(drop);
            }
        }
    }
}

/// What the audit trail tells of a step: nobody did it in person, and the message says whose change it was.
fn events(shared: &Shared, fleet: &Fleet, name: &DoorName, step: &Step, at: Timestamp) -> Vec<AuditRecord> {
    let stamp = shared.stamp(at, None);
    let outcome = match step {
        Step::Withdrawn(openings) => {
            let events = openings.iter().enumerate();
            return events.map(|(number, opening)| audit::opening(opening, stamp.nth(number))).collect();
        }
        Step::Deleted => "the door, which was new, is deleted",
        Step::Restored => "the door is as it was confirmed last",
    };
    let Some(DoorRecord { door, pending: Some(pending), .. }) =
        fleet.doors().get(name).map(|held| &held.record)
    else {
        return Vec::new();
    };
    let message =
        format!("the change by {} was not confirmed in time and is rolled back: {outcome}", pending.by.who);
    let event = audit::entry(pb::EventKind::DoorRolledBack, stamp, message)
        .about_door(name)
        .with_changes(differences(Some(door), pending.before.as_ref()));
    vec![event]
}
