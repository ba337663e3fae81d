//! Promise 29: what operators look at is there. A real Prometheus scrapes two controllers, three agents and an etcd while
//! users knock, others miss and are banned, rules are flushed and an agent restarts. Every query of every panel is
//! answered, every rule evaluates, every name in them exists, the list of metrics in the documentation is what is really
//! scraped, promtool finds nothing to say, and no label is an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{
    SOON,
    doors::{self, WRONG},
    queries::{self, deploy, names},
};
use fleetknock_lab::{
    Agent, Fleet, Host, Lab, Pki, Shot, etcd::Etcd, fleet::HTTP_PORT, http, prometheus::Prometheus,
    wait_until,
};

/// How long scrapes, rates over several of them and recorded rules may take until all of them have a value.
const ANSWERED: Duration = Duration::from_secs(25);
/// Writes the list of metrics anew instead of comparing it.
const UPDATE: &str = "FLEETKNOCK_UPDATE_METRICS";

#[test]
fn in_a_fleet_at_work() -> Result<()> {
    Lab::scenario("seen", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let etcd_host = lab.host("etcd-1")?;
        let etcd = Etcd::start(&[etcd_host], lab.directory())?;
        let hosts = [lab.host("control-1")?, lab.host("control-2")?];
        let reachable = format!("0.0.0.0:{HTTP_PORT}");
        let flags = ["--http-plain".to_owned(), reachable.clone()];
        let fleet = Fleet::start_several_trusted(lab, &pki, &hosts, &etcd.store(), &flags)?;
        let agents = ["edge-1", "db-1", "bastion-1"].map(|name| {
            let host = lab.host(name)?;
            host.serve(&[22], &[])?;
            fleet.agent_with(&host, &[], &["--firewall", "nftables", "--http", &reachable])
        });
        let [edge, db, bastion] = agents;
        let (edge, db, bastion) = (edge?, db?, bastion?);
        let at = |hosts: &[&Host]| hosts.iter().map(|host| host.at(HTTP_PORT)).collect::<Vec<_>>();
        let jobs = [
            ("fleetknock-agent", at(&[edge.host(), db.host(), bastion.host()])),
            ("fleetknock-controller", at(&[&hosts[0], &hosts[1]])),
            ("etcd", vec![etcd.members()[0].http()]),
        ];
        let rules = deploy("prometheus/rules.yml");
        let prometheus =
            Prometheus::start(&lab.host("prometheus")?, lab.directory(), &rules.canonicalize()?, &jobs)?;
        fleet.wait_connected(3)?;

        work(lab, &fleet, &edge, &db, &bastion)?;
        panels_are_answered(&prometheus)?;
        rules_are_evaluated(&prometheus)?;
        no_label_is_an_address(&prometheus)?;
        the_list_is_true(&prometheus)?;
        for to in [hosts[0].at(HTTP_PORT), edge.host().at(HTTP_PORT)] {
            promtool_finds_nothing(&http::get(&hosts[1], to, "/metrics")?.text)?;
        }
        Ok(())
    })
}

/// Something of all that happens to fleets.
fn work(lab: &Lab, fleet: &Fleet<'_>, edge: &Agent, db: &Agent, bastion: &Agent) -> Result<()> {
    let (client, clumsy) = (lab.client("client")?, lab.client("clumsy")?);
    let scanner = lab.client("scanner")?;
    let opens = "hosts: {names: [db-1, bastion-1]}, ports: [tcp/22], for: 60s";
    fleet.apply(&doors::across("seen", "20s", opens))?;
    fleet.wait_guarded(&scanner, &[db.host().at(22), bastion.host().at(22)])?;
    let knock = doors::knock_across([edge, db, bastion].map(Agent::host));
    client.knock(None, &knock)?;
    fleet.opening_of(&client.v4().to_string(), SOON)?;
    clumsy.knock(None, &[knock[0], knock[1], Shot::Tcp(edge.host().at(WRONG))])?;
    let misses: Vec<_> = (0..12).map(|number| Shot::Tcp(edge.host().at(40_001 + number))).collect();
    scanner.knock(None, &misses)?;
    wait_until("the scanner to be banned", SOON, || Ok(!fleet.list("bans")?.is_empty()))?;
    fleet.cli_ok(&["ban", "198.51.100.7", "--for", "10m"])?;
    bastion.host().ok(&["nft", "flush", "ruleset"])?;
    db.kill()?;
    db.start()?;
    fleet.wait_connected(3)?;
    // So much later that it is another knock.
    client.knock(None, &knock)?;
    Ok(())
}

fn panels_are_answered(prometheus: &Prometheus) -> Result<()> {
    let asked = queries::of_panels()?;
    ensure!(asked.len() > 100, "there are {} queries", asked.len());
    let filled: BTreeMap<String, String> =
        asked.iter().map(|query| (query.filled(), format!("{}: {}", query.place, query.written))).collect();
    let left = prometheus.unanswered(filled.keys().map(String::as_str), ANSWERED)?;
    let left: Vec<_> = left.iter().map(|query| &filled[*query]).collect();
    ensure!(left.is_empty(), "Prometheus knows nothing about {left:#?}");
    for (metric, label) in queries::of_variables()? {
        let values = prometheus.words(&format!("label/{label}/values?match%5B%5D={metric}"))?;
        ensure!(!values.is_empty(), "no dashboard can choose a {label}: {metric} has none");
    }
    Ok(())
}

