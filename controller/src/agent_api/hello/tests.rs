//! A hostile Hello is refused with the field that is wrong; free texts cannot carry control characters.

use super::*;

#[test]
fn a_hello_is_parsed_into_a_record() {
    let greeting = parse(good()).unwrap();
    assert_eq!(greeting.host.as_str(), "db-1");
    assert_eq!(greeting.record.addresses, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(
        greeting.record.management.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["198.51.100.0/24"]
    );
    assert_eq!(greeting.record.version, "1[31m");
}

#[test]
fn what_is_wrong_is_named() {
    type Spoil = fn(&mut pb::Hello);
    let cases: [(Spoil, &str); 6] = [
        (|h| h.host = "Db_1".into(), "hello.host"),
        (|h| h.boot = vec![1; 15], "hello.boot"),
        (|h| h.management = vec!["nonsense".into()], "hello.management"),
        (
            |h| h.management = (0..300).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect(),
            "hello.management",
        ),
        (|h| h.addresses = vec!["1.2.3.4".into(); 1_000], "addresses"),
        (|h| _ = h.labels.insert("bad key".into(), String::new()), "hello.labels"),
    ];
    for (spoil, field) in cases {
        let mut hello = good();
        spoil(&mut hello);
        let status = parse(hello).unwrap_err();
        assert!(refuse::describe(&status).contains(field), "{field}: {status:?}");
    }
}

fn good() -> pb::Hello {
    pb::Hello {
        host: "db-1".into(),
        boot: vec![7; 16],
        version: "1\u{1b}[31m".into(),
        addresses: vec!["192.0.2.1".into(), "2001:DB8::1".into()],
        management: vec!["198.51.100.77/24".into()],
        ..pb::Hello::default()
    }
}
