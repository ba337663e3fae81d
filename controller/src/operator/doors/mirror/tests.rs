//! What a watch tells is taken in whole or not at all, and within bounds.

use serde_json::json;

use super::*;

#[test]
fn a_list_counts_when_it_is_whole() {
    let mut mirror = mirror();
    mirror.take_in(Event::Init);
    mirror.take_in(Event::InitApply(object("a")));
    assert!(!mirror.is_listed() && mirror.held().is_empty());
    mirror.take_in(Event::InitDone);
    assert!(mirror.is_complete());
    // A new list that breaks off leaves what was known.
    mirror.take_in(Event::Init);
    mirror.take_in(Event::Init);
    mirror.take_in(Event::InitApply(object("b")));
    assert_eq!(names(&mirror), ["a"]);
    mirror.take_in(Event::InitDone);
    assert_eq!(names(&mirror), ["b"]);
    mirror.take_in(Event::Apply(object("c")));
    mirror.take_in(Event::Delete(object("b")));
    assert_eq!(names(&mirror), ["c"]);
}

#[test]
fn what_does_not_fit_is_left_out_and_nothing_is_taken_for_complete_then() {
    let mut mirror = mirror();
    mirror.take_in(Event::Init);
    for number in 0..=OBJECTS_MAX {
        mirror.take_in(Event::InitApply(object(&format!("d{number}"))));
    }
    mirror.take_in(Event::InitDone);
    assert_eq!(mirror.held().len(), OBJECTS_MAX);
    assert!(mirror.is_listed() && !mirror.is_complete() && !mirror.has_room_again());
    mirror.take_in(Event::Delete(object("d1")));
    assert!(mirror.has_room_again());
}

fn mirror() -> Mirror<String> {
    Mirror::new(|object| object.metadata.name)
}

fn names(mirror: &Mirror<String>) -> Vec<&str> {
    mirror.held().values().map(String::as_str).collect()
}

fn object(name: &str) -> DynamicObject {
    let object = json!({"apiVersion": "v1", "kind": "Door", "metadata": {"name": name, "namespace": "ops"}});
    serde_json::from_value(object).unwrap()
}
