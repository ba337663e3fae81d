//! Promise 26: nothing that a fleet leaves behind tells how to knock. While one of its hosts gets its certificate with a
//! token, a user acts with another one, knocks open and fail, and an admin looks at the steps, everything is kept that its
//! programs write, logging all that they can: logs and trails, what etcd has on its disk, what agents remember, metrics,
//! and what a viewer is shown. It is searched for the ports of the steps and for the secrets of the tokens.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{
    SOON,
    doors::{self, ACROSS, WRONG},
};
use fleetknock_lab::{Fleet, Host, Lab, Pki, Shot, etcd::Etcd, fleet::HTTP_PORT, http, programs, wait_until};

/// Where the lab keeps what is meant to be secret: keys, and the files with the tokens.
const KEPT_SECRET: [&str; 2] = ["pki", "secrets"];

#[test]
fn to_those_who_search_it() -> Result<()> {
    Lab::scenario("quiet", |lab| {
        let (pki, store) = (Pki::create(lab, "fleet", "blue")?, Pki::create(lab, "store", "store")?);
        let etcd = Etcd::start_trusted(&[lab.host("etcd-1")?], lab.directory(), &store)?;
        let issuer = pki.certificate();
        let mut flags = etcd.flags();
        flags.extend(["--log", "trace", "--audit-log", "-", "--issuer-cert"].map(str::to_owned));
        flags.extend([text(&issuer)?, "--issuer-key".to_owned(), text(&issuer.with_file_name("ca.key"))?]);
        let hosts = [lab.host("control-1")?, lab.host("control-2")?];
        let fleet = Fleet::start_several_trusted(lab, &pki, &hosts, &etcd.store(), &flags)?;
        let agents = ["edge-1", "db-1", "bastion-1"].map(|name| lab.host(name));
        let [edge, db, bastion] = agents;
        let (edge, db, bastion) = (edge?, db?, bastion?);
        bastion.serve(&[22], &[])?;
        let loud = ["--log", "trace", "--http", "127.0.0.1:7680"];
        for host in [&edge, &bastion] {
            fleet.agent_with(host, &[], &[&["--firewall", "nftables"], &loud[..]].concat())?;
        }
        let enrolling = enrol(lab, &fleet, &pki, &db, &loud)?;
        fleet.wait_connected(3)?;
        let acting = act_with_a_token(lab, &fleet, &pki)?;

        let (client, clumsy) = (lab.client("client")?, lab.client("clumsy")?);
        fleet.apply(&doors::across(
            "quiet",
            "60s",
            "hosts: {names: [bastion-1]}, ports: [tcp/22], for: 60s",
        ))?;
        fleet.wait_guarded(&client, &[bastion.at(22)])?;
        let knock = doors::knock_across([&edge, &db, &bastion]);
        clumsy.knock(None, &[knock[0], Shot::Tcp(db.at(WRONG)), knock[2]])?;
        client.knock(None, &knock)?;
        fleet.opening_of(&client.v4().to_string(), SOON)?;
        let revealed = fleet.cli_ok(&["get", "doors", "quiet", "-o", "yaml", "--reveal"])?;
        ensure!(
            find(revealed.as_bytes(), &[]).len() == ACROSS.len(),
            "the search finds what is there: {revealed}"
        );

        let mut places = shown_to_a_viewer(&fleet, &pki)?;
        for (host, who) in
            [(&hosts[0], "control-1"), (&hosts[1], "control-2"), (&db, "db-1"), (&bastion, "bastion-1")]
        {
            let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HTTP_PORT);
            places.push((format!("metrics of {who}"), http::get(host, to, "/metrics")?.text.into_bytes()));
        }
        // What has only been heard of may be on its way to a log.
        fleet.cli_ok(&["ban", "198.51.100.7"])?;
        read_all(lab.directory(), &mut places)?;
        let has = |word: &str| places.iter().any(|(_, bytes)| contains(bytes, word.as_bytes()));
        for there in ["doors/quiet", "TRACE", "DOOR_REVEALED", "OPENING_GRANTED", "HOST_ENROLLED"] {
            ensure!(has(there), "{there} is nowhere: the search would find nothing");
        }
        for (place, bytes) in &places {
            let found = find(bytes, &[&enrolling, &acting]);
            ensure!(found.is_empty(), "{place} holds {found:?}");
        }
        Ok(())
    })
}

