//! Carries a restore out: doors one transaction each, so that the guard of each is the old or the new one at any moment;
//! everything else in batches. It may be broken off between two of them, and be made again.

use std::{sync::Arc, time::Duration};

use fleetknock_core::time::Timestamp;
use fleetknock_proto::{status as refuse, v1 as pb};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    file::{Backup, Header},
    plan::{Options, Step, Target, Targets, targets},
    records::Records,
};
use crate::{
    agent_api::hello::HOSTS_MAX,
    audit,
    control_api::{
        decided,
        doors::{DOORS_MAX, differences},
        tokens::TOKENS_MAX,
    },
    decide::{self, DecideError},
    fleet::Fleet,
    grant::{self, BANS_MAX},
    record::{Actor, AuditRecord, IdentityRecord, Key, Withdrawn},
    shared::Shared,
    store::Transaction,
    wire,
};

/// Records of one transaction, doors aside, and their bytes: with the events that give way they stay below the store's
/// bounds.
const BATCH_MAX: usize = 50;
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// How long the caller may take to hear what is said.
pub const HEAR_MAX: Duration = Duration::from_secs(30);

/// Where a restore tells how far it is.
pub type Tell = mpsc::Sender<Result<pb::RestoreProgress, Status>>;

/// Somebody restores.
#[derive(Debug)]
pub struct Restore {
    /// How.
    pub options: pb::RestoreOptions,
    /// By whose hand.
    pub actor: Actor,
}

impl Restore {
    /// Restores a backup, or says what that would do.
    ///
    /// # Errors
    /// When the backup is not for this fleet or cannot be read here; or what the store says. Nothing has been changed before
    /// everything was read.
    pub async fn run(&self, shared: &Arc<Shared>, backup: Backup, tell: &Tell) -> Result<(), Status> {
        let Backup { header, .. } = &backup;
        self.check_fleet(shared, header)?;
        let records = Records::of(&backup, |key, value| shared.store.open_value(key, value));
        let records = records.map_err(|error| refuse::invalid("file", error.to_string()))?;
        let options = Options { replace: self.options.replace, tokens: self.options.tokens };
        let management = |source| shared.is_management(source);
        let managed: std::collections::BTreeSet<_> =
            records.bans.keys().copied().filter(|source| management(*source)).collect();
        let (planned, steps) = {
            let (state, at) = (shared.state(), shared.now());
            check_room(&state.fleet, &records, options, at)?;
            let planned = targets(&records, &state.fleet, options, at, |source| managed.contains(&source));
            let steps: Result<Vec<_>, _> =
                planned.targets.iter().map(|target| target.step(&state.fleet, at)).collect();
            (planned, steps.map_err(|error| Status::internal(error.to_string()))?)
        };
        let total = records.len() - planned.left_out;
        let mut summary = summary(header, &planned, &steps, total);
        for step in steps.into_iter().flatten() {
            if let Some(change) = told(&step) {
                say(tell, pb::restore_progress::Progress::Change(change)).await?;
            }
        }
        if !self.options.dry_run {
            self.event(shared, &began(header)).await?;
            self.write(shared, &planned.targets, tell).await?;
            self.settle(shared, header, &summary).await?;
        } else if self.is_to_settle(&shared.state().fleet) {
            summary
                .remarks
                .push("agents that keep guard for the earlier store would be let in at the end".to_owned());
        }
        say(tell, pb::restore_progress::Progress::Summary(summary)).await
    }

    /// Takes the store for the fleet's as it is.
    ///
    /// # Errors
    /// What the store says.
    pub async fn begin_anew(&self, shared: &Arc<Shared>, tell: &Tell) -> Result<(), Status> {
        let mut summary = pb::RestoreSummary::default();
        if !self.is_to_settle(&shared.state().fleet) {
            let remark = "nothing to do: no agent is kept away from this store";
            summary.remarks.push(remark.to_owned());
        } else {
            // The record of whose store it is.
            summary.changed = 1;
            if !self.options.dry_run {
                let message = "the fleet begins anew with what the store holds, without a backup";
                self.identify(shared, None, message).await?;
            }
        }
        say(tell, pb::restore_progress::Progress::Summary(summary)).await
    }

    fn check_fleet(&self, shared: &Shared, header: &Header) -> Result<(), Status> {
        if header.fleet != shared.fleet_name {
            let ours = &shared.fleet_name;
            let reason = format!(
                "it is a backup of another fleet than this one, '{ours}'; ask a controller of that fleet"
            );
            return Err(refuse::precondition("fleet", &header.fleet, reason));
        }
        let state = shared.state();
        let ours = state.fleet.identity_record();
        let fits = ours.is_none_or(|held| held.record.new || held.record.id == header.store);
        if fits || self.options.another_store {
            return Ok(());
        }
        let reason = "it is a backup of another store of a fleet of this name; if it is this fleet's all the same, give \
                      --another-store";
        Err(refuse::precondition("fleet", &header.fleet, reason))
    }

