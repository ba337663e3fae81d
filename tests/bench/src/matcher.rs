//! What the matcher costs: time per observation and bytes per source, with a million sources in flight.
//!
//! Three mixes, each from a million sources of which nearly every one is alone in its prefix, which is the dearest
//! case: spoofed first knocks, noise, and complete knocks of three steps that are all under way at once. The first two
//! go on with newcomers when the table is full, so that each evicts another. Only the matcher is timed: the
//! observations are made beforehand. Bytes are given as the matcher accounts for them, and as the process grew.

use std::{fs, io::Write, net::Ipv4Addr, time::Duration};

use anyhow::{Context, ensure};
use fleetknock_core::{
    door::{Door, DoorParts, Knock, Opens, Sequence, Step},
    host::{HostId, HostName, HostSelector, Labels},
    knock::{Observation, ObservationId},
    matcher::{Config, Decision, Matcher, READ_AHEAD},
    port::Port,
    source::Source,
    time::Timestamp,
};

/// In flight at once: just below the matcher's default limit, 2^20.
pub(crate) const SOURCES: u32 = 1_000_000;
/// Hosts of the fleet that are knocked at.
const HOSTS: u32 = 16;
/// Doors beside the one that is knocked at.
const OTHER_DOORS: u16 = 100;
/// Observations handed over at once, as many as an agent's message may carry.
pub(crate) const BATCH: usize = 4_096;
pub(crate) const STEPS: [&str; 3] = ["tcp/7412", "udp/23981", "tcp/51003"];
pub(crate) const NOISE: [&str; 2] = ["tcp/8080", "udp/5353"];

/// Runs all mixes and writes a line for each stage.
///
/// # Errors
/// When the matcher does not decide what it should, or the process's size cannot be read.
pub(crate) fn run(out: &mut dyn Write) -> anyhow::Result<()> {
    for read_ahead in [false, true] {
        let how = if read_ahead { "with" } else { "without" };
        writeln!(out, "matcher, one core, {SOURCES} sources in flight, {how} reading ahead")?;
        writeln!(
            out,
            "{:<40} {:>9} {:>11} {:>14} {:>14}",
            "", "ns each", "M each/s", "bytes/source", "RSS/source"
        )?;
        mixes(out, read_ahead)?;
    }
    Ok(())
}

fn mixes(out: &mut dyn Write, read_ahead: bool) -> anyhow::Result<()> {
    let mut first = Bench::new(read_ahead)?;
    first.stage(out, "spoofed first knocks, table filling", 0, STEPS[0])?;
    first.stage(out, "spoofed first knocks, table full", SOURCES, STEPS[0])?;
    ensure!(first.completions == 0, "a first knock opened a door of three steps");
    drop(first);
    let mut noise = Bench::new(read_ahead)?;
    noise.stage(out, "noise, table filling", 0, NOISE[0])?;
    noise.stage(out, "noise, second from each source", 0, NOISE[1])?;
    noise.stage(out, "noise, table full", SOURCES, NOISE[0])?;
    ensure!(noise.completions == 0, "noise opened a door");
    drop(noise);
    let mut knocks = Bench::new(read_ahead)?;
    for (name, step) in ["first", "second", "last"].iter().zip(STEPS) {
        knocks.stage(out, &format!("knocks of 3 steps, {name}"), 0, step)?;
    }
    ensure!(knocks.completions == SOURCES, "{} of {SOURCES} knocks opened", knocks.completions);
    Ok(())
}

/// A matcher, and a crowd that knocks.
pub(crate) struct Bench {
    pub(crate) matcher: Matcher,
    read_ahead: bool,
    stages: u32,
    pub(crate) now: Timestamp,
    counters: Vec<u64>,
    /// Observations of a stage, made before the time is taken.
    pub(crate) batch: Vec<Observation>,
    completions: u32,
    resident: usize,
}

impl Bench {
    pub(crate) fn new(read_ahead: bool) -> anyhow::Result<Self> {
        Ok(Self {
            matcher: matcher()?,
            read_ahead,
            stages: 0,
            now: Timestamp::from_millis(1_700_000_000_000),
            counters: vec![0; HOSTS as usize],
            completions: 0,
            resident: 0,
            batch: Vec::new(),
        })
    }

    /// Makes the observations of a stage: one knock from each of a million sources from this one on, a microsecond
    /// apart. Each stage takes them in an order of its own, as a crowd would.
    pub(crate) fn prepare(&mut self, from: u32, port: &str) -> anyhow::Result<()> {
        let port: Port = port.parse()?;
        // Primes that do not divide the number of sources: their multiples visit each source once.
        let stride = [7_919, 104_729, 611_953][self.stages as usize % 3];
        self.stages += 1;
        self.batch.clear();
        for number in (0..u64::from(SOURCES)).map(|nth| from + (nth * stride % u64::from(SOURCES)) as u32) {
            let observation = self.knock(number, port)?;
            self.batch.push(observation);
        }
        Ok(())
    }

