//! The state file is read back as written, and hostile contents are refused.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const SECOND_US: u64 = 1_000_000;
const NOW_US: u64 = 1_795_361_411 * SECOND_US;

#[test]
fn what_is_saved_comes_back_with_what_is_left_of_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(&directory.path().join("a/b")).unwrap();
    assert_eq!(file.load().unwrap(), None);
    let now = Instant::now();
    file.save(&Saved::of(&picture(now), now, NOW_US)).unwrap();
    let mode = fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!file.new_path().exists());

    let delta = file.load().unwrap().unwrap().into_delta(NOW_US + 10 * SECOND_US);
    assert_eq!(delta.revision, 7);
    assert_eq!(delta.guard.as_ref(), Some(picture(now).fleet_guard()));
    let left: Vec<_> = delta.openings.iter().map(|order| (&*order.id, order.remaining.as_secs())).collect();
    assert_eq!(left, [("long", 50)], "the short one is over");
    assert_eq!(delta.bans[0].1.as_secs(), 90);
}

#[test]
fn a_clock_set_back_prolongs_nothing_beyond_the_longest_opening() {
    let now = Instant::now();
    let delta = Saved::of(&picture(now), now, NOW_US).into_delta(0);
    assert!(delta.openings.iter().all(|order| order.remaining == OPEN_FOR_MAX));
}

#[test]
fn a_file_of_a_version_that_observed_nothing_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(directory.path()).unwrap();
    let now = Instant::now();
    let json = serde_json::to_string(&Saved::of(&picture(now), now, NOW_US)).unwrap();
    let former = json.replace("\"observed\":[\"tcp/80\"],", "");
    assert_ne!(former, json);
    fs::write(file.path(), &former).unwrap();
    let saved = file.load().unwrap().unwrap();
    // Nor does such a version refuse what is written while nothing is observed.
    assert_eq!(serde_json::to_string(&saved).unwrap(), former);
    let guard = saved.into_delta(NOW_US).guard.unwrap();
    assert_eq!((guard.ports.len(), guard.observed.len()), (1, 0));
}

#[test]
fn a_damaged_file_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(directory.path()).unwrap();
    let now = Instant::now();
    let good = serde_json::to_string(&Saved::of(&picture(now), now, NOW_US)).unwrap();
    for bad in [
        String::new(),
        "[]".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"format\":1", "\"format\":2"),
        good.replace("tcp/22", "tcp/0"),
        good.replace("203.0.113.5", "224.0.0.1"),
        good.replace("\"icmp\"", "\"extra\":1,\"icmp\""),
    ] {
        fs::write(file.path(), &bad).unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("remove it"), "{bad}: {error}");
    }
    fs::remove_file(file.path()).unwrap();
    symlink("/dev/zero", file.path()).unwrap();
    assert!(file.load().is_err(), "a link is not followed");
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let occupied = directory.path().join("file");
    fs::write(&occupied, "").unwrap();
    let error = StateFile::open(&occupied).unwrap_err().to_string();
    assert!(error.contains("(--state)"), "{error}");
}

#[test]
fn a_crash_while_writing_leaves_the_old() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(directory.path()).unwrap();
    let now = Instant::now();
    let saved = Saved::of(&picture(now), now, NOW_US);
    file.save(&saved).unwrap();
    fs::write(file.new_path(), "half").unwrap();
    assert_eq!(file.load().unwrap(), Some(saved.clone()));
    file.save(&saved).unwrap();
    assert_eq!(file.load().unwrap(), Some(saved));
}

fn picture(now: Instant) -> Picture {
    let mut picture = Picture::default();
    let order = |id: &str, seconds| Order {
        id: id.into(),
        generation: 3,
        source: "203.0.113.5".parse().unwrap(),
        ports: ["tcp/22".parse().unwrap()].into(),
        remaining: Duration::from_secs(seconds),
    };
    let guard = FleetGuard {
        ports: ["tcp/22".parse().unwrap()].into(),
        observed: ["tcp/80".parse().unwrap()].into(),
        knock_space: vec!["tcp/1-65535".parse().unwrap()],
        icmp: true,
        management: ["192.0.2.0/24".parse().unwrap()].into(),
    };
    let delta = Delta {
        revision: 7,
        guard: Some(guard),
        openings: vec![order("long", 60), order("short", 5)],
        bans: vec![("203.0.113.9".parse().unwrap(), Duration::from_secs(100))],
        ..Delta::default()
    };
    picture.take_delta(delta, now);
    picture
}

/// What an earlier version remembered is read, and written again as it was: a rollback finds nothing that it refuses.
#[test]
fn the_memory_of_earlier_versions_is_read_and_written_again_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released");
    let mut versions = 0;
    for version in std::fs::read_dir(folder).unwrap() {
        let path = version.unwrap().path().join("picture.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(json(&serde_json::to_string(&saved).unwrap()), json(&text), "{}", path.display());
        assert!(!saved.openings.is_empty() && !saved.bans.is_empty() && !saved.ports.is_empty());
        assert!(!saved.observed.is_empty());
        versions += 1;
    }
    assert!(versions > 0);
}
