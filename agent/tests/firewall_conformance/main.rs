//! One suite for every driver of the kernel's firewall, against the real kernel.
//!
//! Each case has network namespaces of its own, is asked of each driver, and looks at real connections as well as at
//! what the kernel lists. It needs root, and fails without.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "all of this is a test: what fails here fails the case, and measurements are printed"
)]

mod cases;
mod drivers;
mod lab;

use drivers::Driver;

macro_rules! suite {
    ($driver:ident, $kind:expr, [$($area:ident::$case:ident),* $(,)?]) => {
        mod $driver {
            $(#[test]
            fn $case() {
                crate::lab::run($kind, crate::cases::$area::$case);
            })*
        }
    };
}

macro_rules! suites {
    ($cases:tt) => {
        suite!(nftables, crate::Driver::Nftables, $cases);
        suite!(iptables_nft, crate::Driver::IptablesNft, $cases);
        suite!(iptables_legacy, crate::Driver::IptablesLegacy, $cases);
    };
}

suites!([
    openings::only_that_source_port_and_protocol,
    openings::end_in_the_kernel_with_the_driver_gone,
    openings::are_refreshed_longer_and_shorter_as_one_element,
    openings::are_closed_while_connections_live_on,
    openings::are_not_added_when_no_time_is_left,
    openings::of_udp,
    openings::three_hundred_at_once_end_in_time,
    openings::bans_close_an_open_source,
    cuts::end_established_connections,
    cuts::leave_others_and_transit_alone,
    guard::passes_loopback_and_management,
    guard::covers_broadcast_and_multicast,
    guard::covers_published_ports,
    guard::leaves_transit_alone,
    guard::never_opens_kept_ports_while_it_changes,
    guard::is_adopted_by_another_driver,
    guard::is_gone_after_remove,
    guard::is_lifted_without_any_settings,
    guard::leaves_the_rules_of_others_alone,
    observing::passes_and_counts_each_attempt,
    observing::what_is_dropped_is_counted_by_port,
    observing::does_not_count_who_may_come_in,
    observing::covers_published_ports_too,
    observing::changes_to_enforcing_and_back_disturb_no_other_door,
    observing::comes_back_when_it_was_flushed,
    observing::counts_as_many_ports_as_a_guard_has,
    repairs::what_was_flushed_or_deleted_is_put_back,
    repairs::what_is_not_ours_is_removed,
    repairs::of_wrong_times,
    repairs::of_ten_thousand_openings,
    elsewhere::an_accept_rule_lets_openings_through_default_deny,
    elsewhere::default_deny_is_warned_of,
    elsewhere::what_the_other_driver_left_is_warned_of,
    elsewhere::without_permission_it_says_so,
    elsewhere::microseconds_per_opening,
]);
