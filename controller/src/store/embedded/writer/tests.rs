//! What the writer does when the disk fails, with a disk that fails when told.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;

use super::*;
use crate::store::Expect;

const ROOMY: usize = 1 << 20;

#[test]
fn after_a_failed_write_the_mirror_shows_what_is_on_disk() {
    for (fault, revision) in [(Fault::BeforeWriting, 1), (Fault::AfterWriting, 2)] {
        let mirror = Mirror::new(Picture::default(), 100);
        let disk = FaultyDisk { faults: vec![None, Some(fault), None], ..FaultyDisk::default() };

        let verdicts = serve(disk, &mirror, [put("a", 0), put("b", 0), nothing(), put("c", 0)]);

        assert_eq!(*verdicts[0].as_ref().unwrap(), 1);
        assert!(matches!(verdicts[1], Err(StoreError::Unavailable(_))), "{fault:?}: {:?}", verdicts[1]);
        assert_eq!(*verdicts[2].as_ref().unwrap(), revision, "{fault:?}");
        assert_eq!(*verdicts[3].as_ref().unwrap(), revision + 1, "{fault:?}");
        let keys: Vec<_> = mirror.list("").entries.into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys.contains(&"b".to_owned()), fault == Fault::AfterWriting);
    }
}

#[test]
fn a_failed_write_refuses_the_whole_batch_even_its_conflicts() {
    let mirror = Mirror::new(Picture::default(), 100);
    let disk = FaultyDisk { faults: vec![Some(Fault::BeforeWriting)], ..FaultyDisk::default() };
    let (requests, verdicts): (Vec<_>, Vec<_>) = [put("a", 0), put("a", 0)].into_iter().map(request).unzip();

    Writer::new(disk, &mirror, NextEnd::new(None), ROOMY).carry_out(requests).unwrap_err();

    for verdict in verdicts {
        let verdict = verdict.blocking_recv().unwrap();
        assert!(matches!(verdict, Err(StoreError::Unavailable(_))), "{verdict:?}");
    }
    assert!(mirror.list("").entries.is_empty());
}

#[test]
fn what_waits_is_written_together_and_in_order() {
    let mirror = Mirror::new(Picture::default(), 1000);
    let (send, queue) = mpsc::channel(500);
    let (requests, verdicts): (Vec<_>, Vec<_>) = (0..300).map(|turn| request(put("a", turn))).unzip();
    for request in requests {
        send.try_send(request).unwrap();
    }
    drop(send);
    let disk = FaultyDisk::default();
    let writes = Arc::clone(&disk.writes);
    Writer::new(disk, &mirror, NextEnd::new(None), ROOMY).run(queue);

    assert_eq!(writes.lock().unwrap().as_slice(), [256, 44]);
    for (index, verdict) in verdicts.into_iter().enumerate() {
        assert_eq!(verdict.blocking_recv().unwrap().unwrap().revision, index as u64 + 1);
    }
}

#[test]
fn what_hangs_on_a_lease_goes_even_when_the_disk_fails_just_then() {
    // The first lease of a writer is number 1.
    let lease = LeaseId(1);
    let asked = || [Demand::Lease(Duration::from_secs(60)), bind("a", 0, Some(lease)), put("b", 0)];
    for fault in [Fault::BeforeWriting, Fault::AfterWriting] {
        let mirror = Mirror::new(Picture::default(), 100);
        let disk = FaultyDisk { faults: vec![None, None, Some(fault)], ..FaultyDisk::default() };
        let [grant, bind, put] = asked();
        let verdicts = serve(disk, &mirror, [grant, bind, put, Demand::Revoke(lease), nothing()]);
        assert!(matches!(verdicts[3], Err(StoreError::Unavailable(_))), "{fault:?}: {:?}", verdicts[3]);
        assert_eq!(*verdicts[4].as_ref().unwrap(), 3, "{fault:?}");
        let keys: Vec<_> = mirror.list("").entries.into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, ["b"], "{fault:?}");
    }
}

