//! Fields are found wherever the command prints them.

use serde_json::json;

use super::*;

#[test]
fn fields_are_found_in_either_case_and_in_their_sections() {
    let value = json!({"status": {"expiresMs": "1700"}, "source": "10.0.0.1", "opened_ms": 5});
    assert_eq!(number(&value, "expires_ms"), Some(1700));
    assert_eq!(number(&value, "opened_ms"), Some(5));
    assert_eq!(text(&value, "source"), Some("10.0.0.1"));
    assert_eq!(field(&value, "door"), None);
}

#[test]
fn samples_of_one_metric_are_added_up() {
    let text = "# HELP fleetknock_controller_refused Decisions.\n# TYPE fleetknock_controller_refused counter\n\
                fleetknock_controller_refused_total{reason=\"late\"} 2\n\
                fleetknock_controller_refused_total{reason=\"store\"} 3\n\
                fleetknock_controller_refused_total_other 7\nfleetknock_controller_agents_connected 4\n# EOF\n";
    let sum = |name, label| controller::sum(text, &format!("fleetknock_controller_{name}"), label);
    assert_eq!(sum("refused_total", ""), 5);
    assert_eq!(sum("refused_total", "reason=\"late\""), 2);
    assert_eq!(sum("agents_connected", ""), 4);
    assert_eq!(sum("absent", ""), 0);
}
