//! Tokens: made, listed, revoked, and shown in place of a certificate.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use super::{Ran, run, stand_in::StandIn, trust::Room};

const TOKEN: &str = "fkt_0123456789abcdef_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyputcub";

#[test]
fn a_token_is_shown_once_and_alone_on_standard_output() {
    let fleet = StandIn::start();
    let made = fleet.run(&["token", "create", "--user", "ci", "--role", "operator", "--for", "7d"], "");
    assert_eq!(made.lines, ["fkt_0000000000000001_for_604800000"], "{made:?}");
    assert!(
        made.errors[0].starts_with("fleetknock: token 0000000000000001 for user ci (operator), good for ")
            && made.errors[0].contains("is shown this once: keep it in a file that only its holder can read"),
        "{made:?}"
    );
    let made = fleet.run(&["enroll-token", "--host", "db-1", "-o", "json"], "");
    let document: serde_json::Value = serde_json::from_str(&made.lines.join("\n")).unwrap();
    assert_eq!(document["status"]["secret"], "fke_0000000000000002_for_0", "as long as the controller says");
    assert_eq!(document["spec"]["host"], "db-1");
    assert!(made.errors.is_empty(), "{made:?}");

    let listed = fleet.run(&["token", "list"], "");
    assert!(listed.lines[0].starts_with("ID                FOR                 REMAINING  BY"), "{listed:?}");
    assert!(listed.lines[1].starts_with("0000000000000001  user ci (operator)  "), "{listed:?}");
    assert!(listed.lines[2].starts_with("0000000000000002  host db-1"), "{listed:?}");
    let json = fleet.run(&["token", "list", "-o", "json"], "").lines.join("\n");
    assert!(json.contains(r#""role": "operator""#) && !json.contains("secret"), "{json}");

    assert_eq!(
        fleet.run(&["token", "revoke", "0000000000000001"], "").lines,
        ["token/0000000000000001 revoked"]
    );
    let gone = fleet.run(&["token", "revoke", "0000000000000001"], "");
    assert_eq!(
        (gone.code, gone.errors[0].as_str()),
        (1, "fleetknock: error: there is no token '0000000000000001'")
    );
    for wrong in [
        &["token", "create", "--user", "ci", "--role", "king"][..],
        &["token", "create", "--user", "No Name", "--role", "viewer"],
        &["token", "create", "--user", "ci"],
        &["enroll-token", "--host", "db 1"],
    ] {
        assert_eq!(fleet.run(wrong, "").code, 64, "{wrong:?}");
    }
}

#[test]
fn a_token_is_shown_to_a_controller_of_the_fleet_in_place_of_a_certificate() {
    let blue = Room::new("blue");
    blue.pki(&["issue", "controller", "c-1"]);
    let fleet = StandIn::for_token(blue.files("c-1"), TOKEN);
    let file = blue.path("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let (url, ca) = (fleet.url(), blue.shown("ca.crt"));
    let flags = ["--controller", &url, "--fleet", "blue", "--tls-ca", &ca];

    let by_file = ask(&flags, &["--token-file", &blue.shown("token")], &[]);
    assert_eq!((by_file.code, by_file.lines), (0, vec!["[]".to_owned()]), "{:?}", by_file.errors);
    let by_variable = ask(&flags, &[], &[("FLEETKNOCK_TOKEN", TOKEN)]);
    assert_eq!(by_variable.code, 0, "{by_variable:?}");
    let config = blue.path("cli.yaml");
    fs::write(&config, format!("token-file: {}\n", blue.shown("token"))).unwrap();
    let by_config = ask(&flags, &["--config", &blue.shown("cli.yaml")], &[]);
    assert_eq!(by_config.code, 0, "{by_config:?}");
    let wrong = ask(&flags, &[], &[("FLEETKNOCK_TOKEN", "fkt_other")]);
    assert_eq!((wrong.code, wrong.errors[0].as_str()), (77, "fleetknock: error: something is shown"));

    // A controller of another fleet, or of nobody's, is not shown it.
    let red =
        ask(&["--controller", &url, "--fleet", "red", "--tls-ca", &ca], &[], &[("FLEETKNOCK_TOKEN", TOKEN)]);
    assert_eq!(red.code, 77, "{red:?}");
    assert!(
        red.errors[0].contains("is not trusted") && red.errors[0].contains("nothing was sent to it"),
        "{red:?}"
    );
}

#[test]
fn a_token_is_never_sent_where_it_could_be_read_nor_beside_a_certificate() {
    let blue = Room::new("blue");
    let plain = StandIn::start();
    let (url, ca) = (plain.url(), blue.shown("ca.crt"));
    let variable = [("FLEETKNOCK_TOKEN", TOKEN)];
    let refused = |flags: &[&str], said: &str, code: i32| {
        let ran = ask(flags, &[], &variable);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.errors[0].contains(said) && !ran.errors[0].contains(TOKEN), "{ran:?}");
    };
    refused(&["--controller", &url, "--insecure"], "in plain text anybody on the way could read it", 64);
    refused(&["--controller", &url, "--tls-ca", &ca], "is plain text", 64);
    refused(&[], "with a token (--token-file or FLEETKNOCK_TOKEN) give --tls-ca too", 64);
    refused(&["--tls-ca", &ca, "--tls-cert", "x", "--tls-key", "y"], "choose one of them", 64);

    let file = blue.path("token");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let open = ask(&["--tls-ca", &ca], &["--token-file", &blue.shown("token")], &[]);
    assert_eq!(open.code, 77, "{open:?}");
    assert!(open.errors[0].contains(&format!("chmod 600 {}", file.display())), "{open:?}");
    let missing = ask(&["--tls-ca", &ca], &["--token-file", &blue.shown("missing")], &[]);
    assert_eq!(missing.code, 66, "{missing:?}");
}

fn ask(flags: &[&str], more: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
    command.args(["get", "doors", "-o", "json"]).args(flags).args(more);
    command.envs(environment.iter().copied());
    run(command, "")
}
