//! Holds values against a structural schema, as far as ours goes: types, fields, bounds, patterns, choices. What it does not
//! know it refuses to judge.

use regex::Regex;
use serde_json::Value;

/// What is wrong with a value, nothing if nothing is.
pub(crate) fn wrong(schema: &Value, value: &Value) -> Option<String> {
    let said = |what: &str| Some(format!("{what}: {schema:.80}"));
    if value.is_null() && schema["nullable"] == true {
        return None;
    }
    let count = |keyword: &str| schema[keyword].as_u64().map(|count| usize::try_from(count).unwrap());
    let within = |length: usize, least: &str, most: &str| {
        count(least).is_none_or(|least| least <= length) && count(most).is_none_or(|most| length <= most)
    };
    match (schema["type"].as_str().unwrap(), value) {
        ("object", Value::Object(fields)) => {
            let required = schema["required"].as_array().into_iter().flatten();
            for field in required.filter_map(Value::as_str) {
                if !fields.contains_key(field) {
                    return said(&format!("{field} is missing"));
                }
            }
            if !within(fields.len(), "minProperties", "maxProperties") {
                return said("too many fields");
            }
            fields.iter().find_map(|(name, value)| {
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Null) => said(&format!("{name} is unknown")),
                    (Value::Null, schema) | (schema, _) => wrong(schema, value),
                }
            })
        }
        ("array", Value::Array(items)) => {
            if !within(items.len(), "minItems", "maxItems") {
                return said("too few or too many");
            }
            items.iter().find_map(|item| wrong(&schema["items"], item))
        }
        ("string", Value::String(text)) => {
            let chosen = schema["enum"].as_array().is_none_or(|all| all.contains(value));
            let matches = |pattern: &str| Regex::new(pattern).unwrap().is_match(text);
            let formed = schema["pattern"].as_str().is_none_or(matches);
            let whole = within(text.chars().count(), "minLength", "maxLength") && chosen && formed;
            if whole { None } else { said("not such a text") }
        }
        ("integer", Value::Number(number)) if number.is_i64() => None,
        _ => said("of another type"),
    }
}
