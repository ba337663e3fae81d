//! The promises of the main job, one file each, kept by the real programs in a lab of their own.
//!
//! They wait for conditions, never for a time. They need root or `tests/scripts/in-lab`, and fail where labs cannot be
//! made.

mod p01_every_tool_opens_the_door;
mod p02_no_scan_opens_anything;
mod p03_retransmissions_open_and_wrong_knocks_do_not;
mod p04_the_kernel_closes_by_itself;
mod p05_restarts_change_nothing;
mod p06_flushed_rules_are_repaired;
mod p07_many_openings_expire_on_time;
mod p08_published_container_ports_are_guarded;
mod p09_misses_bring_a_ban;
mod p11_every_error_is_one_clear_line;
mod p12_etcd_holds_the_fleet_as_well;
mod p13_knocks_meet_across_controllers;
mod p14_a_dying_controller_loses_no_knock;
mod p15_etcd_members_die_and_return;
mod p16_a_controller_without_etcd_decides_nothing;
mod p17_one_sided_cuts_open_in_time_or_not_at_all;
mod p18_rolling_restarts_lose_no_knock;
mod p19_observe_drops_nothing_and_counts;
mod p20_unconfirmed_changes_roll_back;
mod p21_a_hardened_agent_does_its_work;
mod p22_wrong_certificates_are_refused_at_every_port;
mod p23_each_does_what_its_certificate_says;
mod p24_a_stolen_key_forges_one_hosts_steps;
mod p25_half_open_connections_and_unread_streams_hold_up_nobody;
mod p26_nothing_left_behind_tells_how_to_knock;
mod p27_explain_tells_why_it_did_not_open;
mod p28_one_trace_tells_of_a_knock;
mod p29_every_panel_and_every_alert_has_its_metrics;
mod p30_the_dashboard_shows_what_is;
mod p31_node_ports_are_guarded;
mod p32_a_backup_brings_a_lost_fleet_back;
mod p33_a_host_enrols_by_its_service_account;
mod p34_agents_spread_over_the_controllers_again;
