//! No page leads nowhere: relative links in Markdown are to files that are there, and to headings that those have.

use std::{collections::BTreeSet, path::Path};

use crate::tree::{self, SourceFile};

/// Each link of a page that is no URL, with its line, outside blocks of code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = vec![];
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !is_elsewhere {
                found.push((number + 1, target));
            }
        }
    }
    found
}

/// What leads to each heading of a page, as GitHub makes it: lower case, spaces as dashes, punctuation left out.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let heading = line.trim_start_matches('#');
        if in_code || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    found
}

/// The path from the top of the checkout that a link in `page` means.
fn resolved(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn trespasses(files: &[SourceFile], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let is_page = |file: &&SourceFile| Path::new(&file.path).extension().is_some_and(|ending| ending == "md");
    let mut found = vec![];
    for page in files.iter().filter(is_page) {
        for (line, link) in links(&page.text) {
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if target.is_empty() { page.path.clone() } else { resolved(&page.path, target) };
            if !exists(&path) {
                found.push(format!("{}:{line}: leads to {path}, which is not there", page.path));
                continue;
            }
            let there = files.iter().filter(is_page).find(|file| file.path == path);
            if !anchor.is_empty() && there.is_some_and(|file| !anchors(&file.text).contains(anchor)) {
                found.push(format!("{}:{line}: {path} has no heading for #{anchor}", page.path));
            }
        }
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let files = tree::files();
    tree::none(&trespasses(&files, &|path| tree::top().join(path).exists()));
}

#[test]
fn a_link_to_nothing_is_found() {
    let page = |text: &str| [SourceFile::planted("deploy/page.md", text)];
    let nothing = |_: &str| false;
    tree::found(&trespasses(&page("a [b](gone.md) c"), &nothing), &["deploy/page.md:1", "deploy/gone.md"]);
    tree::found(&trespasses(&page("\n[b](../top/)"), &nothing), &["deploy/page.md:2", "leads to top,"]);
    tree::found(&trespasses(&page("[b](#no-such)"), &|_| true), &["#no-such"]);
    let fine = "# A heading's, (name)!\n[b](#a-headings-name) [c](https://example.com/#d)\n```\n[e](f.md)\n# no-such\n```";
    tree::none(&trespasses(&page(fine), &|path| path == "deploy/page.md"));
}
