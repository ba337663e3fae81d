//! `deny.toml`, by which `make audit` looks for known vulnerabilities, states what the fences state: there is one list of
//! licences and one of bans.

use std::{collections::BTreeSet, fs};

use crate::{bans::BANNED, licences, tree};

/// The texts in quotes of a list: the first of each line, which of tables is that of `crate`.
fn list(text: &str, section: &str, key: &str) -> BTreeSet<String> {
    let Some((_, section)) = text.split_once(&format!("\n[{section}]\n")) else { return BTreeSet::new() };
    let section = section.split("\n[").next().unwrap_or_default();
    let begin = format!("\n{key} = [");
    let section = format!("\n{section}");
    let Some((_, list)) = section.split_once(&begin) else { return BTreeSet::new() };
    let lines = list.lines().take_while(|line| !line.starts_with(']'));
    lines.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

fn trespasses(deny: &str) -> Vec<String> {
    let with = licences::ALLOWED_EXCEPTIONS.iter().map(|exception| format!("Apache-2.0 WITH {exception}"));
    let licences: BTreeSet<String> =
        licences::ALLOWED.iter().copied().map(str::to_owned).chain(with).collect();
    let banned: BTreeSet<String> = BANNED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut trespasses = vec![];
    for (section, key, wanted) in [("licenses", "allow", licences), ("bans", "deny", banned)] {
        let stated = list(deny, section, key);
        if stated != wanted {
            let missing: Vec<_> = wanted.difference(&stated).collect();
            let beyond: Vec<_> = stated.difference(&wanted).collect();
            trespasses.push(format!(
                "deny.toml: [{section}] {key} lacks {missing:?} and has {beyond:?} beyond the fences: `make audit` and \
                 `make test` would judge differently. Make both say the same"
            ));
        }
    }
    for line in ["unknown-registry = \"deny\"", "unknown-git = \"deny\""] {
        if !deny.lines().any(|stated| stated == line) {
            trespasses.push(format!("deny.toml: {line} is missing, which the fence of sources states"));
        }
    }
    trespasses
}

#[test]
fn deny_toml_states_what_the_fences_state() {
    tree::none(&trespasses(&fs::read_to_string(tree::top().join("deny.toml")).unwrap()));
}

#[test]
fn planted_differences_are_found() {
    let deny = fs::read_to_string(tree::top().join("deny.toml")).unwrap();
    let planted = |from: &str, to: &str| {
        assert!(deny.contains(from), "{from}");
        trespasses(&deny.replacen(from, to, 1))
    };
    tree::found(&planted("    \"ISC\",", "    "), &["licenses", "lacks", "ISC"]);
    tree::found(
        &planted("    \"ISC\",", "    \"ISC\",\n    \"GPL-3.0\","),
        &["licenses", "beyond", "GPL-3.0"],
    );
    tree::found(&planted("crate = \"openssl\"", "crate = \"opensll\""), &["bans", "openssl", "opensll"]);
    tree::found(&planted("unknown-git = \"deny\"", "unknown-git = \"allow\""), &["unknown-git"]);
}
