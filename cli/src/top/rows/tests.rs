//! What stands in the lists, and in which order.

use super::*;
use crate::top::{
    model::{Seen, Update},
    sample,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_361_411_000);

#[test]
fn hosts_that_need_a_look_stand_above() {
    assert_eq!(
        texts(sample::seen(NOW.as_millis()), Pane::Hosts),
        [
            "db-1 | cut off | seen 2m15s ago",
            "edge-1 | drifting | clock -2310.0ms ±0.4ms",
            "bastion-1 | up | ",
            "edge-2 | up | ",
        ]
    );
    let mut seen = sample::seen(NOW.as_millis());
    seen.hosts[3].warnings.push("a policy drops all".to_owned());
    seen.hosts[0].clock_uncertainty_us = UNCERTAIN_US + 1;
    seen.hosts[1].last_seen_ms = 0;
    assert_eq!(
        texts(seen, Pane::Hosts),
        [
            "db-1 | cut off | never seen",
            "bastion-1 | drifting | clock +1.2ms ±100.0ms",
            "edge-1 | drifting | clock -2310.0ms ±0.4ms",
            "edge-2 | up | a policy drops all",
        ]
    );
}

#[test]
fn openings_count_down_and_say_where_they_failed() {
    assert_eq!(
        texts(sample::seen(NOW.as_millis()), Pane::Openings),
        [
            "2001:db8::5 | 14m20s | failed on bastion-1 | bastion-ssh",
            "203.0.113.9 | 14m31s | 1/2 hosts | bastion-ssh",
            "203.0.113.5 | 15m | 1/1 hosts | bastion-ssh",
        ]
    );
}

#[test]
fn progress_is_a_picture_while_it_is_short() {
    assert_eq!(progress(2, 3), "■■□ 2/3");
    assert_eq!(progress(0, 1), "□ 0/1");
    // What a controller should not say.
    assert_eq!(progress(9, 2), "■■ 9/2");
    assert_eq!(progress(3, u32::MAX), "3/4294967295");
}

#[test]
fn what_comes_from_elsewhere_does_not_steer_the_terminal() {
    let mut seen = sample::seen(NOW.as_millis());
    seen.bans.truncate(1);
    seen.bans[0].reason = "\x1b[2Jgone".to_owned();
    assert_eq!(texts(seen, Pane::Bans), ["192.0.2.66 | 9m58s | \u{fffd}[2Jgone"]);
    let mut answer = sample::explained("\x1b", NOW.as_millis());
    answer.doors[0].message = "\x07".to_owned();
    answer.caveats = vec!["\r".to_owned()];
    assert!(explained(&answer).iter().all(|line| !line.contains(char::is_control)));
}

fn texts(seen: Seen, pane: Pane) -> Vec<String> {
    let mut wall = Wall::default();
    wall.take_in(Update::Seen(Box::new(seen)), NOW);
    wall.rows(pane, NOW).iter().map(|row| row.cells.join(" | ")).collect()
}
