//! Runs targets on mutants of their corpus, in threads, and tells what broke.
//!
//! A panic ends its target, not the others. An input that takes longer than [`SLOWEST`] is told by the thread that waits:
//! whoever is stuck in it cannot be ended, so the whole run ends there. An abort, such as of a stack that is full, ends
//! the process; running one target at a time with fewer and fewer executions finds its number.

use std::{
    any::Any,
    fmt::{self, Write as _},
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::Target;

pub mod mutate;
#[cfg(test)]
mod tests;

/// The longest input, in bytes.
pub const INPUT_MAX: usize = 8 * 1024;
/// An input that takes longer is a crash: what reads it in production holds up everybody else.
pub const SLOWEST: Duration = Duration::from_secs(5);
/// The seed of a run of all tests.
pub const SEED: u64 = 0x666c_6565_746b_6e6f;
/// Executions of each target in a run of all tests, beside the files of its corpus.
pub const EXECUTIONS: u64 = 100_000;

/// Executions that a thread takes at once.
const CHUNK: u64 = 1_000;
/// How often the waiting thread looks whether somebody is stuck.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Mutants of each target.
    pub executions: u64,
    /// What they follow from.
    pub seed: u64,
    /// Threads that share the work.
    pub threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { executions: EXECUTIONS, seed: SEED, threads: 2 }
    }
}

/// A target and the inputs that its mutants come from.
#[derive(Clone, Debug)]
pub struct Work {
    /// What is run.
    pub target: Target,
    /// At least one; each is run as it is, too.
    pub corpus: Vec<Vec<u8>>,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// For each target, in the order given: inputs that were run, and the time of all threads that they took.
    pub done: Vec<(&'static str, u64, Duration)>,
    /// At most one of each target, the one with the lowest number that was met.
    pub crashes: Vec<Crash>,
}

/// An input that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Of which target.
    pub target: &'static str,
    /// Of the run.
    pub seed: u64,
    /// Which one: an entry of the corpus, or a mutant.
    pub at: Execution,
    /// What was given.
    pub input: Vec<u8>,
    /// What the panic said, or how long it took.
    pub message: String,
}

/// Names an input of a target within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Execution {
    /// An entry of the corpus, in the order of their names.
    Entry(usize),
    /// A mutant.
    Mutant(u64),
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(number) => write!(f, "entry {number} of the corpus"),
            Self::Mutant(number) => write!(f, "execution {number}"),
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, seed, at, input, message } = self;
        let mut hex = String::with_capacity(input.len() * 2);
        for byte in input {
            write!(hex, "{byte:02x}")?;
        }
        write!(f, "target {target}, seed {seed}, {at}: {message}\n  input, {} bytes: {hex}", input.len())
    }
}

impl Crash {
    /// Writes the input into a folder, which is made, and says how to run it again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, folder: &Path) -> io::Result<(PathBuf, String)> {
        fs::create_dir_all(folder)?;
        let number = match self.at {
            Execution::Entry(number) => format!("entry-{number}"),
            Execution::Mutant(number) => format!("{}-{number}", self.seed),
        };
        let file = folder.join(format!("{}-{number}", self.target));
        fs::write(&file, &self.input)?;
        let command = format!("cargo run -p fleetknock-fuzz -- replay {} {}", self.target, file.display());
        Ok((file, command))
    }
}

/// The input of one execution: the same for the same seed, target, corpus and number.
pub fn mutant(work: &Work, seed: u64, number: u64) -> Vec<u8> {
    let mut random = mutate::Random::new(seed, work.target.name, number);
    mutate::mutant(&work.corpus, work.target.dictionary, INPUT_MAX, &mut random)
}

