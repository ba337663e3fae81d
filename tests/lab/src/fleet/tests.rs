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
