//! Requests of the control service as JSON.

use super::{File, file};

/// One of each form, and some that are almost valid.
pub(super) fn requests() -> Vec<File> {
    let door = r#"{"door": {"name": "bastion-ssh", "labels": {"team": "net"}, "spec": {"sequence": {"steps": [
  {"hosts": {"matchLabels": {"role": "edge"}}, "port": {"protocol": "PROTOCOL_TCP", "port": 7412}},
  {"hosts": {"names": ["db-1"]}, "port": {"protocol": 2, "port": "23981"}}, {"port": {"port": 5103}}],
  "withinMs": "15000"}, "sources": ["0.0.0.0/0", "::/0"], "openPorts": [{"protocol": "PROTOCOL_TCP", "port": 22}],
  "openForMs": 30000, "mode": "DOOR_MODE_OBSERVE"}}, "weak": true, "ifRevision": "7", "confirm_within_ms": 60000}"#;
    let requests = [
        ("apply", "ApplyDoor", door),
        (
            "open",
            "Open",
            r#"{"door": "bastion-ssh", "source": "203.0.113.5", "forMs": "60000", "reason": "\u00e9"}"#,
        ),
        ("close", "Close", r#"{"id": "4f", "killConnections": true}"#),
        ("explain", "Explain", r#"{"source": "2001:db8::7", "reveal": false, "sinceMs": 0}"#),
        ("hosts", "ListHosts", r#"{"pageSize": 1000, "matchLabels": {"role": "edge"}}"#),
        (
            "token",
            "CreateToken",
            r#"{"user": {"name": "ci", "role": "ROLE_OPERATOR"}, "validForMs": "86400000"}"#,
        ),
        ("log", "SetLog", r#"{"host": "db-1", "filter": "debug", "forMs": 1000}"#),
        ("watch", "WatchEvents", r#"{"door": null}"#),
        ("overview", "Overview", r#"{"seconds": 3e2}"#),
        ("empty", "ListBans", ""),
        ("almost-two", "SetLog", r#"{"host": "db-1", "controller": "ctl-1"}"#),
        ("almost-unknown", "Open", r#"{"dor": "bastion-ssh"}"#),
        ("almost-cut", "ApplyDoor", &door[..80]),
        ("almost-number", "Overview", r#"{"seconds": 4294967296}"#),
        ("almost-after", "ListBans", "{} {}"),
        ("almost-method", "Opne", "{}"),
    ];
    requests.map(|(name, method, body)| file(name, format!("{method}\n{body}"))).into()
}
