//! The dry run remembers what it was told, and forgets it by time.

use super::*;

#[test]
fn it_keeps_the_picture_and_reconciles_against_it() {
    let mut driver = DryRun::default();
    let element = Element { source: "192.0.2.1".parse().unwrap(), port: "tcp/22".parse().unwrap() };
    let mut desired = Desired::default();
    desired.guard.ports.insert(element.port);
    desired.openings.insert(element, Duration::from_secs(30));
    assert_eq!(driver.reconcile(&desired).unwrap().said.len(), 2);
    assert_eq!(driver.reconcile(&desired).unwrap(), Repairs::default());
    driver.close(&[element]).unwrap();
    assert_eq!(driver.reconcile(&desired).unwrap().said, ["1 opening was missing and has been put back"]);
    driver.remove().unwrap();
    assert_eq!(driver.reconcile(&Desired::default()).unwrap(), Repairs::default());
}

#[test]
fn openings_end_by_the_clock() {
    let mut driver = DryRun::default();
    let element = Element { source: "192.0.2.1".parse().unwrap(), port: "tcp/22".parse().unwrap() };
    driver.open(&[(element, Duration::from_millis(5))]).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(driver.reconcile(&Desired::default()).unwrap(), Repairs::default());
}