/// Runs one input.
///
/// # Errors
/// What the panic said.
pub fn execute(target: &Target, input: &[u8]) -> Result<(), String> {
    let run = AssertUnwindSafe(|| (target.run)(input));
    catch_unwind(run).map_err(|panic| said(panic.as_ref()))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// What the threads share.
struct Shared {
    works: Vec<Work>,
    settings: Settings,
    /// The next chunk of work.
    next: AtomicUsize,
    /// For each target, whether it broke and needs no more.
    broken: Vec<AtomicBool>,
    done: Vec<AtomicU64>,
    nanoseconds: Vec<AtomicU64>,
    /// What each thread runs now, and since when.
    running: Vec<Mutex<Option<Running>>>,
}

struct Running {
    since: Instant,
    work: usize,
    at: Execution,
    input: Vec<u8>,
}

impl Shared {
    /// Chunks of one target; the first is its corpus.
    fn chunks(&self) -> usize {
        1 + usize::try_from(self.settings.executions.div_ceil(CHUNK)).unwrap_or(usize::MAX - 1)
    }

    fn thread(&self, thread: usize, crashes: &mpsc::Sender<Crash>) {
        loop {
            // All corpora come first, then the first mutants of every target.
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            let (turn, index) = (chunk / self.works.len(), chunk % self.works.len());
            if turn >= self.chunks() {
                return;
            }
            let start = Instant::now();
            if let Some(crash) = self.chunk(thread, index, turn) {
                self.broken[index].store(true, Ordering::Relaxed);
                let _ = crashes.send(crash);
            }
            let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.nanoseconds[index].fetch_add(took, Ordering::Relaxed);
        }
    }

    fn chunk(&self, thread: usize, index: usize, turn: usize) -> Option<Crash> {
        let work = &self.works[index];
        let Some(turn) = turn.checked_sub(1) else {
            let mut entries = work.corpus.iter().enumerate();
            return entries
                .find_map(|(n, entry)| self.run(thread, index, Execution::Entry(n), entry.clone()));
        };
        let first = turn as u64 * CHUNK;
        let last = first.saturating_add(CHUNK).min(self.settings.executions);
        (first..last).find_map(|number| {
            let input = mutant(work, self.settings.seed, number);
            self.run(thread, index, Execution::Mutant(number), input)
        })
    }

    fn run(&self, thread: usize, index: usize, at: Execution, input: Vec<u8>) -> Option<Crash> {
        if self.broken[index].load(Ordering::Relaxed) {
            return None;
        }
        let target = &self.works[index].target;
        let running = Running { since: Instant::now(), work: index, at, input: input.clone() };
        *lock(&self.running[thread]) = Some(running);
        let result = execute(target, &input);
        *lock(&self.running[thread]) = None;
        self.done[index].fetch_add(1, Ordering::Relaxed);
        let message = result.err()?;
        Some(Crash { target: target.name, seed: self.settings.seed, at, input, message })
    }

    /// An input that takes too long.
    fn stuck(&self) -> Option<Crash> {
        self.running.iter().find_map(|running| {
            let running = lock(running);
            let Running { since, work, at, input } = running.as_ref()?;
            let took = since.elapsed();
            (took > SLOWEST).then(|| Crash {
                target: self.works[*work].target.name,
                seed: self.settings.seed,
                at: *at,
                input: input.clone(),
                message: format!("it took more than {took:.1?}"),
            })
        })
    }

    fn outcome(&self, mut crashes: Vec<Crash>) -> Outcome {
        crashes.sort_by_key(|crash| (crash.target, crash.at));
        crashes.dedup_by_key(|crash| crash.target);
        let counted = self.works.iter().zip(&self.done).zip(&self.nanoseconds);
        let done = counted.map(|((work, done), nanoseconds)| {
            let took = Duration::from_nanos(nanoseconds.load(Ordering::Relaxed));
            (work.target.name, done.load(Ordering::Relaxed), took)
        });
        Outcome { done: done.collect(), crashes }
    }
}

/// Runs all of it. Returns when everything has been run, or somebody is stuck.
pub fn run(works: Vec<Work>, settings: Settings) -> Outcome {
    let counters = || works.iter().map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let shared = Arc::new(Shared {
        next: AtomicUsize::new(0),
        broken: works.iter().map(|_| AtomicBool::new(false)).collect(),
        done: counters(),
        nanoseconds: counters(),
        running: (0..settings.threads).map(|_| Mutex::new(None)).collect(),
        works,
        settings,
    });
    if shared.works.is_empty() {
        return Outcome::default();
    }
    let (sender, receiver) = mpsc::channel();
    for number in 0..settings.threads {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        thread::spawn(move || shared.thread(number, &sender));
    }
    // The threads hold the others: when they have all ended, so does the channel.
    drop(sender);
    let mut crashes = vec![];
    loop {
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(crash) => crashes.push(crash),
            Err(RecvTimeoutError::Disconnected) => return shared.outcome(crashes),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(crash) = shared.stuck() {
            crashes.push(crash);
            return shared.outcome(crashes);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
