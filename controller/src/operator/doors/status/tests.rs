//! What statuses say, and that a condition keeps its time while it stands.

use serde_json::json;

use super::*;

#[test]
fn a_status_says_whether_a_door_was_taken_and_where_it_is_held() {
    let (ok, name) = (Ok(()), "ssh".parse().unwrap());
    let seen = |enforced, accepted| Seen {
        door: Some(&name),
        accepted,
        enforced,
        bits: Some(47.9),
        at: Timestamp::from_millis(1_000),
    };
    let first = status(&resource(&json!({})), &seen(Some((2, 3)), &ok));
    assert_eq!((&first["enforced"], &first["strengthBits"]), (&json!("2/3"), &json!(47)));
    assert_eq!(first["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:01Z");
    let reasons = |status: &Value| {
        let text = |at: usize| {
            format!("{} {}", status["conditions"][at]["status"], status["conditions"][at]["reason"])
        };
        (text(0), text(1)).clone()
    };
    assert_eq!(reasons(&first), (r#""True" "Accepted""#.to_owned(), r#""False" "SomeHosts""#.to_owned()));
    let refused = Err(Refusal::new("Invalid", "x".repeat(5_000)));
    for (enforced, accepted, wanted) in [
        (Some((3, 3)), &ok, r#""True" "AllHosts""#),
        (Some((0, 0)), &ok, r#""False" "NoHosts""#),
        (None, &refused, r#""False" "NotAccepted""#),
    ] {
        assert_eq!(reasons(&status(&resource(&json!({})), &seen(enforced, accepted))).1, wanted);
    }
    let refused = status(&resource(&json!({})), &seen(None, &refused));
    assert_eq!(refused["conditions"][0]["message"].as_str().unwrap().len(), MESSAGE_MAX);
    assert!(refused.get("enforced").is_none());
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let (ok, refused) = (Ok(()), Err(Refusal::new("Invalid", "x")));
    let seen = |accepted, at| Seen {
        door: None,
        accepted,
        enforced: None,
        bits: None,
        at: Timestamp::from_millis(at),
    };
    let before = status(&resource(&json!({})), &seen(&ok, 1_000));
    let same = status(&resource(&before), &seen(&ok, 9_000));
    assert_eq!(same, before);
    let changed = status(&resource(&before), &seen(&refused, 9_000));
    assert_eq!(changed["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:09Z");
    assert_eq!(changed["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:01Z");
}

fn resource(status: &Value) -> Resource {
    let metadata =
        json!({"name": "ssh", "namespace": "ops", "uid": "u1", "resourceVersion": "5", "generation": 4});
    let object =
        json!({"apiVersion": "fleetknock.io/v1", "kind": "Door", "metadata": metadata, "status": status});
    Resource::read(serde_json::from_value(object).unwrap()).unwrap()
}