/// Starts an agent that has nothing but a token. Returns the token.
fn enrol(lab: &Lab, fleet: &Fleet<'_>, pki: &Pki, host: &Host, more: &[&str]) -> Result<String> {
    let token = fleet.cli_ok(&["enroll-token", "--host", host.name()])?;
    let file = secret(lab, "db-1.token", &format!("{token}{}", fs::read_to_string(pki.certificate())?))?;
    let state = lab.directory().join("state-db-1");
    fs::create_dir_all(&state)?;
    let mut command = vec![text(&programs::path("fleetknock-agent")?)?];
    let urls: Vec<_> = fleet.controllers().iter().map(|controller| controller.url()).collect();
    let urls = urls.join(",");
    command.extend(["--host", host.name(), "--fleet", "blue", "--controller", &urls].map(str::to_owned));
    for (flag, name) in [("--tls-cert", "tls.crt"), ("--tls-key", "tls.key"), ("--tls-ca", "ca.crt")] {
        command.extend([flag.to_owned(), text(&state.join(name))?]);
    }
    command.extend(["--state".to_owned(), text(&state)?, "--enroll-token".to_owned(), text(&file)?]);
    command.extend(["--firewall", "nftables"].iter().chain(more).map(|flag| (*flag).to_owned()));
    let agent = host.spawn("agent", &command)?;
    wait_until("the agent to have its certificate", SOON * 4, || {
        ensure!(agent.is_running(), "{}", agent.log());
        Ok(state.join("tls.crt").exists())
    })?;
    Ok(token.trim().to_owned())
}

/// A user with a token and no certificate opens nothing as a viewer, and something as an operator. Returns the token.
fn act_with_a_token(lab: &Lab, fleet: &Fleet<'_>, pki: &Pki) -> Result<String> {
    let program = text(&programs::path("fleetknock")?)?;
    let (controller, authorities) = (&fleet.controllers()[1], text(&pki.certificate())?);
    let act = |token: &str, arguments: &[&str]| {
        let file = text(&secret(lab, "user.token", token)?)?;
        let mut command = vec![program.clone()];
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        command.extend([
            "--controller".to_owned(),
            controller.url(),
            "--fleet".to_owned(),
            "blue".to_owned(),
        ]);
        command.extend(["--tls-ca".to_owned(), authorities.clone(), "--token-file".to_owned(), file]);
        controller.host().run(&command)
    };
    let ban = ["ban", "198.51.100.9"];
    let viewer = fleet.cli_ok(&["token", "create", "--user", "vera", "--role", "viewer"])?;
    let refused = act(&viewer, &ban)?;
    ensure!(refused.code == 77 && refused.stderr.contains("operator"), "{}", refused.stderr);
    let operator = fleet.cli_ok(&["token", "create", "--user", "oscar", "--role", "operator"])?;
    act(&operator, &ban)?.success()?;
    let bans = fleet.list("bans")?;
    ensure!(bans.iter().any(|ban| ban.to_string().contains("user oscar")), "{bans:?}");
    // What is known of a token does not stand in for it.
    let tokens = fleet.cli_ok(&["token", "list", "-o", "json"])?;
    ensure!(!contains(tokens.as_bytes(), operator.trim().as_bytes()), "the list shows a secret");
    Ok(operator.trim().to_owned())
}

fn shown_to_a_viewer(fleet: &Fleet<'_>, pki: &Pki) -> Result<Vec<(String, Vec<u8>)>> {
    let viewer = fleet.operator().with(&pki.user("victor", "viewer")?);
    let mut shown = Vec::new();
    for kind in ["doors", "hosts", "openings", "bans", "attempts", "controllers", "events"] {
        shown.push((format!("get {kind}"), viewer.cli_ok(&["get", kind, "-o", "json"])?.into_bytes()));
    }
    let described = viewer.cli_ok(&["describe", "door", "quiet"])?;
    shown.push(("describe door".to_owned(), described.into_bytes()));
    Ok(shown)
}

/// Every file beneath, but for what is kept secret.
fn read_all(directory: &Path, places: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Private keys are random: what looks like a port in one is none.
        if KEPT_SECRET.contains(&name.as_str())
            || path.extension().is_some_and(|extension| extension == "key")
        {
            continue;
        }
        if path.is_dir() {
            read_all(&path, places)?;
        } else if path.is_file() {
            places.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    Ok(())
}

/// The ports that stand alone, and these words wherever they stand.
fn find(bytes: &[u8], words: &[&str]) -> Vec<String> {
    let ports = ACROSS.iter().map(u16::to_string).filter(|port| stands_alone(bytes, port.as_bytes()));
    let words = words.iter().filter(|word| contains(bytes, word.as_bytes())).map(|_| "a token".to_owned());
    ports.chain(words).collect()
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn stands_alone(bytes: &[u8], word: &[u8]) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.windows(word.len()).enumerate().any(|(at, window)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        window == word && !is_part(before) && !is_part(bytes.get(at + word.len()))
    })
}

/// A file that only its owner can read.
fn secret(lab: &Lab, name: &str, content: &str) -> Result<PathBuf> {
    let directory = lab.directory().join("secrets");
    fs::create_dir_all(&directory)?;
    let path = directory.join(name);
    fs::write(&path, content)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is no text")
}
