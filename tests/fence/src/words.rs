//! Words that may stand in one room only: what a crate's manifest lets in must still keep to its place within.

use crate::tree::{self, SourceFile};

/// A word, the beginnings of the paths where it may stand, within which folder that is checked, and why.
struct Kept {
    words: &'static [&'static str],
    rooms: &'static [&'static str],
    within: &'static str,
    why: &'static str,
}

const KEPT: &[Kept] = &[
    Kept {
        words: &["etcd_client"],
        rooms: &["controller/src/store/etcd.rs", "controller/src/store/etcd/"],
        within: "",
        why: "everybody else speaks to the Store trait, and works on the embedded store too",
    },
    Kept {
        words: &[
            "pnet::datalink",
            "pnet_datalink",
            "libc::AF_PACKET",
            "AddressFamily::Packet",
            "Domain::PACKET",
        ],
        // Its own tests put frames on real interfaces, and the filter of system calls lets it open its socket.
        rooms: &["agent/src/capture", "agent/tests/capture", "agent/src/harden/calls.rs"],
        within: "",
        why: "packets come in through the capture trait, so that tests can give bytes",
    },
    Kept {
        words: &["iptables::", "netlink_packet_netfilter"],
        rooms: &["agent/src/firewall"],
        within: "",
        why: "firewalls are drivers behind one trait",
    },
    Kept {
        words: &["tonic::Status"],
        rooms: &["agent/src/link"],
        within: "agent/src/",
        why: "the wire's errors become ours where the wire ends",
    },
];
/// This crate names the words to look for.
const FENCE: &str = "tests/fence/";

fn trespasses(files: &[SourceFile]) -> Vec<String> {
    let mut trespasses = vec![];
    let ours = |file: &&SourceFile| file.is_rust() && !file.is_generated() && !file.path.starts_with(FENCE);
    for file in files.iter().filter(ours) {
        let code = code(&file.text);
        for kept in KEPT.iter().filter(|kept| file.path.starts_with(kept.within)) {
            if kept.rooms.iter().any(|room| file.path.starts_with(room)) {
                continue;
            }
            for word in kept.words.iter().filter(|word| says(&code, word)) {
                trespasses.push(format!(
                    "{} says {word}, which belongs in {}: {}. Move the code there, or ask that room through its trait",
                    file.path,
                    kept.rooms.join(" or "),
                    kept.why
                ));
            }
        }
    }
    trespasses
}

/// Without comment lines, and on one line, so that a `use` over several lines reads as one.
fn code(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Whether code names a path, outright or by a `use` with braces such as `use tonic::{Code, Status};`.
fn says(code: &str, word: &str) -> bool {
    if starts_word(code, word) {
        return true;
    }
    let Some((parent, child)) = word.rsplit_once("::").filter(|(_, child)| !child.is_empty()) else {
        return false;
    };
    let braced = format!("use {parent}::{{");
    code.match_indices(&braced).any(|(at, _)| {
        let list = code[at + braced.len()..].split(';').next().unwrap_or_default();
        list.split([',', '{', '}', ' ']).any(|name| name == child || name.starts_with(&format!("{child}::")))
    })
}

/// Whether a word occurs that is not the end of a longer name.
fn starts_word(code: &str, word: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(word).any(|(at, _)| at == 0 || !inner(code.as_bytes()[at - 1]))
}

#[test]
fn words_keep_to_their_rooms() {
    let files = tree::files();
    let etcd = files.iter().find(|file| file.path == "controller/src/store/etcd.rs").unwrap();
    assert!(says(&code(&etcd.text), "etcd_client"), "the fence no longer recognises what it guards");
    tree::none(&trespasses(&files));
}

#[test]
fn planted_words_are_found() {
    let found = |path: &str, text: &str, named: &[&str]| {
        tree::found(&trespasses(&[SourceFile::planted(path, text)]), &[&[path], named].concat());
    };
    found("controller/src/keeper.rs", "use etcd_client::Client;", &["etcd_client", "store/etcd.rs"]);
    found(
        "agent/src/report.rs",
        "let s = socket(libc::AF_PACKET, 3, 0);",
        &["libc::AF_PACKET", "agent/src/capture"],
    );
    found("agent/src/report.rs", "use pnet::{\n    datalink::{self, Config},\n};", &["pnet::datalink"]);
    found("cli/src/main.rs", "let tables = iptables::new(false);", &["iptables::", "agent/src/firewall"]);
    found("agent/src/main.rs", "fn f() -> Result<(), tonic::Status> {}", &["agent/src/link"]);
    found("agent/src/main.rs", "use tonic::{\n    Code,\n    Status,\n};", &["tonic::Status"]);
}

#[test]
fn what_is_in_its_room_or_a_comment_is_left_alone() {
    let files = [
        ("controller/src/store/etcd/watching.rs", "use etcd_client::WatchStream;"),
        ("controller/src/store.rs", "//! Nothing here knows etcd_client::Client."),
        ("agent/src/capture/ring.rs", "libc::AF_PACKET"),
        ("agent/src/firewall/xtables.rs", "iptables::new(false)"),
        ("agent/src/link.rs", "use tonic::{Code, Status};"),
        ("controller/src/control_api.rs", "tonic::Status"),
        ("agent/src/main.rs", "use tonic::{transport::StatusLine}; use crate::myiptables::x;"),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| SourceFile::planted(path, text)).collect();
    tree::none(&trespasses(&files));
}
