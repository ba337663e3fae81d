//! The store of several controllers: an etcd cluster, version 3.4 or later.
//!
//! Keys lie under `/fleetknock/FLEET/`, or another prefix; revisions are etcd's own. This file and its folder are the only place that
//! knows etcd's client.
//!
//! **Members.** One client per endpoint and a preferred one among them (`members`): a call goes to the preferred
//! member, and on failure to the next, until [`DEADLINE`]. Reads are linearizable and harmless to repeat.
//!
//! **Commits whose outcome is unknown.** A connection that breaks, or a leader that dies, leaves open whether a commit
//! took place. It is sent again only when its own expectations keep it from happening twice: when it changes a key
//! whose revision it expects. Every value carries a tag of the commit that wrote it (`codec`), so when the repetition
//! finds the expectations broken, our tag tells that the first attempt did it, and that is reported as the success it
//! was. Everything else is [`StoreError::Unavailable`], which says that the outcome is unknown; never a false conflict
//! and never a false success. One gap stays: a key that a first attempt created, and that somebody else deleted before
//! the repetition a moment later, is created again.
//!
//! **Leases** are etcd's own. A new leader begins the time of all of them anew, so they may outlast what they should. A
//! leader that others have replaced may for a moment go on keeping a lease alive that has ended: what must not happen
//! after a lease's end expects the revision of a key that is bound to it.
//!
//! **Data that was lost or restored** makes etcd's revisions begin anew; watches end then, see `history`.
//!
//! **Compaction** is the operator's, such as `--auto-compaction-retention=1h`; a watch that falls behind it ends with
//! [`StoreError::Compacted`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{GetOptions, GetResponse, KeyValue, ResponseHeader};
use tokio::time::Instant;
use tracing::warn;

use self::codec::{Codec, Tags};
use self::leasing::Ask;
use self::members::{Failure, Members};
use super::bounds::{check_key, check_prefix, check_transaction, check_ttl};
use super::{Entry, EtcdOptions, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch};

mod codec;
mod commit;
mod history;
mod leasing;
mod members;
mod watching;

/// How long a call may take, over all attempts. An election after a leader's death takes 2 to 2.5 s.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// Entries per page of a listing: with the largest values half of what a message may have.
const PAGE: i64 = 128;
/// How often a listing begins again when etcd compacts the revision it is at.
const LISTINGS_MAX: usize = 3;
/// The largest message taken from etcd. A page is at most 32 MiB; a watch that catches up gets up to 1,000 revisions at
/// once, and ends as compacted when they are more than this.
const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// A fleet's part of an etcd cluster.
#[derive(Debug)]
pub struct EtcdStore {
    members: Arc<Members>,
    codec: Codec,
    tags: Tags,
}

impl EtcdStore {
    /// Prepares clients; contacts nobody yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] for options no cluster can take.
    pub fn open(options: EtcdOptions) -> Result<Self, StoreError> {
        options.check()?;
        if options.user.is_some() && options.tls.is_none() {
            warn!("the password for etcd crosses the network in clear; use https endpoints and --etcd-ca");
        }
        let codec = Codec::new(&options.prefix, &options.fleet);
        Ok(Self { members: Arc::new(Members::new(&options)?), codec, tags: Tags::new() })
    }

    /// A range of encoded keys, whole or a page of it.
    async fn range(&self, key: &[u8], options: &GetOptions) -> Result<GetResponse, StoreError> {
        let deadline = Instant::now() + DEADLINE;
        self.members.get(key, options, deadline).await.map_err(Failure::into_store_error)
    }

    async fn pages(&self, prefix: &str) -> Result<Listing, StoreError> {
        let (mut from, end) = self.codec.range(prefix);
        let mut entries = Vec::new();
        let mut revision = None;
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            if let Some(revision) = revision {
                options = options.with_revision(revision);
            }
            let page = self.range(&from, &options).await?;
            // All pages are of the first one's revision, or the listing would be of no moment at all.
            let at = match revision {
                Some(at) => at,
                None => header_revision(page.header())?,
            };
            revision = Some(at);
            for pair in page.kvs() {
                entries.push(self.entry(pair)?);
            }
            let Some(last) = page.kvs().last().filter(|_| page.more()) else {
                return Ok(Listing { entries, revision: unsigned(at)? });
            };
            from = [last.key(), b"\0"].concat();
        }
    }

    fn entry(&self, pair: &KeyValue) -> Result<Entry, StoreError> {
        let key = self.codec.decode_key(pair.key())?.to_owned();
        let value = self.codec.decode_value(&key, pair.value())?;
        Ok(Entry { key, value, revision: unsigned(pair.mod_revision())? })
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let found = self.range(&self.codec.encode_key(key), &GetOptions::new()).await?;
        found.kvs().first().map(|pair| self.entry(pair)).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        check_prefix(prefix)?;
        for _ in 0..LISTINGS_MAX {
            let before = self.members.history().seen();
            match self.pages(prefix).await {
                // Compacted between two pages: a new listing begins at a newer revision.
                Err(StoreError::Compacted { .. }) => {}
                listing => {
                    // Pages of two histories are no listing.
                    let now = self.members.history().seen();
                    if listing.is_err() || now.generation == before.generation {
                        return listing;
                    }
                }
            }
        }
        Err(StoreError::Unavailable("etcd changes faster than it can be listed".to_owned()))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        check_transaction(&transaction)?;
        commit::commit(&self.members, &self.codec, self.tags.next(), &transaction).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        check_prefix(prefix)?;
        watching::watch(Arc::clone(&self.members), self.codec.clone(), prefix, after).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let (from, end) = self.codec.range("");
        let options = GetOptions::new().with_range(end).with_limit(1).with_keys_only();
        self.range(&from, &options).await.map(drop)
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        check_ttl(ttl)?;
        let granted = leasing::ask(&self.members, Ask::Grant(ttl)).await?;
        granted.ok_or_else(|| StoreError::Broken("etcd gave no lease".to_owned()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        Ok(leasing::ask(&self.members, Ask::KeepAlive(lease)).await?.map(|lease| lease.ttl))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        leasing::ask(&self.members, Ask::Revoke(lease)).await.map(drop)
    }
}

fn header_revision(header: Option<&ResponseHeader>) -> Result<i64, StoreError> {
    let header = header.ok_or_else(|| StoreError::Broken("etcd answered without a header".to_owned()))?;
    Ok(header.revision())
}

fn unsigned(revision: i64) -> Result<Revision, StoreError> {
    u64::try_from(revision).map_err(|_| StoreError::Broken(format!("etcd reports revision {revision}")))
}

/// etcd's number for a revision of ours; one that etcd can never reach stays unreachable.
fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
