//! Whether etcd still tells the history that it told before.
//!
//! An etcd that lost its data, or was restored from an older backup, counts its revisions from an earlier one again. A
//! watch from a revision that is now in the future says nothing, possibly for ever, and a revision of a commit means
//! something else than before. Two signs give it away, on answers that are linearizable: a revision below one that had
//! been seen when the question was sent, and another cluster's number. Either begins a new *generation*: every watch of
//! the one before ends with [`StoreError::Compacted`](crate::store::StoreError::Compacted), so that whoever follows the
//! store reads it anew.
//!
//! What stays hidden is a restored cluster that kept its number and has passed the revision that we know before we ask
//! it anything; `etcdutl snapshot restore --bump-revision --mark-compacted`, or a new cluster token, rule that out.

use etcd_client::ResponseHeader;
use tokio::sync::watch;
use tracing::warn;

/// What answers have told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// How often the history turned out to be another one.
    pub(super) generation: u64,
    /// The cluster's number; 0: not told yet.
    cluster: u64,
    /// The highest one of this generation.
    pub(super) revision: i64,
}

/// What all calls of one store have seen.
#[derive(Debug, Default)]
pub(super) struct History(watch::Sender<Seen>);

impl History {
    /// What was seen until now: to be taken before a question is sent.
    pub(super) fn seen(&self) -> Seen {
        *self.0.borrow()
    }

    /// Wakes at a new generation.
    pub(super) fn generations(&self) -> watch::Receiver<Seen> {
        self.0.subscribe()
    }

    /// Takes in the header of a linearizable answer. Whether it is of the same history as what was seen before the
    /// question.
    pub(super) fn take_in(&self, before: Seen, header: Option<&ResponseHeader>) -> bool {
        header.is_none_or(|header| self.take_in_parts(before, header.cluster_id(), header.revision()))
    }

    /// Whether a header that need not be the latest, such as of a member that is behind, gives a reason to ask.
    pub(super) fn is_doubtful(&self, header: Option<&ResponseHeader>) -> bool {
        header.is_some_and(|header| is_other(self.seen().cluster, header.cluster_id()))
    }

    fn take_in_parts(&self, before: Seen, cluster: u64, revision: i64) -> bool {
        let other = is_other(before.cluster, cluster);
        let same = !other && revision >= before.revision;
        self.0.send_if_modified(|seen| {
            // An answer that was on its way when somebody else found out tells nothing about this generation.
            if seen.generation != before.generation {
                return false;
            }
            if same {
                seen.revision = seen.revision.max(revision);
                if seen.cluster == 0 {
                    seen.cluster = cluster;
                }
                return false;
            }
            warn!(
                revision,
                known = before.revision,
                other_cluster = other,
                "etcd's history is not the one it was: its data was lost or restored, or its endpoints are of several \
                 clusters; reading everything anew"
            );
            *seen = Seen { generation: seen.generation + 1, cluster, revision };
            true
        });
        same
    }
}

/// A proxy may leave the number out.
fn is_other(known: u64, told: u64) -> bool {
    known != 0 && told != 0 && known != told
}

#[cfg(test)]
mod tests;
