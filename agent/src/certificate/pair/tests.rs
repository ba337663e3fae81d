//! A pair is whole at every moment.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use fleetknock_runtime::tls::{
    Credentials, Files, UriRule,
    authority::{Authority, Order, PrivateKey},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// The four files by whether they are there; contents are numbers, and equal ones fit.
type Disk = BTreeMap<&'static str, &'static str>;

#[test]
fn after_a_crash_at_any_point_the_newest_pair_that_fits_is_in_its_place() {
    const NEXT: [&str; 2] = [".a.crt.next", ".a.key.next"];
    let disk = |files: &[(&'static str, &'static str)]| -> Disk { files.iter().copied().collect() };
    let old = [("a.crt", "1"), ("a.key", "1")];
    let new = disk(&[("a.crt", "2"), ("a.key", "2")]);
    for (cut_off, after, made_good) in [
        (disk(&old), disk(&old), false),
        (disk(&[]), disk(&[]), false),
        // Asked, and no answer.
        (disk(&[old[0], old[1], (NEXT[1], "2")]), disk(&old), false),
        (disk(&[(NEXT[1], "2")]), disk(&[]), false),
        // Answered.
        (disk(&[old[0], old[1], (NEXT[1], "2"), (NEXT[0], "2")]), new.clone(), true),
        (disk(&[(NEXT[1], "2"), (NEXT[0], "2")]), new.clone(), true),
        // Between the renames, whichever of them reached the disk first.
        (disk(&[old[0], ("a.key", "2"), (NEXT[0], "2")]), new.clone(), true),
        (disk(&[("a.crt", "2"), old[1], (NEXT[1], "2")]), new.clone(), true),
        (disk(&[("a.key", "2"), (NEXT[0], "2")]), new, true),
        // Half a file.
        (disk(&[old[0], old[1], (NEXT[1], "2"), (NEXT[0], "half")]), disk(&old), false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        for (name, contents) in &cut_off {
            fs::write(directory.path().join(name), contents).unwrap();
        }
        let files = files_in(&directory);
        let same = |files: &OwnFiles| fs::read(&files.certificate).unwrap() == fs::read(&files.key).unwrap();
        assert_eq!(Pair::of(&files).recover(&files, same).unwrap(), made_good, "{cut_off:?}");
        let found: BTreeMap<String, String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        let after: BTreeMap<String, String> =
            after.iter().map(|(name, contents)| ((*name).to_owned(), (*contents).to_owned())).collect();
        assert_eq!(found, after, "{cut_off:?}");
    }
}

#[test]
fn the_key_is_for_its_owner_alone_from_the_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let files = files_in(&directory);
    let pair = Pair::of(&files);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    pair.keep_key("key").unwrap();
    assert_eq!(mode(&pair.next(&files).key), 0o600);
    pair.keep_certificate("certificate").unwrap();
    pair.commit().unwrap();
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(fs::read_to_string(&files.certificate).unwrap(), "certificate");
    // A second time over the first.
    pair.keep_key("other key").unwrap();
    pair.keep_certificate("other").unwrap();
    pair.commit().unwrap();
    assert_eq!((mode(&files.key), fs::read_to_string(&files.key).unwrap()), (0o600, "other key".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_files_never_takes_halves() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, _) = Authority::create("a CA", "x://ca", 2 * HOUR, SystemTime::now()).unwrap();
    fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
    let own = files_in(&directory);
    let pair = Pair::of(&own);
    let replace = || {
        let order = Order::client("a", "x://a", HOUR);
        let key = PrivateKey::generate().unwrap();
        let issued = authority.sign(&key.public().unwrap(), &order, SystemTime::now()).unwrap();
        pair.keep_key(key.pem()).unwrap();
        pair.keep_certificate(&issued.pem).unwrap();
        pair.commit().unwrap();
        issued.certificate.serial
    };
    replace();
    let authorities = vec![directory.path().join("ca.crt")];
    let credentials = Credentials::load(Files { own: Some(own), authorities }).unwrap();
    let stop = CancellationToken::new();
    let following = tokio::spawn(credentials.clone().follow(Duration::from_millis(2), stop.clone()));
    let serial = || credentials.current().own.as_ref().unwrap().certificate.serial.clone();
    for _ in 0..100 {
        // The follower's looks fall anywhere; ours right after is the one that counts.
        let last = tokio::task::block_in_place(replace);
        credentials.reload().unwrap();
        assert_eq!(serial(), last);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(credentials.failure(), None);
        assert_eq!(serial(), last, "what was taken is not given back");
    }
    stop.cancel();
    following.await.unwrap();
}

fn files_in(directory: &TempDir) -> OwnFiles {
    let path = |name: &str| directory.path().join(name);
    OwnFiles { certificate: path("a.crt"), key: path("a.key"), rule: UriRule::anybody() }
}
