//! The form of a line, rotation, and a disk that is full or slow.

use std::{fs, path::Path};

use super::*;

fn event(message: &str) -> pb::Event {
    pb::Event {
        kind: pb::EventKind::HostConnected.into(),
        time_ms: 1_700_000_000_123,
        host: "edge-1".to_owned(),
        message: message.to_owned(),
        controller: "ctl-1".to_owned(),
        ..pb::Event::default()
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn messages(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_form_of_a_line_is_stable() {
    let full = pb::Event {
        kind: pb::EventKind::DoorApplied.into(),
        time_ms: 1_700_000_000_123,
        id: "018bcfe5687b-0000002a".to_owned(),
        door: "bastion-ssh".to_owned(),
        source: "203.0.113.5".to_owned(),
        host: "edge-1".to_owned(),
        opening: "00112233".to_owned(),
        message: "door \"changed\"\nby hand".to_owned(),
        controller: "ctl-1".to_owned(),
        actor: Some(pb::Actor {
            who: "user alice".to_owned(),
            role: "admin".to_owned(),
            by: "certificate".to_owned(),
            address: "192.0.2.1:4000".to_owned(),
        }),
        changes: vec![pb::FieldChange {
            field: "spec.opens.for".to_owned(),
            before: "30s".to_owned(),
            after: "1m".to_owned(),
        }],
    };
    let text = |event| String::from_utf8(line(event)).unwrap();
    assert_eq!(
        text(&full),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123Z","id":"018bcfe5687b-0000002a","code":"DOOR_APPLIED","controller":"ctl-1","#,
            r#""actor":"user alice","role":"admin","by":"certificate","address":"192.0.2.1:4000","#,
            r#""door":"bastion-ssh","source":"203.0.113.5","host":"edge-1","opening":"00112233","#,
            r#""message":"door \"changed\"\nby hand","#,
            r#""changes":[{"field":"spec.opens.for","before":"30s","after":"1m"}]}"#,
            "\n"
        )
    );
    assert_eq!(
        text(&event("agent connected")),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123Z","code":"HOST_CONNECTED","controller":"ctl-1","host":"edge-1","#,
            r#""message":"agent connected"}"#,
            "\n"
        )
    );
}

#[test]
fn a_file_that_is_renamed_or_removed_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("audit.jsonl"), directory.path().join("audit.jsonl.1"));
    fs::write(&path, "{\"message\":\"of an earlier run\"}\n").unwrap();
    let mut log = Log::open(Target::File(path.clone())).unwrap();
    let mut write = |text: &str| {
        log.push(&event(text));
        log.write().unwrap();
    };
    write("one");
    fs::rename(&path, &old).unwrap();
    write("two");
    assert_eq!(messages(&old), ["of an earlier run", "one"]);
    assert_eq!(messages(&path), ["two"]);
    fs::remove_file(&path).unwrap();
    write("three");
    assert_eq!(messages(&path), ["three"]);
    // As logrotate's copytruncate does.
    fs::File::create(&path).unwrap();
    write("four");
    assert_eq!(messages(&path), ["four"]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o007, 0, "not for everybody");
}

#[test]
fn what_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing/audit.jsonl");
    let error = Log::open(path.to_str().unwrap().parse().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("--audit-log {} cannot be opened", path.display())), "{error}");
    assert!(Log::open(Target::File(directory.path().to_owned())).is_err(), "a directory");
    assert_eq!("-".parse(), Ok(Target::StandardOutput));
    assert!("".parse::<Target>().is_err());
}

#[test]
fn lines_wait_while_the_file_cannot_be_written_and_none_is_torn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/audit.jsonl");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let mut log = Log::open(Target::File(path.clone())).unwrap();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    log.push(&event("one"));
    let error = log.write().unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    log.push(&event("two"));
    assert_eq!(log.waiting(), 2);
    // As if the disk had been full in the middle of the second line.
    log.written = log.pending.len() - 5;
    fs::create_dir(path.parent().unwrap()).unwrap();
    log.write().unwrap();
    assert_eq!(messages(&path), ["two"], "the second line is whole in the new file");
    assert_eq!(log.waiting(), 0);
}

#[tokio::test]
async fn a_full_queue_is_counted_and_said_and_the_last_lines_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/audit.jsonl");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let log = Log::open(Target::File(path.clone())).unwrap();
    // It cannot be written until the directory is there again.
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let metrics = Metrics::default();
    let (lines_of, running) = Lines::start(log, metrics.clone()).unwrap();
    let sent = 3 * LINES_QUEUE;
    for number in 0..sent {
        lines_of.log(event(&number.to_string()));
    }
    let lost = metrics.audit_lines_lost.get();
    // What does not wait in the queue may be in the hands of the thread.
    assert!(lost as usize >= sent - LINES_QUEUE - BATCH_MAX, "{lost}");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let all = async {
        while (metrics.audit_lines.get() + lost) < sent as u64 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), all).await.unwrap();
    lines_of.log(event("the last"));
    let stop = CancellationToken::new();
    stop.cancel();
    running.until(stop).await.unwrap();
    let written = lines(&path);
    let missing: Vec<_> = written.iter().filter(|line| line["code"] == "LAGGED").collect();
    // The thread may have begun when some were lost already, and says the others later.
    assert!(matches!(missing.len(), 1 | 2), "{missing:?}");
    assert_eq!(missing[0]["controller"], "ctl-1");
    let said = missing.iter().map(|line| {
        let (count, rest) = line["message"].as_str().unwrap().split_once(' ').unwrap();
        assert!(rest.starts_with("events are missing here"), "{rest}");
        count.parse::<u64>().unwrap()
    });
    assert_eq!(said.sum::<u64>(), lost, "{missing:?}");
    assert_eq!(written.len() as u64 + lost, (sent + 1 + missing.len()) as u64, "each is written or counted");
    assert_eq!(messages(&path).last().unwrap(), "the last");
}
