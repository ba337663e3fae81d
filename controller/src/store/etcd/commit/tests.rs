//! When a commit may be sent again.

use bytes::Bytes;

use super::*;
use crate::store::Expect;

#[test]
fn only_what_its_own_expectations_keep_from_happening_twice_is_sent_again() {
    type Case = (&'static str, &'static [(&'static str, Revision)], Vec<Change>, bool);
    let cases: [Case; 8] = [
        ("a check", &[("a", 3)], vec![], true),
        ("a creation", &[("a", 0)], vec![put("a")], true),
        ("a replacement", &[("a", 3)], vec![put("a")], true),
        ("a guarded deletion", &[("a", 3)], vec![delete("a")], true),
        ("a creation with company", &[("a", 0)], vec![put("b"), put("a")], true),
        ("a blind put", &[], vec![put("a")], false),
        ("a put guarded by another key", &[("leader", 3)], vec![put("a")], false),
        ("a deletion of what is not there", &[("a", 0)], vec![delete("a")], false),
    ];
    for (name, expect, changes, repeatable) in cases {
        assert_eq!(is_repeatable(&transaction(expect, changes)), repeatable, "{name}");
    }
}

fn transaction(expect: &[(&str, Revision)], changes: Vec<Change>) -> Transaction {
    let expect = expect.iter().map(|&(key, revision)| Expect { key: key.to_owned(), revision });
    Transaction { expect: expect.collect(), changes, lease: None }
}

fn put(key: &str) -> Change {
    Change::Put { key: key.to_owned(), value: Bytes::new() }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned() }
}
