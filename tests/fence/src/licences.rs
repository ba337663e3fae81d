//! Every package's licence lets us ship under Apache-2.0 or MIT, at the receiver's choice.

use cargo_metadata::Metadata;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::tree;

/// Licences that ask for no more than that their text goes along.
pub(crate) const ALLOWED: &[&str] = &[
    "Apache-2.0",          // permissive, with a patent grant; our own
    "MIT",                 // permissive; our own
    "BSD-2-Clause",        // permissive, as MIT
    "BSD-3-Clause",        // permissive, and no advertising with the authors' names
    "ISC",                 // permissive, as MIT in other words: ring, untrusted
    "Zlib",                // permissive, asks only not to claim authorship: foldhash, const_format
    "0BSD",                // permissive without even the notice
    "Unlicense",           // public domain; its packages offer MIT as well
    "CC0-1.0",             // public domain
    "Unicode-3.0",         // permissive, for the tables in unicode-ident
    "CDLA-Permissive-2.0", // a licence for data, asks only to be passed on: the list of public authorities in webpki-root-certs
];
/// Exceptions that only ever give more rights.
pub(crate) const ALLOWED_EXCEPTIONS: &[&str] = &["LLVM-exception"];

fn trespasses<'a>(packages: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Vec<String> {
    let mut trespasses = vec![];
    for (package, licence) in packages {
        let why = match licence.map(|licence| (licence, Expression::parse_mode(licence, ParseMode::LAX))) {
            None => "names no licence".to_owned(),
            Some((licence, Err(_))) => format!("names {licence:?}, which is no SPDX expression"),
            Some((licence, Ok(expression))) if !expression.evaluate(is_allowed) => {
                format!("is under {licence:?}, which cannot be met with {ALLOWED:?}")
            }
            Some(_) => continue,
        };
        trespasses.push(format!(
            "{package} {why}: we ship it, in the programs or their tests. Replace it (`cargo tree -i {package}` shows \
             who asks for it), or, if the licence only asks to be passed on, add it to ALLOWED in {} with the reason",
            file!()
        ));
    }
    trespasses
}

fn is_allowed(required: &LicenseReq) -> bool {
    let licence = required.license.id().is_some_and(|id| ALLOWED.contains(&id.name));
    let exception = match &required.addition {
        None => true,
        Some(addition) => addition.id().is_some_and(|id| ALLOWED_EXCEPTIONS.contains(&id.name)),
    };
    licence && exception
}

fn licences(metadata: &Metadata) -> impl Iterator<Item = (&str, Option<&str>)> {
    metadata.packages.iter().map(|package| (package.name.as_str(), package.license.as_deref()))
}

#[test]
fn every_licence_lets_us_ship() {
    let metadata = tree::packages();
    assert!(metadata.packages.len() > 100);
    tree::none(&trespasses(licences(&metadata)));
}

#[test]
fn planted_licences_are_found() {
    for (licence, named) in [
        (Some("GPL-3.0-or-later"), "GPL-3.0-or-later"),
        (Some("MIT AND GPL-2.0-only"), "GPL-2.0-only"),
        (Some("LGPL-2.1-or-later"), "LGPL"),
        (Some("AGPL-3.0"), "AGPL"),
        (Some("Apache-2.0 WITH Classpath-exception-2.0"), "Classpath"),
        (Some("Our Own Licence"), "no SPDX expression"),
        (None, "no licence"),
    ] {
        tree::found(&trespasses([("planted", licence)].into_iter()), &["planted", named, "cargo tree"]);
    }
}

#[test]
fn a_choice_is_enough() {
    let fine = [
        "MIT OR GPL-3.0",
        "MIT/Apache-2.0",
        "Apache-2.0 WITH LLVM-exception OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ];
    tree::none(&trespasses(fine.into_iter().map(|licence| ("planted", Some(licence)))));
}
