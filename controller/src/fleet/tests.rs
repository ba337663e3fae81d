//! What a change of the store means, and that broken records are left aside.

use bytes::Bytes;

use super::*;
use crate::record::{By, encode};

#[test]
fn a_broken_record_is_left_aside_and_said() {
    let put = |key: &str, value: &'static [u8]| Change::Put {
        key: key.to_owned(),
        value: Bytes::from_static(value),
    };
    let mut fleet = Fleet::default();
    let effects = fleet.apply(Changes {
        revision: 1,
        changes: vec![
            put("doors/x", b"garbage"),
            put("strange", b""),
            Change::Delete { key: "bans/1.2.3.4".into() },
        ],
    });
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Broken(_))).count(), 2, "{effects:?}");
    assert_eq!(effects.len(), 2);
    assert!(fleet.doors().is_empty());
}

#[test]
fn a_ban_ends_by_its_time_and_by_its_deletion() {
    let source: Source = "203.0.113.5".parse().unwrap();
    let at = Timestamp::from_millis;
    let record = BanRecord { source, since: at(0), expires: at(10), reason: String::new(), by: By::Operator };
    let key = Key::Ban(source).to_string();
    let mut fleet = Fleet::default();
    let value = encode(&record).unwrap();
    let effects =
        fleet.apply(Changes { revision: 1, changes: vec![Change::Put { key: key.clone(), value }] });
    assert_eq!(effects, [Effect::Banned(record)]);
    assert!(fleet.ban(source, at(9)).is_some());
    assert!(fleet.ban(source, at(10)).is_none());
    assert_eq!(
        fleet.apply(Changes { revision: 2, changes: vec![Change::Delete { key }] }),
        [Effect::Unbanned(source)]
    );
    assert_eq!(fleet.revision(), 2);
}
