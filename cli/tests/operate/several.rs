//! Several controllers to ask: what goes on to the next one, and what must not.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::{Command, Stdio},
};

use super::{
    Ran, run,
    stand_in::{SUSPENDED, StandIn},
};

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn one_that_cannot_be_reached_is_passed_over() {
    let fleet = StandIn::start();
    let url = fleet.url();
    for controllers in [
        vec!["--controller".to_owned(), format!("{NOBODY},{url}")],
        vec!["--controller".to_owned(), NOBODY.to_owned(), "--controller".to_owned(), url.clone()],
    ] {
        let listed = ask(&["get", "doors", "-o", "json"], &controllers);
        assert_eq!((listed.code, listed.lines), (0, vec!["[]".to_owned()]));
        assert_eq!(listed.errors.len(), 1, "{:?}", listed.errors);
        assert!(
            listed.errors[0]
                .starts_with(&format!("fleetknock: warning: passed over {NOBODY}: cannot be reached: ")),
            "{:?}",
            listed.errors
        );
    }
    // Nothing was sent: a change may go to the next one, too.
    let banned = ask(&["ban", "203.0.113.5", "--for", "1h"], &among(&[NOBODY, &url]));
    assert_eq!(banned.code, 0, "{banned:?}");
    assert_eq!(fleet.bans(), ["203.0.113.5"]);

    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
    command.env("FLEETKNOCK_CONTROLLER", format!("{NOBODY},{url}")).args(["get", "doors", "--insecure"]);
    assert_eq!(run(command, "").code, 0);
}

#[test]
fn what_reads_goes_on_from_one_that_is_suspended_or_silent_and_what_changes_does_not() {
    let fleet = StandIn::start();
    let suspended = StandIn::suspended();
    // Connections are accepted by the kernel, and nobody reads them.
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let frozen_url = format!("http://{}", frozen.local_addr().unwrap());

    for (first, why, code) in
        [(suspended.url(), SUSPENDED, 75), (frozen_url, "did not answer within 500ms", 69)]
    {
        let controllers = among(&[&first, &fleet.url()]);
        let listed = ask(&["get", "doors", "-o", "json", "--timeout", "500ms"], &controllers);
        assert_eq!((listed.code, listed.lines), (0, vec!["[]".to_owned()]));
        assert_eq!(listed.errors, [format!("fleetknock: warning: passed over {first}: {why}")]);

        let banned = ask(&["ban", "203.0.113.5", "--timeout", "500ms"], &controllers);
        assert_eq!(banned.code, code, "{banned:?}");
        assert_eq!(fleet.bans(), [""; 0]);
        let error = &banned.errors[0];
        assert!(error.contains(&first) && error.contains(why), "{error}");
        assert!(error.contains("ask another one (--controller)"), "{error}");
        assert_eq!(error.contains("whether it was done is not known"), code == 69, "{error}");
    }
}

#[test]
fn a_change_is_not_sent_again_after_a_connection_broke() {
    let fleet = StandIn::start();
    // Every connection is read from, so that the request arrives, and then cut.
    let broken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", broken.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut connection in broken.incoming().map_while(Result::ok) {
            let _ = connection.read(&mut [0; 4096]);
        }
    });
    let controllers = among(&[&url, &fleet.url()]);
    let listed = ask(&["get", "doors", "-o", "json"], &controllers);
    assert_eq!((listed.code, listed.lines), (0, vec!["[]".to_owned()]));
    assert!(
        listed.errors[0]
            .starts_with(&format!("fleetknock: warning: passed over {url}: the connection broke: ")),
        "{:?}",
        listed.errors
    );
    let banned = ask(&["ban", "203.0.113.5"], &controllers);
    assert_eq!((banned.code, fleet.bans().len()), (69, 0), "{banned:?}");
    assert!(banned.errors[0].contains("whether it was done is not known"), "{banned:?}");
}

#[test]
fn an_answer_is_an_answer() {
    let (fleet, other) = (StandIn::start(), StandIn::of_three());
    let missing = ask(&["get", "host", "edge-1"], &among(&[&fleet.url(), &other.url()]));
    assert_eq!(
        (missing.code, missing.errors[0].as_str()),
        (1, "fleetknock: error: there is no host 'edge-1'")
    );
}

#[test]
fn when_none_can_each_is_named() {
    let suspended = StandIn::suspended();
    let none = ask(&["get", "doors"], &among(&[NOBODY, &suspended.url()]));
    assert_eq!((none.code, none.errors.len()), (75, 1), "{none:?}");
    assert!(none.errors[0].contains("none of 2 controllers (--controller) can do this now"), "{none:?}");
    assert!(none.errors[0].contains(&format!("{}: {SUSPENDED}", suspended.url())), "{none:?}");
    assert_eq!(ask(&["get", "doors"], &among(&[NOBODY, "http://127.0.0.1:2"])).code, 69);
}

#[test]
fn a_watch_moves_on_to_the_next_controller() {
    let (one, two) = (StandIn::start(), StandIn::start());
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleetknock"))
        .args(["watch", "--insecure"])
        .args(among(&[&one.url(), &two.url()]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let events: Vec<String> = lines.take(3).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // Each counts its own streams.
    for (event, stream) in events.iter().zip(["stream 1", "stream 1", "stream 2"]) {
        assert!(event.ends_with(stream), "{events:?}");
    }
    let said: Vec<String> =
        BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    let (one, two) = (one.url(), two.url());
    assert!(
        said[0].starts_with(&format!(
            "fleetknock: the controller at {one} ended the stream; connecting to {two} in "
        )),
        "{said:?}"
    );
    assert_eq!(
        said[1],
        format!("fleetknock: connected to {two} instead of {one}; events in between are not shown")
    );
}

fn among(urls: &[&str]) -> Vec<String> {
    vec!["--controller".to_owned(), urls.join(",")]
}

fn ask(args: &[&str], controllers: &[String]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
    command.args(args).args(controllers).arg("--insecure");
    run(command, "")
}
