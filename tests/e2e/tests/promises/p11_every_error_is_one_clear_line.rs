//! Promise 11: a malformed door file, an unknown label, a bad address, a dead controller, a missing capability, a busy
//! port: each gives one clear line with the remedy and a sensible exit code.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetknock_lab::{Fleet, Lab, Output, programs};

const GOOD: &str = "apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: good}
spec:
  knock:
    sequence:
      - {port: tcp/51003}
      - {port: udp/7412}
      - {port: tcp/23981}
    within: 15s
  opens:
    hosts: {matchLabels: {role: edge}}
    ports: [tcp/22]
    for: 30s
";

#[test]
fn the_operators_mistakes() -> Result<()> {
    Lab::scenario("mistakes", |lab| {
        let fleet = Fleet::start(lab)?;
        let apply = |yaml: &str| {
            let program = programs::path("fleetknock")?.to_string_lossy().into_owned();
            let command = [&program, "--controller", &fleet.url(), "--insecure", "apply", "-f", "-"];
            fleet.control().run_with(&command, Some(yaml), Duration::from_secs(10))
        };
        one_line(&apply(&GOOD.replace("within:", "witin:"))?, &["witin", "within", ":10:"])?;
        one_line(&apply(&GOOD.replace("tcp/51003", "tcp/510033"))?, &["510033"])?;
        one_line(&apply(&GOOD.replace("for: 30s", "for: 30h"))?, &["spec.opens.for"])?;
        one_line(&apply("{{{")?, &[":1:"])?;
        // A label that no host carries is no error: the host may come later. It is said.
        let output = apply(&GOOD.replace("role: edge", "role: egde"))?;
        ensure!(output.code == 0, "a door for hosts to come was refused: {output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(said.contains("role") && said.contains("egde"), "an unknown label goes unsaid: {output:?}");
        for (arguments, words) in [
            (&["open", "good", "--source", "10.1.2"][..], &["10.1.2"][..]),
            (&["ban", "nonsense"], &["nonsense"]),
            (&["get", "openings", "no-such-id"], &["no-such-id"]),
            (&["delete", "door", "no-such-door"], &["no-such-door"]),
            (&["knock", "tcp/0@10.77.0.1"], &["tcp/0"]),
        ] {
            one_line(&fleet.cli(arguments)?, words)?;
        }
        Ok(())
    })
}

#[test]
fn a_dead_controller() -> Result<()> {
    Lab::scenario("dead", |lab| {
        let (host, program) =
            (lab.host("laptop")?, programs::path("fleetknock")?.to_string_lossy().into_owned());
        for url in ["http://127.0.0.1:7600", "http://10.77.0.99:7600"] {
            let output = host.run_with(
                &[&program, "--controller", url, "--insecure", "get", "doors"],
                None,
                Duration::from_secs(15),
            )?;
            one_line(&output, &[url])?;
        }
        one_line(
            &host.run(&[&program, "--controller", "nonsense://", "--insecure", "get", "doors"])?,
            &["nonsense"],
        )
    })
}

#[test]
fn the_daemons_settings() -> Result<()> {
    Lab::scenario("settings", |lab| {
        let host = lab.host("host")?;
        let controller = programs::path("fleetknock-controller")?.to_string_lossy().into_owned();
        let agent = programs::path("fleetknock-agent")?.to_string_lossy().into_owned();
        let store = format!("embedded:{}", lab.directory().join("own").display());
        let state = lab.directory().join("state").display().to_string();
        for (command, words) in [
            (
                vec![&controller[..], "--listen", "nonsense", "--store", &store, "--insecure"],
                &["listen", "nonsense"][..],
            ),
            (
                vec![&controller, "--listen", "127.0.0.1:0", "--store", "nonsense:x", "--insecure"],
                &["store", "nonsense"],
            ),
            (
                vec![
                    &agent,
                    "--host",
                    "Not_A_Name",
                    "--controller",
                    "http://127.0.0.1:1",
                    "--insecure",
                    "--state",
                    &state,
                ],
                &["Not_A_Name"],
            ),
            (
                vec![
                    &agent,
                    "--host",
                    "host",
                    "--controller",
                    "http://127.0.0.1:1",
                    "--insecure",
                    "--state",
                    &state,
                    "--management",
                    "10.0.0.0/99",
                ],
                &["management", "10.0.0.0/99"],
            ),
            (
                vec![
                    &agent,
                    "--host",
                    "host",
                    "--label",
                    "no-equals",
                    "--controller",
                    "http://127.0.0.1:1",
                    "--insecure",
                    "--state",
                    &state,
                ],
                &["no-equals"],
            ),
            (
                vec![&agent, "--host", "host", "--controller", "http://127.0.0.1:1", "--state", &state],
                &["--insecure"],
            ),
        ] {
            one_line(&host.run(&command)?, words)?;
        }
        Ok(())
    })
}

#[test]
fn a_missing_capability() -> Result<()> {
    Lab::scenario("capability", |lab| {
        let host = lab.host("host")?;
        let agent = programs::path("fleetknock-agent")?.to_string_lossy().into_owned();
        let state = lab.directory().join("state").display().to_string();
        for (without, name) in [("net_raw", "CAP_NET_RAW"), ("net_admin", "CAP_NET_ADMIN")] {
            let less = format!("-{without}");
            let output = host.run(&[
                "setpriv",
                "--inh-caps",
                &less,
                "--bounding-set",
                &less,
                &agent,
                "--host",
                "host",
                "--controller",
                "http://127.0.0.1:1",
                "--insecure",
                "--state",
                &state,
            ])?;
            one_line(&output, &[name])?;
        }
        Ok(())
    })
}

#[test]
fn a_busy_port() -> Result<()> {
    Lab::scenario("busy", |lab| {
        let fleet = Fleet::start(lab)?;
        let controller = programs::path("fleetknock-controller")?.to_string_lossy().into_owned();
        let store = format!("embedded:{}", lab.directory().join("second").display());
        let start = |listen: &str, http: &str, store: &str| {
            fleet.control().run(&[
                &controller,
                "--listen",
                listen,
                "--store",
                store,
                "--http",
                http,
                "--insecure",
            ])
        };
        one_line(&start("0.0.0.0:7600", "127.0.0.1:7999", &store)?, &["7600"])?;
        one_line(&start("0.0.0.0:7999", "127.0.0.1:7680", &store)?, &["7680"])?;
        // And a store that another controller holds.
        let taken = format!("embedded:{}", lab.directory().join("store").display());
        one_line(&start("0.0.0.0:7999", "127.0.0.1:7998", &taken)?, &["store"])
    })
}

/// The program failed as programs fail (no signal, no panic), and said why in one line that holds these words.
fn one_line(output: &Output, words: &[&str]) -> Result<()> {
    ensure!((1..=125).contains(&output.code) && output.code != 101, "exit code {}: {output:?}", output.code);
    // Daemons write their log there, too: one line of all is the error.
    let errors: Vec<_> = output.stderr.lines().filter(|line| line.to_lowercase().contains("error")).collect();
    ensure!(errors.len() == 1, "{} error lines instead of one: {output:?}", errors.len());
    for word in words {
        ensure!(errors[0].contains(word), "the error does not name '{word}': {output:?}");
    }
    ensure!(!output.stderr.contains("panicked"), "it panicked: {output:?}");
    Ok(())
}
