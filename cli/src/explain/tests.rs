//! What `explain` shows, and what it shows once only.

use super::*;

#[test]
fn what_is_known_is_not_shown_again() {
    let mut news = News::default();
    let answer = answer();
    assert_eq!(news.of(answer.clone()).unwrap(), answer);
    let mut later = answer.clone();
    later.now_ms += 1_000;
    later.doors[0].message = "step 3 of 3 was not seen; 3.1 s are left".to_owned();
    assert_eq!(news.of(later.clone()), None, "a countdown is no news");
    later.doors[0].code = v1::ExplainCode::Open.into();
    later.knocks.push(v1::KnockSeen { counter: 2, ..later.knocks[0].clone() });
    let fresh = news.of(later.clone()).unwrap();
    assert_eq!((fresh.knocks.len(), fresh.doors.len(), fresh.caveats.len()), (1, 1, 0));
    later.knocks[0].outcome = v1::KnockOutcome::Refused.into();
    assert_eq!(news.of(later).unwrap().knocks.len(), 1, "it became something else");
}

#[test]
fn the_text_names_time_host_and_what_to_do() {
    let text = text(&answer(), false);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["TIME", "±", "HOST", "PORT", "STEP", "WHAT"]
    );
    assert_eq!(
        lines[1],
        "2026-11-22T15:30:11.250Z  0.2ms  edge-1  (hidden)  2/3 bastion-ssh  step 2 of 3 of door bastion-ssh"
    );
    assert_eq!(lines[3], "bastion-ssh: incomplete, 2 of 3 steps");
    assert_eq!(lines[5], "  To do: knock step 3 too.");
    assert_eq!(lines[7], "Note: not connected now: db-1.");
}

#[test]
fn json_has_the_code_and_no_port_that_is_hidden() {
    let document = document(&answer());
    assert_eq!(document["doors"][0]["code"], "incomplete");
    assert_eq!(document["knocks"][0]["outcome"], "step");
    assert_eq!(
        (&document["knocks"][0]["port"], &document["knocks"][0]["hidden"]),
        (&Value::Null, &json!(true))
    );
}

fn answer() -> v1::ExplainResponse {
    let knock = v1::KnockSeen {
        host: "edge-1".into(),
        time_us: 1_795_361_411_250_000,
        uncertainty_us: 160,
        hidden: true,
        outcome: v1::KnockOutcome::Step.into(),
        door: "bastion-ssh".into(),
        step: 2,
        of: 3,
        message: "step 2 of 3 of door bastion-ssh".into(),
        controller: "ctl-1".into(),
        counter: 1,
        ..v1::KnockSeen::default()
    };
    let door = v1::DoorExplained {
        door: "bastion-ssh".into(),
        code: v1::ExplainCode::Incomplete.into(),
        message: "step 3 of 3 was not seen; 4.1 s are left".into(),
        remedy: "knock step 3 too".into(),
        steps_done: 2,
        steps_total: 3,
        opening: String::new(),
    };
    v1::ExplainResponse {
        source: "203.0.113.5".into(),
        knocks: vec![knock],
        doors: vec![door],
        now_ms: 1_795_361_412_000,
        caveats: vec!["not connected now: db-1".into()],
        ..v1::ExplainResponse::default()
    }
}