fn rules_are_evaluated(prometheus: &Prometheus) -> Result<()> {
    let said = prometheus.ask("rules")?;
    let groups = said["groups"].as_array().context("no groups of rules")?;
    let rules: Vec<_> =
        groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    ensure!(rules.len() > 20, "there are {} rules", rules.len());
    let recorded = rules.iter().filter(|rule| rule["type"] == "recording");
    let left = prometheus.unanswered(recorded.filter_map(|rule| rule["name"].as_str()), ANSWERED)?;
    ensure!(left.is_empty(), "nothing is recorded as {left:#?}");

    let mut stored: BTreeSet<String> = prometheus.words("label/__name__/values")?.into_iter().collect();
    // Prometheus' own.
    stored.insert("up".to_owned());
    let labels: BTreeSet<String> = prometheus.words("labels")?.into_iter().collect();
    for rule in rules {
        let (name, query) = (&rule["name"], rule["query"].as_str().context("a rule without a query")?);
        ensure!(rule["health"] == "ok", "{name}: {} ({query})", rule["lastError"]);
        let found = names(query);
        ensure!(!found.metrics.is_empty(), "{name} asks for nothing: {query}");
        let missing: Vec<_> = found.metrics.difference(&stored).collect();
        ensure!(missing.is_empty(), "{name} asks for {missing:?}, which nobody has: {query}");
        let missing: Vec<_> = found.labels.difference(&labels).collect();
        ensure!(missing.is_empty(), "{name} names the labels {missing:?}, which nothing has: {query}");
    }
    Ok(())
}

/// Those that Prometheus adds itself aside.
fn no_label_is_an_address(prometheus: &Prometheus) -> Result<()> {
    for label in prometheus.words("labels")? {
        if ["instance", "__name__"].contains(&label.as_str()) {
            continue;
        }
        let values = prometheus
            .words(&format!("label/{label}/values?match%5B%5D=%7Bjob%3D~%22fleetknock.%2A%22%7D"))?;
        for value in values {
            let bare = value.split('/').next().unwrap_or(&value);
            let is_address = bare.parse::<IpAddr>().is_ok() || bare.parse::<SocketAddr>().is_ok();
            ensure!(!is_address, "the label {label} has the value {value}");
        }
    }
    Ok(())
}

/// The list in `deploy/metrics.md` is made of what is scraped.
fn the_list_is_true(prometheus: &Prometheus) -> Result<()> {
    let series = prometheus.ask("series?match%5B%5D=%7Bjob%3D~%22fleetknock.%2A%22%7D")?;
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in series.as_array().into_iter().flatten().filter_map(|one| one.as_object()) {
        let name = one.get("__name__").and_then(|name| name.as_str()).unwrap_or_default();
        let own = one.keys().filter(|key| !["__name__", "instance", "job", "le"].contains(&key.as_str()));
        labels.entry(name.to_owned()).or_default().extend(own.cloned());
    }
    // Others have metrics of the same names, and other words for them.
    let said = prometheus.ask("targets/metadata?match_target=%7Bjob%3D~%22fleetknock.%2A%22%7D")?;
    let said = said.as_array().context("no metadata")?;
    let families: BTreeMap<_, _> = said.iter().map(|one| (one["metric"].as_str(), one)).collect();
    let mut table = "\
        # Metrics\n\nWhat `/metrics` of agents and controllers says, and what `--otlp` pushes (there without `_total`). Made of a \
        scrape: promise 29\ncompares it, and `FLEETKNOCK_UPDATE_METRICS=1` writes it anew. Histograms have `_bucket`, `_sum` and \
        `_count`.\n\n| metric | type | labels | what it is |\n|---|---|---|---|\n"
        .to_owned();
    for (family, said) in families {
        let (Some(family), Some(kind), Some(help)) = (family, said["type"].as_str(), said["help"].as_str())
        else {
            continue;
        };
        let name = match kind {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.to_owned(),
        };
        let sample = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
        let of_sample: Vec<_> = labels.get(&sample).into_iter().flatten().cloned().collect();
        table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", of_sample.join(", ")));
    }
    let file = deploy("metrics.md");
    if std::env::var_os(UPDATE).is_some() {
        return fs::write(&file, table).context("cannot write the list");
    }
    let written = fs::read_to_string(&file)?;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (written, scraped) = (lines(&written), lines(&table));
    let differ: Vec<_> = written.symmetric_difference(&scraped).collect();
    ensure!(
        differ.is_empty(),
        "deploy/metrics.md is not what is scraped; write it anew with {UPDATE}=1: {differ:#?}"
    );
    Ok(())
}

/// promtool reads the older language only, which is what is written for those that ask for nothing.
fn promtool_finds_nothing(text: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run promtool; install it with: apt-get install prometheus (or run: make deps)")?;
    promtool.stdin.take().context("promtool reads nothing")?.write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() && said.trim().is_empty(), "promtool check metrics: {said}");
    Ok(())
}