    /// Whether the store is still to be taken for the fleet's.
    fn is_to_settle(&self, fleet: &Fleet) -> bool {
        fleet.identity_record().is_none_or(|held| held.record.new)
    }

    async fn write(&self, shared: &Shared, targets: &[Target], tell: &Tell) -> Result<(), Status> {
        let mut done = 0;
        let mut rest = targets;
        while let Some(first) = rest.first() {
            let written = match first {
                Target::Door(_) | Target::NoDoor(_) => 1,
                _ => batch(rest),
            };
            let (batch, after) = rest.split_at(written);
            rest = after;
            match first {
                Target::Door(_) | Target::NoDoor(_) => self.write_door(shared, first).await?,
                _ => self.write_batch(shared, batch).await?,
            }
            done += u32::try_from(written).unwrap_or(u32::MAX);
            say(tell, pb::restore_progress::Progress::Done(done)).await?;
        }
        Ok(())
    }

    /// The door and the event that tells of it; of one that goes, its openings after it.
    async fn write_door(&self, shared: &Shared, target: &Target) -> Result<(), Status> {
        let made = decide::contend(shared, |at| {
            let state = shared.state();
            let Some(step) = target.step(&state.fleet, at)? else {
                return Ok((None, Transaction::default()));
            };
            let Key::Door(name) = &step.key else { return Ok((None, Transaction::default())) };
            let before = state.fleet.doors().get(name).map(|held| &held.record.door);
            let (kind, message, after) = match target {
                Target::Door(record) if before.is_none() => {
                    (pb::EventKind::DoorApplied, "door created from a backup", Some(&record.door))
                }
                Target::Door(record) => {
                    (pb::EventKind::DoorApplied, "door changed to what a backup holds", Some(&record.door))
                }
                _ => (
                    pb::EventKind::DoorDeleted,
                    "door deleted: it is not in the backup that is restored",
                    None,
                ),
            };
            let event = audit::entry(kind, shared.stamp(at, Some(&self.actor)), message).about_door(name);
            let event = event.with_changes(differences(before, after));
            let removed = after.is_none().then(|| name.clone());
            let mut transaction = Transaction {
                expect: vec![grant::expect(&step.key, step.expect)],
                changes: vec![step.change],
                lease: None,
            };
            audit::append(&mut transaction, &state.fleet, [event])?;
            Ok((removed, transaction))
        });
        let (removed, revision) = decided(shared, made.await)?;
        shared.caught_up(revision).await;
        let Some(name) = removed else { return Ok(()) };
        let how = Withdrawn {
            at: shared.now(),
            reason: "the door was deleted".to_owned(),
            kill_connections: false,
        };
        let closed = decide::close(shared, |opening| opening.door == name, &how, Some(&self.actor)).await;
        decided(shared, closed).map(drop)
    }

    async fn write_batch(&self, shared: &Shared, targets: &[Target]) -> Result<(), Status> {
        let made = decide::contend(shared, |at| {
            let state = shared.state();
            let mut transaction = Transaction::default();
            for target in targets {
                if let Some(step) = target.step(&state.fleet, at)? {
                    transaction.expect.push(grant::expect(&step.key, step.expect));
                    transaction.changes.push(step.change);
                }
            }
            Ok(((), transaction))
        });
        let ((), revision) = decided(shared, made.await)?;
        shared.caught_up(revision).await;
        Ok(())
    }

    /// Says that it is done, and lets those agents in that were kept away.
    async fn settle(
        &self,
        shared: &Shared,
        header: &Header,
        summary: &pb::RestoreSummary,
    ) -> Result<(), Status> {
        let pb::RestoreSummary { added, changed, removed, events, .. } = summary;
        let message = format!(
            "the backup of {} was restored: {added} records added, {changed} changed, {removed} removed, and {events} events",
            header.made
        );
        self.identify(shared, Some(&header.store), &message).await
    }

    async fn identify(&self, shared: &Shared, store: Option<&str>, message: &str) -> Result<(), Status> {
        let made = decide::contend(shared, |at| {
            let state = shared.state();
            let mut transaction = Transaction::default();
            if self.is_to_settle(&state.fleet) {
                let held = state.fleet.identity_record();
                let own = held.map(|held| held.record.id.clone());
                // Controllers that still run and know the earlier store find it again.
                let id = store.filter(|id| !id.is_empty()).map(str::to_owned).or(own).unwrap_or_default();
                transaction.expect.push(grant::expect(&Key::Identity, held.map(|held| held.revision)));
                let record = IdentityRecord { id, new: false, missed: false };
                transaction.changes.push(grant::put(&Key::Identity, &record)?);
            }
            let event = self.entry(shared, at, message);
            audit::append(&mut transaction, &state.fleet, [event])?;
            Ok(((), transaction))
        });
        let ((), revision) = decided(shared, made.await)?;
        shared.caught_up(revision).await;
        Ok(())
    }

