//! The agent's settings: what is accepted, and what each refusal says.

use std::ffi::OsString;

use fleetknock_runtime::config::load_with;

use super::*;

const WHOLE: [&str; 6] = ["agent", "--host", "edge-1", "--controller", "http://10.0.0.1", "--insecure"];

#[test]
fn what_is_needed_is_enough() {
    let settings = load(&[]).unwrap();
    assert_eq!(settings.host.as_str(), "edge-1");
    assert_eq!(settings.controller[0].to_string(), "http://10.0.0.1:7600");
    assert_eq!(settings.firewall, Kind::Auto);
    assert_eq!(settings.on_exit, OnExit::Keep);
    assert_eq!(settings.reconcile_interval, Duration::from_secs(10));
}

#[test]
fn whether_an_agent_is_ready_is_asked_without_its_name_and_controllers() {
    let settings = load_with::<Settings>(
        ["agent", "--check-ready", "--http", "127.0.0.1:9600"].map(OsString::from),
        &|_| None,
    );
    assert!(settings.unwrap().check_ready);
    for without in ["--host", "--controller"] {
        let at = WHOLE.iter().position(|word| *word == without).unwrap();
        let rest = WHOLE.iter().enumerate().filter(|(index, _)| *index != at && *index != at + 1);
        let error = load_with::<Settings>(rest.map(|(_, word)| OsString::from(word)), &|_| None).unwrap_err();
        assert!(error.to_string().contains(without), "{error}");
    }
}

#[test]
fn everything_can_be_given() {
    let settings = load(&[
        "--label=role=edge,zone=a",
        "--label=tier=",
        "--controller=http://[2001:db8::1]:7601,http://c.example/",
        "--management=192.0.2.0/24,2001:db8::7",
        "--interface=eth0,wg0",
        "--accept-in=inet/filter/input",
        "--reconcile-interval=1m",
        "--on-exit=open",
    ])
    .unwrap();
    let labels: Vec<_> = settings.labels().unwrap().iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["role=edge", "tier=", "zone=a"]);
    let urls: Vec<_> = settings.controller.iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["http://10.0.0.1:7600", "http://[2001:db8::1]:7601", "http://c.example:7600"]);
    assert_eq!(settings.own_management().len(), 2);
    assert_eq!(settings.reconcile_interval, Duration::from_secs(60));
}

#[test]
fn a_controller_is_a_host_and_a_port_and_the_host_an_address_or_a_name() {
    for (url, host, is_address, port) in [
        ("http://10.0.0.1", "10.0.0.1", true, CONTROLLER_PORT),
        ("http://[2001:db8::1]:7601", "2001:db8::1", true, 7601),
        ("http://controllers.fleetknock.svc:80/", "controllers.fleetknock.svc", false, 80),
    ] {
        let url: ControllerUrl = url.parse().unwrap();
        assert_eq!((url.host(), url.literal().is_some(), url.port()), (host, is_address, port));
    }
}

#[test]
fn too_many_controllers_are_refused_with_another_way_to_give_them() {
    let urls = vec!["http://10.0.0.1"; CONTROLLERS_MAX];
    let error = load(&[&format!("--controller={}", urls.join(","))]).unwrap_err().to_string();
    assert!(error.starts_with("controller: 65 URLs are given, at most 64 can be; give a name"), "{error}");
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_the_setting_the_value_and_the_remedy() {
    for (flags, said) in [
        (
            &["--label=edge"][..],
            "--label: 'edge' is wrong (flag): a label is written KEY=VALUE, such as role=edge",
        ),
        (
            &["--label=role=a", "--label=role=b"],
            "label: the label 'role' is given twice with different values",
        ),
        (
            &["--management=10.1.0.0/8"],
            "--management: '10.1.0.0/8' is wrong (flag): '10.1.0.0/8' has bits set",
        ),
        (
            &["--controller=10.0.0.1:7600"],
            "--controller: '10.0.0.1:7600' is wrong (flag): a controller is written",
        ),
        (
            &["--controller=http://u@h:1"],
            "--controller: 'http://u@h:1' is wrong (flag): a controller is written",
        ),
        (&["--controller=http://h:0"], "--controller: 'http://h:0' is wrong (flag): a controller is written"),
        (
            &["--controller=http://h:70000"],
            "--controller: 'http://h:70000' is wrong (flag): a controller is written",
        ),
        (
            &["--controller=https://h"],
            "controller: 'https://h:7600' asks for TLS, and --insecure for plain text; choose one of them",
        ),
        (&["--tls-ca=ca.crt"], "--insecure and --tls-ca are both given"),
        (&["--fleet=Blue"], "--fleet: 'Blue' is wrong (flag): 'Blue' is not a fleet's name"),
        (&["--firewall=pf"], "--firewall: 'pf' is wrong (flag): unknown firewall 'pf'; it must be auto"),
        (&["--interface=a/b"], "--interface: 'a/b' is wrong (flag): an interface's name has 1 to 15"),
        (
            &["--reconcile-interval=0s"],
            "--reconcile-interval: '0s' is wrong (flag): it must be from 1s to 1h",
        ),
        (&["--log=fleet=loud"], "log: 'fleet=loud' is not a log filter"),
        (&["--accept-in=-X"], "--accept-in: '-X' is wrong (flag): accept-in '-X' is not a chain"),
    ] {
        let error = load(flags).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with(said) && !shown.contains('\n'), "{flags:?}: {shown}");
        assert_eq!(error.exit_code(), 64);
    }
}

#[test]
fn plain_text_is_only_taken_with_insecure() {
    let error = load_args(&WHOLE[..5]).unwrap_err().to_string();
    assert!(
        error.starts_with("--tls-cert, --tls-key and --tls-ca are missing") && error.contains("--insecure"),
        "{error}"
    );
    let tls = [&WHOLE[..5], &["--tls-cert=c", "--tls-key=k", "--tls-ca=a"]].concat();
    let error = load_args(&tls).unwrap_err().to_string();
    assert!(
        error.starts_with("controller: 'http://10.0.0.1:7600' is plain text") && error.contains("--insecure"),
        "{error}"
    );
}

#[test]
fn a_host_name_and_a_controller_are_required() {
    let error = load_args(&["agent"]).unwrap_err().to_string();
    assert!(error.contains("host is missing: give --host <NAME>"), "{error}");
    assert!(error.contains("controller is missing: give --controller <URL>"), "{error}");
}

fn load(more: &[&str]) -> Result<Settings, ConfigError> {
    load_args(&WHOLE.iter().chain(more).copied().collect::<Vec<_>>())
}

fn load_args(args: &[&str]) -> Result<Settings, ConfigError> {
    let args = args.iter().map(OsString::from);
    load_with::<Settings>(args, &|_| None)?.checked()
}
