//! One suite of promises, run on every implementation of the store, and what is each implementation's own.
//!
//! The etcd part starts real servers on loopback: Debian's package `etcd-server`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the helpers of tests fail as tests do"
)]

#[cfg(feature = "etcd")]
mod certificates;
mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod etcd_access;
#[cfg(feature = "etcd")]
mod etcd_history;
#[cfg(feature = "etcd")]
mod etcd_server;
mod leases;
mod memory;
mod model;
mod sealed;
mod suite;
mod support;

/// Makes a test of every promise of the suite, each with a fixture of its own.
#[macro_export]
macro_rules! conformance {
    ($fixture:ty) => {
        $crate::conformance! { @ $fixture:
            reads_and_listings_show_what_was_put
            listings_are_ordered_and_keep_to_the_prefix
            a_listing_may_be_long_and_large
            a_key_is_created_once
            a_replacement_needs_the_revision_it_saw
            a_deletion_needs_the_revision_it_saw
            a_conflict_changes_nothing
            revisions_rise_and_nothing_changes_none
            a_check_without_changes_is_judged
            nobody_sees_half_a_commit
            a_read_after_a_commit_sees_it
            a_watch_begins_in_the_past_or_now
            watches_agree_with_each_other
            a_watch_keeps_to_its_prefix
            a_watch_tells_of_deletions
            a_watch_that_catches_up_takes_large_commits
            values_are_opaque
            what_is_out_of_bounds_is_refused
            concurrent_increments_lose_none
            a_key_created_by_many_has_one_winner
            random_transactions_agree_with_a_map
            what_is_bound_vanishes_when_its_lease_ends
            nobody_has_to_ask_for_the_end_of_a_lease
            a_lease_that_is_kept_alive_goes_on_and_takes_no_revision
            a_revoked_lease_ends_at_once
            a_later_put_unbinds_or_binds_anew
            an_ended_lease_binds_nothing_and_changes_nothing
            a_fence_holds_as_long_as_the_lease_and_never_again
            a_lease_is_as_long_as_asked_within_bounds
        }
    };
    (@ $fixture:ty: $($promise:ident)*) => {
        mod promises {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let fixture = <$fixture>::new().await;
                    $crate::suite::$promise(fixture.store()).await;
                }
            )*
        }
    };
}
