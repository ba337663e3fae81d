//! Leases of etcd: asked for, kept alive and revoked at one member after the other. All three are harmless to repeat: a
//! lease whose grant got lost ends by itself.

use std::time::Duration;

use tokio::time::Instant;

use super::DEADLINE;
use super::members::{ATTEMPT, Failure, Member, Members};
use crate::store::{Lease, LeaseId, StoreError};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// A lease of so long.
    Grant(Duration),
    /// That it begins anew.
    KeepAlive(LeaseId),
    /// That it ends.
    Revoke(LeaseId),
}

/// Asks one member after the other, until [`DEADLINE`]. Even the only member is asked anew after [`ATTEMPT`], so that an
/// answer that got lost costs no more of the lease's time than that. The lease, or nothing when it has ended.
pub(super) async fn ask(members: &Members, ask: Ask) -> Result<Option<Lease>, StoreError> {
    let deadline = Instant::now() + DEADLINE;
    let mut attempts = 0;
    loop {
        let member = members.preferred();
        match ask_member(member, ask, deadline.min(Instant::now() + ATTEMPT)).await {
            Ok(lease) => return Ok(lease),
            Err(Failure::Final(StoreError::LeaseEnded)) => return Ok(None),
            Err(failure) => {
                let moved_on = members.move_on(member, failure, &mut attempts, deadline).await;
                moved_on.map_err(Failure::into_store_error)?;
            }
        }
    }
}

async fn ask_member(member: &Member, ask: Ask, until: Instant) -> Result<Option<Lease>, Failure> {
    let mut client = member.client(until).await?.lease_client();
    match ask {
        Ask::Grant(ttl) => {
            // Whole seconds, and not less than was asked for.
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            let granted = member.within(until, client.grant(seconds, None)).await?;
            Ok(Some(lease(LeaseId(granted.id()), granted.ttl())?))
        }
        Ask::KeepAlive(id) => {
            // etcd's client keeps the first answer's time to itself, so it is asked twice.
            let twice = async {
                let (mut keeper, mut answers) = client.keep_alive(id.0).await?;
                keeper.keep_alive().await?;
                answers.message().await
            };
            match member.within(until, twice).await? {
                Some(answer) if answer.ttl() > 0 => Ok(Some(lease(id, answer.ttl())?)),
                Some(_) => Ok(None),
                None => Err(Failure::Unknown("etcd ended a call before it answered".to_owned())),
            }
        }
        Ask::Revoke(id) => member.within(until, client.revoke(id.0)).await.map(|_| None),
    }
}

fn lease(id: LeaseId, seconds: i64) -> Result<Lease, Failure> {
    match u64::try_from(seconds) {
        Ok(seconds) => Ok(Lease { id, ttl: Duration::from_secs(seconds) }),
        Err(_) => Err(Failure::Final(StoreError::Broken(format!("etcd gave a lease of {seconds} s")))),
    }
}
