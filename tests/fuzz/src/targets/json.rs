//! Requests of the control service as JSON, as browsers and programs write them: a method's name, a line's end, the body.

use std::sync::LazyLock;

use fleetknock_controller::web::json::{self, Methods};

static METHODS: LazyLock<Option<Methods>> = LazyLock::new(|| Methods::new().ok());

/// What JSON is made of, and what the requests have.
pub(super) const WORDS: &[&[u8]] = &[
    b"ApplyDoor\n",
    b"Open\n",
    b"CreateToken\n",
    b"SetLog\n",
    b"WatchEvents\n",
    b"\"door\":",
    b"\"spec\":",
    b"\"sequence\":",
    b"\"steps\":",
    b"\"withinMs\":",
    b"\"within_ms\":",
    b"\"matchLabels\":",
    b"\"PROTOCOL_TCP\"",
    b"\"strengthBits\":",
    b"\"18446744073709551616\"",
    b"1e309",
    b"-0",
    b"\"NaN\"",
    b"null",
    b"true",
    b"[[[[[[[[",
    b"{\"door\":{\"spec\":{",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
];

/// What is read of a request is written, and read as the same.
pub(super) fn json(bytes: &[u8]) {
    assert!(METHODS.is_some(), "the descriptors cannot be read");
    let Some(methods) = METHODS.as_ref() else { return };
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(name) = std::str::from_utf8(&bytes[..end]) else { return };
    let Some(method) = methods.of(name) else { return };
    let Ok(request) = method.read(&bytes[end + 1..]) else { return };
    let written = json::write(&request);
    assert!(written.is_ok(), "what was read cannot be written");
    let written = written.unwrap_or_default();
    let again = method.read(written.as_bytes()).ok();
    assert!(again.is_some(), "what was written cannot be read: {written}");
    // Maps have no order, and what is written out is a field that has its default.
    let sorted = |text: String| {
        let mut bytes = text.into_bytes();
        bytes.sort_unstable();
        bytes
    };
    let again = again.and_then(|again| json::write(&again).ok()).unwrap_or_default();
    assert!(sorted(again) == sorted(written), "a request changes when it is written and read");
}