    async fn event(&self, shared: &Shared, message: &str) -> Result<(), Status> {
        let written = audit::write(shared, |at| self.entry(shared, at, message));
        let revision = decided(shared, written.await)?;
        shared.caught_up(revision).await;
        Ok(())
    }

    fn entry(&self, shared: &Shared, at: Timestamp, message: &str) -> AuditRecord {
        audit::entry(pb::EventKind::BackupRestored, shared.stamp(at, Some(&self.actor)), message)
    }
}

fn began(header: &Header) -> String {
    let records = wire::counted(header.records, "record", "records");
    format!("restoring the backup of {} with {records}", header.made)
}

/// How many of these go into one transaction.
fn batch(targets: &[Target]) -> usize {
    let mut bytes = 0;
    let size = |target: &Target| match target {
        Target::Event(event) => {
            event.message.len() + event.changes.iter().map(|c| c.before.len() + c.after.len()).sum::<usize>()
        }
        Target::Host(host) => host.addresses.len() * 64 + host.management.len() * 64,
        _ => 0,
    };
    let fits = targets.iter().take(BATCH_MAX).take_while(|target| {
        // Escaped, with the names of all fields.
        bytes += 2 * size(target) + 2_048;
        bytes <= BATCH_BYTES_MAX
    });
    fits.count().max(1)
}

/// Refuses what would bring the fleet above its limits.
fn check_room(fleet: &Fleet, records: &Records, options: Options, at: Timestamp) -> Result<(), Status> {
    let more = |what: &'static str, limit: usize, now: usize, new: usize| {
        if now + new <= limit {
            return Ok(());
        }
        let error = DecideError::Full { what, limit };
        Err(Status::resource_exhausted(format!("restoring adds {new} {what}, and {error}")))
    };
    let kept = |is_kept: bool, count: usize| if is_kept { count } else { 0 };
    let Records { doors, hosts, bans, tokens, .. } = records;
    let new = doors.keys().filter(|name| !fleet.doors().contains_key(*name)).count();
    let known = doors.len() - new;
    more("doors", DOORS_MAX, if options.replace { known } else { fleet.doors().len() }, new)?;
    let new = hosts.keys().filter(|name| !fleet.hosts().contains_key(*name)).count();
    more("hosts", HOSTS_MAX, fleet.hosts().len(), new)?;
    let new = bans.iter().filter(|(source, ban)| ban.expires > at && !fleet.bans().contains_key(*source));
    more("bans", BANS_MAX, fleet.bans().len(), new.count())?;
    let new = tokens.keys().filter(|id| !fleet.tokens().contains_key(*id)).count();
    more("tokens", TOKENS_MAX, fleet.tokens().len(), kept(options.tokens, new))
}

fn summary(header: &Header, planned: &Targets, steps: &[Option<Step>], total: usize) -> pb::RestoreSummary {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let is_event = |step: &&Step| matches!(step.key, Key::Audit(_));
    let of = |action| number(steps.iter().flatten().filter(|s| !is_event(s) && s.action == action).count());
    let events = steps.iter().flatten().filter(is_event).count();
    let (added, changed) = (of(pb::RestoreAction::Add), of(pb::RestoreAction::Change));
    let written = events + usize::try_from(added.saturating_add(changed)).unwrap_or(usize::MAX);
    pb::RestoreSummary {
        made_ms: header.made.as_millis(),
        version: header.version.clone(),
        added,
        changed,
        removed: of(pb::RestoreAction::Remove),
        events: number(events),
        unchanged: number(total.saturating_sub(written)),
        left_out: number(planned.left_out),
        remarks: planned.remarks.clone(),
    }
}

fn told(step: &Step) -> Option<pb::RestoreChange> {
    let (kind, name) = match &step.key {
        Key::Ban(source) => ("ban", source.to_string()),
        Key::Door(name) => ("door", name.to_string()),
        Key::Host(name) => ("host", name.to_string()),
        Key::Token(id) => ("token", id.to_string()),
        _ => return None,
    };
    Some(pb::RestoreChange {
        action: step.action.into(),
        kind: kind.to_owned(),
        name,
        note: step.note.clone(),
    })
}

async fn say(tell: &Tell, progress: pb::restore_progress::Progress) -> Result<(), Status> {
    let told = tell.send_timeout(Ok(pb::RestoreProgress { progress: Some(progress) }), HEAR_MAX).await;
    told.map_err(|_| {
        Status::cancelled("whoever restores does not hear what is said; the restore is broken off")
    })
}