#[test]
fn a_key_whose_binding_could_not_be_written_hangs_on_nothing() {
    let lease = LeaseId(1);
    let mirror = Mirror::new(Picture::default(), 100);
    let disk = FaultyDisk { faults: vec![None, Some(Fault::BeforeWriting)], ..FaultyDisk::default() };
    let grant = Demand::Lease(Duration::from_secs(60));
    let verdicts =
        serve(disk, &mirror, [grant, put("a", 0), bind("a", 1, Some(lease)), Demand::Revoke(lease)]);
    assert!(matches!(verdicts[2], Err(StoreError::Unavailable(_))), "{:?}", verdicts[2]);
    assert_eq!(*verdicts[3].as_ref().unwrap(), 1);
    assert!(mirror.entry("a").is_some());
}

/// Serves demands one at a time, so that each is a batch of its own.
fn serve<const COUNT: usize>(
    disk: FaultyDisk,
    mirror: &Arc<Mirror>,
    demands: [Demand; COUNT],
) -> Vec<Result<Revision, StoreError>> {
    let (send, queue) = mpsc::channel(1);
    let shown = Arc::clone(mirror);
    let writer = thread::spawn(move || Writer::new(disk, &shown, NextEnd::new(None), ROOMY).run(queue));
    let verdicts = demands.into_iter().map(|demand| {
        let (request, verdict) = request(demand);
        send.blocking_send(request).unwrap();
        verdict.blocking_recv().unwrap().map(|outcome| outcome.revision)
    });
    let verdicts = verdicts.collect();
    drop(send);
    writer.join().unwrap();
    verdicts
}

fn request(demand: Demand) -> (Request, oneshot::Receiver<Verdict>) {
    Request::new(demand, Instant::now())
}

fn put(key: &str, revision: Revision) -> Demand {
    bind(key, revision, None)
}

fn bind(key: &str, revision: Revision, lease: Option<LeaseId>) -> Demand {
    Demand::Commit(Transaction {
        expect: vec![Expect { key: key.to_owned(), revision }],
        changes: vec![Change::Put { key: key.to_owned(), value: Bytes::from_static(b"1") }],
        lease,
    })
}

fn nothing() -> Demand {
    Demand::Commit(Transaction::default())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BeforeWriting,
    AfterWriting,
}

#[derive(Default)]
struct FaultyDisk {
    durable: Vec<Commit>,
    /// What goes wrong with the first write, the second and so on; later ones succeed.
    faults: Vec<Option<Fault>>,
    /// How many commits each write carried.
    writes: Arc<std::sync::Mutex<Vec<usize>>>,
}

impl Disk for FaultyDisk {
    fn read(&mut self) -> Result<Found, StoreError> {
        let mirror = Mirror::new(Picture::default(), 1000);
        mirror.apply(self.durable.clone());
        let listing = mirror.list("");
        let kept = |entry: crate::store::Entry| {
            (entry.key, crate::store::mirror::Kept { value: entry.value, revision: entry.revision })
        };
        let mut bound = BTreeMap::new();
        for commit in &self.durable {
            for change in &commit.changes().changes {
                match (change, commit.lease()) {
                    (Change::Put { key, .. }, Some(lease)) => drop(bound.insert(key.clone(), lease)),
                    (change, _) => drop(bound.remove(change.key())),
                }
            }
        }
        let picture = Picture::new(listing.entries.into_iter().map(kept).collect(), listing.revision);
        Ok(Found { picture, bound })
    }

    fn write(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let turn = self.writes.lock().unwrap().len();
        self.writes.lock().unwrap().push(commits.len());
        let fault = self.faults.get(turn).copied().flatten();
        if fault != Some(Fault::BeforeWriting) {
            self.durable.extend_from_slice(commits);
        }
        match fault {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("no space left on device".to_owned())),
        }
    }
}