    fn stage(&mut self, out: &mut dyn Write, name: &str, from: u32, port: &str) -> anyhow::Result<()> {
        self.prepare(from, port)?;
        if self.stages == 1 {
            self.resident = resident()?;
        }
        let mut decisions = Vec::with_capacity(BATCH);
        let begun = processor_time()?;
        for batch in self.batch.chunks(BATCH) {
            decisions.clear();
            for group in batch.chunks(READ_AHEAD) {
                if self.read_ahead {
                    self.matcher.read_ahead(group);
                }
                for observation in group {
                    self.matcher.observe(observation, self.now, &mut decisions);
                }
            }
            let completed =
                decisions.iter().filter(|decision| matches!(decision, Decision::Complete(_))).count();
            self.completions += u32::try_from(completed)?;
            ensure!(completed == decisions.len(), "a source was banned");
        }
        let spent = processor_time()?.saturating_sub(begun);
        let stats = self.matcher.stats();
        ensure!(stats.sources >= SOURCES, "only {} sources in flight", stats.sources);
        let in_flight = stats.sources as usize;
        let nanoseconds = spent.as_nanos() as f64 / f64::from(SOURCES);
        writeln!(
            out,
            "{name:<40} {nanoseconds:>9.0} {:>11.2} {:>14} {:>14}",
            1_000.0 / nanoseconds,
            stats.memory / in_flight,
            resident()?.saturating_sub(self.resident) / in_flight,
        )?;
        Ok(())
    }

    fn knock(&mut self, number: u32, port: Port) -> anyhow::Result<Observation> {
        self.now = self.now + Duration::from_micros(1);
        let host = number % HOSTS;
        let counter = &mut self.counters[host as usize];
        *counter += 1;
        Ok(Observation {
            id: ObservationId { host: HostId(host), boot: 1, counter: *counter },
            source: spoofed(number)?,
            port,
            time: self.now,
            uncertainty: Duration::from_millis(2),
            fingerprint: number.wrapping_mul(0x9e37_79b9) ^ u32::from(port.number()) | 1,
        })
    }
}

/// A matcher that knows the hosts and doors.
pub(crate) fn matcher() -> anyhow::Result<Matcher> {
    let mut matcher = Matcher::new(Config::default(), 0x5eed);
    let hosts =
        (0..HOSTS).map(|id| anyhow::Ok((HostId(id), format!("edge-{id}").parse::<HostName>()?, edge()?)));
    let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    matcher.set_hosts(hosts.iter().map(|(id, name, labels)| (*id, name, labels)));
    let mut doors = vec![door("knocked-at", &STEPS)?];
    for number in 0..OTHER_DOORS {
        let steps = [30_000, 40_000, 50_000].map(|from| format!("udp/{}", from + number));
        doors.push(door(&format!("other-{number}"), &steps.each_ref().map(String::as_str))?);
    }
    matcher.set_doors(&doors);
    Ok(matcher)
}

/// A unicast address, different for each number below 2^24, spread over all prefixes: the last three bytes are the
/// number times an odd constant, which permutes them.
fn spoofed(number: u32) -> anyhow::Result<Source> {
    let spread = number.wrapping_mul(0x009e_3779) & 0x00ff_ffff;
    // No address below 1.0.0.0 or above 223.255.255.255: those are not unicast.
    let address = Ipv4Addr::from(((1 + number % 223) << 24) | spread);
    Ok(Source::new(address.into())?)
}

fn edge() -> anyhow::Result<Labels> {
    Ok(Labels::new([("role".to_owned(), "edge".to_owned())])?)
}

fn door(name: &str, ports: &[&str]) -> anyhow::Result<Door> {
    let hosts = HostSelector { match_labels: edge()?, ..HostSelector::default() };
    let step = |port: &&str| anyhow::Ok(Step { hosts: hosts.clone(), port: port.parse()? });
    Ok(Door::new(DoorParts {
        name: name.parse()?,
        labels: Labels::default(),
        knock: Knock::Sequence(Sequence {
            steps: ports.iter().map(step).collect::<Result<_, _>>()?,
            within: Duration::from_secs(15),
        }),
        sources: Vec::new(),
        opens: Opens {
            hosts: HostSelector::default(),
            ports: ["tcp/22".parse()?].into(),
            duration: Duration::from_secs(30),
        },
        mode: Default::default(),
    })?)
}

/// For how long this thread has had a processor (schedstat of the kernel's scheduler statistics, first field, in
/// nanoseconds): on a shared machine the wall clock would measure the neighbours.
fn processor_time() -> anyhow::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let nanoseconds = text.split(' ').next().with_context(|| format!("{path} is empty"))?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Bytes of this process in memory (proc(5), statm: the second field, in pages of 4 KiB on the machines we build for).
fn resident() -> anyhow::Result<usize> {
    let statm = fs::read_to_string("/proc/self/statm").context("cannot read /proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).context("/proc/self/statm has no second field")?.parse()?;
    Ok(pages * 4_096)
}
