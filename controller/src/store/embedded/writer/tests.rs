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
    let mut disk = FaultyDisk { faults: vec![Some(Fault::BeforeWriting)], ..FaultyDisk::default() };
    let (requests, verdicts): (Vec<_>, Vec<_>) = [put("a", 0), put("a", 0)].into_iter().map(request).unzip();

    carry_out(&mut disk, &mirror, requests, ROOMY).unwrap_err();

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
    run(disk, &mirror, queue, ROOMY);

    assert_eq!(writes.lock().unwrap().as_slice(), [256, 44]);
    for (index, verdict) in verdicts.into_iter().enumerate() {
        assert_eq!(verdict.blocking_recv().unwrap().unwrap(), index as u64 + 1);
    }
}

/// Serves transactions one at a time, so that each is a batch of its own.
fn serve<const COUNT: usize>(
    disk: FaultyDisk,
    mirror: &Arc<Mirror>,
    transactions: [Transaction; COUNT],
) -> Vec<Result<Revision, StoreError>> {
    let (send, queue) = mpsc::channel(1);
    let shown = Arc::clone(mirror);
    let writer = thread::spawn(move || run(disk, &shown, queue, ROOMY));
    let verdicts = transactions.into_iter().map(|transaction| {
        let (request, verdict) = request(transaction);
        send.blocking_send(request).unwrap();
        verdict.blocking_recv().unwrap()
    });
    let verdicts = verdicts.collect();
    drop(send);
    writer.join().unwrap();
    verdicts
}

fn request(transaction: Transaction) -> (Request, oneshot::Receiver<Result<Revision, StoreError>>) {
    let (reply, verdict) = oneshot::channel();
    (Request { transaction, reply }, verdict)
}

fn put(key: &str, revision: Revision) -> Transaction {
    Transaction {
        expect: vec![Expect { key: key.to_owned(), revision }],
        changes: vec![Change::Put { key: key.to_owned(), value: Bytes::from_static(b"1") }],
        lease: None,
    }
}

fn nothing() -> Transaction {
    Transaction::default()
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
    fn read(&mut self) -> Result<Picture, StoreError> {
        let mirror = Mirror::new(Picture::default(), 1000);
        mirror.apply(self.durable.clone());
        let listing = mirror.list("");
        let kept = |entry: crate::store::Entry| {
            (entry.key, crate::store::mirror::Kept { value: entry.value, revision: entry.revision })
        };
        Ok(Picture::new(listing.entries.into_iter().map(kept).collect(), listing.revision))
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
