//! From the last knock until a connect to the opened port succeeds: the same prober for all, rounds interleaved, a fresh
//! source in each round so that nothing has to be closed in between.

use std::{
    collections::VecDeque,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use fleetknock_lab::{Host, Lab, knock::shoot};

use crate::{
    contender::{self, Contender},
    report::{Row, table},
};

/// Rounds that count, and those before them that warm up.
const ROUNDS: u8 = 41;
const WARM_UP: u8 = 3;
/// Between two knocks: keeps them in order for those that look at every packet by itself.
const PAUSE: Duration = Duration::from_millis(5);
/// Before a knock: between nothing and this, another time in each round, so that those that poll are met at every phase.
const PHASES_MS: u64 = 61;
/// Between two connects of the prober.
const PROBE_EVERY: Duration = Duration::from_micros(50);
/// Connects under way at a time; the oldest is given up.
const PROBES_MAX: usize = 8;
/// A round that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// What ratios refer to.
const BASE: &str = "knockd";

pub(crate) fn run(out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\nknock to open: from the last knock sent to the first connect that succeeds")?;
    out.flush()?;
    let lab = Lab::new("bench")?;
    let measured = measure(&lab);
    if measured.is_err() {
        lab.fail();
    }
    table(out, &mut measured?, BASE)
}

fn measure(lab: &Lab) -> Result<Vec<Row>> {
    let client = lab.client("client")?;
    let sources: Vec<_> =
        (0..ROUNDS + WARM_UP).map(|n| IpAddr::from(Ipv4Addr::new(10, 77, 200, 10 + n))).collect();
    client.add_addresses(sources.iter().copied())?;
    let contenders = [
        contender::in_kernel(lab)?,
        contender::one_host(lab, &client)?,
        contender::three_hosts(lab, &client)?,
        contender::three_controllers(lab, &client)?,
        contender::knockd(lab)?,
    ];
    for contender in &contenders {
        contender::check_closed(contender, &client)?;
    }
    let mut rows: Vec<_> =
        contenders.iter().map(|one| Row { name: one.name.to_owned(), times: Vec::new() }).collect();
    for (round, source) in sources.iter().enumerate() {
        for turn in 0..contenders.len() {
            // 61 is prime: the multiples of 17 and 29 go through all phases.
            thread::sleep(Duration::from_millis((17 * round as u64 + 29 * turn as u64) % PHASES_MS));
            let turn = (turn + round) % contenders.len();
            let took = once(&client, *source, &contenders[turn])?;
            if round >= WARM_UP.into() {
                rows[turn].times.push(took);
            }
        }
    }
    Ok(rows)
}

/// One knock by one source, and the time until it is let in.
fn once(client: &Host, source: IpAddr, contender: &Contender<'_>) -> Result<Duration> {
    client.inside(|| {
        for (number, shot) in contender.knock.iter().enumerate() {
            if number > 0 {
                thread::sleep(PAUSE);
            }
            shoot(Some(source), *shot)?;
        }
        let start = Instant::now();
        let mut probes = VecDeque::with_capacity(PROBES_MAX);
        loop {
            if probes.len() == PROBES_MAX {
                probes.pop_front();
            }
            probes.push_back(Probe::send(source, contender.target)?);
            thread::sleep(PROBE_EVERY);
            if probes.iter().any(Probe::is_connected) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > PATIENCE {
                bail!("{} did not open for {source} within {PATIENCE:?}", contender.name);
            }
        }
    })?
}

/// A connect under way. Its socket is gone before the kernel would send the SYN again.
struct Probe(socket2::Socket);

impl Probe {
    fn send(source: IpAddr, to: SocketAddr) -> Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.set_nonblocking(true)?;
        // Under way, or refused: either way not connected yet.
        let _ = socket.connect(&to.into());
        Ok(Self(socket))
    }

    fn is_connected(&self) -> bool {
        self.0.peer_addr().is_ok()
    }
}
