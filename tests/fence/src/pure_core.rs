//! Core decides and does nothing else: no clock, no randomness, no runtime, no sockets, not even far below it.

use std::collections::BTreeSet;

use crate::tree;

/// Everything core may be built on, in its whole closure. A name goes in here only with what it is for, once somebody
/// has looked that it neither asks a clock nor draws random numbers nor opens anything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ourselves", &["fleetknock-core"]),
    ("addresses", &["ipnet"]),
    ("durations as people write them; pure formatting", &["humantime"]),
    ("names close to a misspelt one", &["strsim"]),
    ("errors", &["thiserror", "thiserror-impl"]),
    (
        "maps of known memory, hashed without random seeds",
        &["hashbrown", "rustc-hash", "allocator-api2", "equivalent", "foldhash"],
    ),
    (
        "values in and out",
        &["serde", "serde_core", "serde_derive", "serde_json", "zmij", "itoa", "ryu", "memchr"],
    ),
    (
        "doors in YAML; parsing of text in memory",
        &[
            "serde-saphyr",
            "granit-parser",
            "saphyr-parser",
            "annotate-snippets",
            "anstyle",
            "arraydeque",
            "base64",
            "cfg-if",
            "core_detect",
            "encoding_rs",
            "encoding_rs_io",
            "multiversion_no_op",
            "nohash-hasher",
            "num-traits",
            "scopeguard",
            "simdutf8",
            "smallvec",
            "unicode-width",
        ],
    ),
    ("macros, at build time only", &["proc-macro2", "quote", "syn", "unicode-ident"]),
    (
        "cryptography that takes its keys and random bytes as arguments",
        &[
            "hmac",
            "sha2",
            "sha1",
            "md-5",
            "blake2",
            "aes",
            "cbc",
            "chacha20",
            "chacha20poly1305",
            "poly1305",
            "x25519-dalek",
            "curve25519-dalek",
            "curve25519-dalek-derive",
            "fiat-crypto",
            "ed25519-dalek",
            "ed25519",
            "signature",
            "subtle",
            "zeroize",
            "zeroize_derive",
            "digest",
            "block-buffer",
            "block-padding",
            "crypto-common",
            "cipher",
            "inout",
            "hybrid-array",
            "generic-array",
            "typenum",
            "universal-hash",
            "opaque-debug",
            "aead",
            "cpufeatures",
            "cmov",
            "ctutils",
            "const-oid",
            "libc",
        ],
    ),
];
/// What no comment can justify; named apart for a better message. The list above would refuse them anyway.
const NEVER: &[(&str, &str)] = &[
    ("tokio", "an async runtime"),
    ("async-std", "an async runtime"),
    ("smol", "an async runtime"),
    ("futures-executor", "an async runtime"),
    ("mio", "sockets"),
    ("socket2", "sockets"),
    ("nix", "system calls"),
    ("rustix", "system calls"),
    ("chrono", "a clock"),
    ("time", "a clock"),
    ("jiff", "a clock"),
    ("rand", "randomness"),
    ("rand_core", "randomness"),
    ("getrandom", "randomness"),
    ("fastrand", "randomness"),
];

/// What core is built on, and should not be.
fn trespasses(closure: &BTreeSet<String>) -> Vec<String> {
    let allowed = |name: &str| ALLOWED.iter().any(|(_, names)| names.contains(&name));
    let mut trespasses = vec![];
    for name in closure.iter().filter(|name| !allowed(name)) {
        let what =
            NEVER.iter().find(|(never, _)| never == name).map_or("not known to be pure", |(_, what)| what);
        trespasses.push(format!(
            "fleetknock-core is built on {name} ({what}): core takes time and random bytes as arguments and does no \
             input or output; `cargo tree -p fleetknock-core -e normal -i {name}` shows the way in. Drop it, turn its \
             feature off, or, if it is pure, add it to ALLOWED in {} with its purpose",
            file!()
        ));
    }
    trespasses
}

/// The first word of each line of `cargo tree --prefix none`.
fn names(tree: &str) -> BTreeSet<String> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn core_is_built_on_nothing_that_acts() {
    // Not from the metadata: there the features that other members of the workspace ask for would count too.
    let tree =
        tree::cargo(&["tree", "-p", "fleetknock-core", "-e", "normal", "--all-features", "--prefix", "none"]);
    let closure = names(&tree);
    assert!(closure.contains("fleetknock-core") && closure.contains("serde"), "{tree}");
    tree::none(&trespasses(&closure));
}

#[test]
fn a_planted_runtime_is_found() {
    let closure = names("fleetknock-core v0.1.0 (here)\nserde v1.0.0\ntokio v1.54.1 (*)\nserde v1.0.0 (*)\n");
    tree::found(&trespasses(&closure), &["tokio", "an async runtime", "cargo tree"]);
}

#[test]
fn a_planted_stranger_is_found() {
    tree::found(&trespasses(&names("left-pad v1.0.0")), &["left-pad", "not known to be pure", "ALLOWED"]);
}

#[test]
fn what_is_never_allowed_is_not_allowed_by_mistake() {
    for (never, _) in NEVER {
        assert!(!ALLOWED.iter().any(|(_, names)| names.contains(never)), "{never}");
    }
}
