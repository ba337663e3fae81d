//! One certificate for each host in its time.

use super::*;

const EVERY: Duration = Duration::from_secs(600);

#[test]
fn a_host_waits_and_keeps_no_other_waiting() {
    let (mut pace, begin) = (Pace::default(), Instant::now());
    let [a, b] = ["a", "b"].map(|name| name.parse::<HostName>().unwrap());
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(pace.take(&a, at(0), EVERY), Ok(()));
    assert_eq!(pace.take(&b, at(1), EVERY), Ok(()));
    assert_eq!(pace.take(&a, at(100), EVERY), Err(Duration::from_secs(500)), "a try does not postpone it");
    assert_eq!(pace.take(&a, at(600), EVERY), Ok(()));
    assert_eq!(pace.take(&b, at(600), EVERY), Err(Duration::from_secs(1)));
}

#[test]
fn what_is_remembered_is_bounded_and_forgotten_in_time() {
    let (mut pace, begin) = (Pace::default(), Instant::now());
    let host = |number: usize| format!("h{number}").parse::<HostName>().unwrap();
    for number in 0..HOSTS_MAX {
        pace.take(&host(number), begin, EVERY).unwrap();
    }
    assert_eq!(pace.take(&host(HOSTS_MAX), begin, EVERY), Err(EVERY));
    assert_eq!(pace.last.len(), HOSTS_MAX);
    pace.take(&host(HOSTS_MAX), begin + EVERY, EVERY).unwrap();
    assert_eq!(pace.last.len(), 1);
}
