//! What a lab looked like when something went wrong.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
};

use super::Question;
use crate::host::Host;

/// Lines shown of each log.
const LOG_LINES: usize = 150;

/// Commands whose output tells the state of a host.
const STATE: [&[&str]; 7] = [
    &["ip", "-brief", "address"],
    &["nft", "list", "ruleset"],
    &["iptables-save", "-c"],
    &["ip6tables-save", "-c"],
    &["ipset", "list"],
    &["ss", "-Htan"],
    &["conntrack", "-L"],
];

/// Writes it all to standard error in one go, past the test harness's capture, so that an abort loses nothing.
pub(super) fn write(name: &str, directory: &Path, hosts: &[Host], questions: &[Question]) {
    let mut text = format!("\n===== the lab '{name}' failed; this is how it was =====\n");
    for (label, host, command) in questions {
        section(&mut text, label, host, command);
    }
    for host in hosts {
        for command in STATE {
            section(&mut text, &format!("{}: {}", host.name(), command.join(" ")), host, command);
        }
    }
    let mut logs: Vec<_> = fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for path in logs {
        let content = fs::read(&path).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines: Vec<_> = content.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let _ = writeln!(
            text,
            "--- {} (last {} of {} lines)\n{}",
            path.file_name().unwrap_or_default().to_string_lossy(),
            tail.len(),
            lines.len(),
            tail.join("\n")
        );
    }
    let _ = writeln!(text, "===== end of the lab '{name}' =====");
    let _ = io::stderr().write_all(text.as_bytes());
}

/// One command's output, unless there is none.
fn section<S: AsRef<std::ffi::OsStr>>(text: &mut String, label: &str, host: &Host, command: &[S]) {
    let said = match host.run(command) {
        Ok(output) if output.code == 0 => output.stdout,
        Ok(output) => format!("exit code {}: {}", output.code, output.stderr.trim()),
        Err(error) => format!("{error:#}"),
    };
    if !said.trim().is_empty() {
        let _ = writeln!(text, "--- {label}\n{}", said.trim_end());
    }
}
