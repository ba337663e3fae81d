//! Reads the whole store: at first, and again when the watch broke. Then it must be the same store.
//!
//! A store that lost everything, such as an etcd that was set up anew, holds no doors. To take it in would take the
//! guard off every port of the fleet. So the first controller writes down who the fleet is, and one that finds another
//! identity, or none, goes on with what it knows and decides nothing until the fleet's store is back.

use std::time::Duration;

use fleetknock_proto::v1 as pb;
use fleetknock_runtime::backoff::Backoff;

use crate::{
    fleet::Fleet,
    grant,
    record::{IdentityRecord, Key, RecordError, decode},
    seal,
    shared::Shared,
    store::{Entry, Listing, Store, StoreError, Transaction, Watch},
    wire,
};

/// How often a store that is not this fleet's is looked at again.
const ANOTHER_EVERY: Duration = Duration::from_secs(2);

/// The fleet as it is in the store, for start-up: waits for a store that does not answer yet, and says so. A store that
/// holds no fleet yet becomes this one's.
///
/// # Errors
/// When waiting is of no use.
pub async fn load_patiently(store: &dyn Store) -> Result<(Fleet, Watch), StoreError> {
    let mut failures = 0;
    loop {
        match read_identified(store).await {
            Ok((listing, watch)) => {
                let (fleet, broken) = Fleet::load(listing);
                for error in &broken {
                    tracing::warn!("{error}");
                }
                refuse_unknown_doors(&broken)?;
                return Ok((fleet, watch));
            }
            Err(error) if error.is_retryable() => {
                if failures == 0 {
                    tracing::warn!(%error, "waiting for the store");
                }
                failures += 1;
                tokio::time::sleep(retry_delay(failures)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A door that cannot be read must not count as absent: that would take its guard off.
fn refuse_unknown_doors(broken: &[RecordError]) -> Result<(), StoreError> {
    let mut doors = broken.iter().filter(|error| seal::is_secret(&error.key));
    let Some(RecordError { key, reason }) = doors.next() else { return Ok(()) };
    let more = match doors.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Err(StoreError::Broken(format!(
        "'{key}'{more} cannot be read, and without it nobody knows what to guard, so this controller does not start: \
         {reason}"
    )))
}

/// The whole store again, and a watch from there, as soon as it answers and is this fleet's.
pub(super) async fn read_again(shared: &Shared) -> (Listing, Watch) {
    let ours = shared.state().fleet.identity().map(str::to_owned);
    let (mut failures, mut said) = (0, false);
    loop {
        // A store that is away is no reason to start anew: agents are here, and guard what they know.
        shared.pulses.keeper.beat();
        match read_all(&*shared.store).await {
            Ok((listing, watch)) => {
                let entry = listing.entries.iter().find(|entry| entry.key == Key::Identity.to_string());
                let Err(error) = compare(ours.as_deref(), entry) else {
                    return (listing, watch);
                };
                if !said {
                    say_another(shared, &error);
                }
                said = true;
                tokio::time::sleep(ANOTHER_EVERY).await;
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "the store does not answer; openings run on, new ones are refused");
                }
                failures += 1;
                tokio::time::sleep(retry_delay(failures)).await;
            }
        }
    }
}

/// Whether the store still is the fleet's that this controller knows.
///
/// # Errors
/// [`StoreError::Broken`] when it is not, or what the store says.
pub async fn check_identity(shared: &Shared) -> Result<(), StoreError> {
    let ours = shared.state().fleet.identity().map(str::to_owned);
    let entry = shared.store.get(&Key::Identity.to_string()).await?;
    compare(ours.as_deref(), entry.as_ref())
}

fn compare(ours: Option<&str>, entry: Option<&Entry>) -> Result<(), StoreError> {
    let theirs = entry.map(|entry| decode::<IdentityRecord>(&Key::Identity, &entry.value));
    let why = match (ours, theirs) {
        (None, _) => return Ok(()),
        (Some(ours), Some(Ok(theirs))) if theirs.id == ours => return Ok(()),
        (Some(_), Some(Ok(_))) => "it holds another fleet",
        (Some(_), Some(Err(_))) => "its identity cannot be read",
        (Some(_), None) => "it holds no fleet: it was emptied or set up anew",
    };
    Err(StoreError::Broken(format!(
        "{why}; this controller keeps every guard as it is and decides nothing: restore the store from a backup, or \
         restart all controllers to begin with what it holds now"
    )))
}

fn say_another(shared: &Shared, error: &StoreError) {
    tracing::error!("{error}");
    shared.say(wire::event(pb::EventKind::Warning, shared.now(), error.to_string()));
}

/// Reads the store, and writes down who this fleet is when that has never been done.
async fn read_identified(store: &dyn Store) -> Result<(Listing, Watch), StoreError> {
    let key = Key::Identity;
    let (listing, watch) = read_all(store).await?;
    if listing.entries.iter().any(|entry| entry.key == key.to_string()) {
        return Ok((listing, watch));
    }
    let record = IdentityRecord { id: format!("{:032x}", rand::random::<u128>()), new: true, missed: false };
    let change = grant::put(&key, &record).map_err(|refusal| StoreError::Invalid(refusal.to_string()))?;
    let transaction =
        Transaction { expect: vec![grant::expect(&key, None)], changes: vec![change], lease: None };
    match store.commit(transaction).await {
        // Another controller may have been first.
        Ok(_) | Err(StoreError::Conflict) => read_all(store).await,
        Err(error) => Err(error),
    }
}

/// Reads the whole store and a watch from there.
async fn read_all(store: &dyn Store) -> Result<(Listing, Watch), StoreError> {
    let listing = store.list("").await?;
    let watch = store.watch("", listing.revision).await?;
    Ok((listing, watch))
}

/// Between tries to read the store: 50 ms to 2 s.
fn retry_delay(failures: u32) -> Duration {
    let (least, most) = (Duration::from_millis(50), Duration::from_secs(2));
    Backoff::new(least, most, 0.5).map_or(most, |backoff| backoff.random_delay(failures))
}
