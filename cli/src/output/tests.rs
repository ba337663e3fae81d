//! Tables and documents, letter by letter.

use fleetknock_proto::v1;

use super::*;

#[test]
fn tables_have_their_columns_below_each_other() {
    assert_eq!(
        written(|out| out.list(Format::Table, &bans())),
        "SOURCE       REMAINING  BY        REASON             AGE
203.0.113.5  9m49s      policy    10 misses in 60 s  11s
2001:db8::1  0s         operator  a\u{fffd}[2Jb\u{fffd}nasty text  1h1m
"
    );
}

#[test]
fn a_list_is_an_array_in_json_and_documents_in_yaml() {
    let json = written(|out| out.list(Format::Json, &bans()));
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read.as_array().unwrap().len(), 2);
    assert_eq!(read[0]["status"]["expires"], "2026-11-22T15:40:00.000Z");
    assert_eq!(read[0]["metadata"]["name"], "203.0.113.5");

    assert_eq!(
        written(|out| out.list(Format::Yaml, &bans()[..1])),
        "apiVersion: fleetknock.io/v1
kind: Ban
metadata:
  name: \"203.0.113.5\"
spec:
  reason: 10 misses in 60 s
status:
  by: policy
  expires: \"2026-11-22T15:40:00.000Z\"
  since: \"2026-11-22T15:30:00.000Z\"
"
    );
    assert_eq!(written(|out| out.list(Format::Yaml, &bans())).matches("---\n").count(), 1);
    let one: serde_json::Value =
        serde_json::from_str(&written(|out| out.one(Format::Json, &bans()[0]))).unwrap();
    assert_eq!(one["kind"], "Ban");
}

#[test]
fn nothing_is_an_empty_array_or_a_remark() {
    assert_eq!(written(|out| out.list::<v1::Ban>(Format::Json, &[])), "[]\n");
    let mut out = out();
    out.list::<v1::Ban>(Format::Table, &[]).unwrap();
    assert_eq!(String::from_utf8(out.err).unwrap(), "fleetknock: no bans found\n");
    assert!(out.out.is_empty());
}

#[test]
fn times_are_short_for_people() {
    let now = Timestamp::from_millis(1_795_361_411_000);
    for (seconds, wanted) in [(5, "5s"), (65, "1m5s"), (3_725, "1h2m"), (90_061, "1day1h")] {
        assert_eq!(ago(now.as_millis() - seconds * 1_000, now), wanted);
    }
    assert_eq!(ago(0, now), "-");
    assert_eq!(remaining(now + Duration::from_millis(1), now), "1s");
    assert_eq!(remaining(now, now), "0s");
    assert_eq!(time_value(0), Value::Null);
}

#[test]
fn a_reader_that_left_is_no_error() {
    let broken = || anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
    assert!(unless_reader_left(Err(broken())).is_ok());
    assert!(unless_reader_left(Err(anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound)))).is_err());
}

fn bans() -> Vec<v1::Ban> {
    vec![
        v1::Ban {
            source: "203.0.113.5".into(),
            since_ms: 1_795_361_400_000,
            expires_ms: 1_795_362_000_000,
            reason: "10 misses in 60 s".into(),
            by: "policy".into(),
        },
        v1::Ban {
            source: "2001:db8::1".into(),
            since_ms: 1_795_361_411_000 - 3_661_000,
            expires_ms: 1_795_361_411_000,
            reason: "a\u{1b}[2Jb\nnasty text".into(),
            by: "operator".into(),
        },
    ]
}

fn out() -> Out<Vec<u8>, Vec<u8>> {
    Out { out: Vec::new(), err: Vec::new(), now: || Timestamp::from_millis(1_795_361_411_000) }
}

fn written(write: impl FnOnce(&mut Out<Vec<u8>, Vec<u8>>) -> io::Result<()>) -> String {
    let mut out = out();
    write(&mut out).unwrap();
    String::from_utf8(out.out).unwrap()
}
