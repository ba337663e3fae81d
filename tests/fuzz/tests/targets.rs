//! Every target reads its committed corpus and its share of mutants, and no promise breaks.

#![cfg(test)]

use std::{env, path::PathBuf};

use fleetknock_fuzz::{
    corpus,
    engine::{self, EXECUTIONS, Settings, Work},
    targets,
};
use fleetknock_proto::v1::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;

#[test]
fn every_target_withstands_its_executions() {
    let works: Vec<Work> = targets::ALL
        .iter()
        .map(|target| {
            let files = corpus::committed(target).unwrap_or_else(|error| panic!("{}: {error}", target.name));
            assert!(!files.is_empty(), "{} has no corpus", target.name);
            Work { target: *target, corpus: files.into_iter().map(|(_, bytes)| bytes).collect() }
        })
        .collect();
    let wanted: Vec<u64> = works.iter().map(|work| EXECUTIONS + work.corpus.len() as u64).collect();
    let outcome = engine::run(works, Settings::default());
    for (name, count, took) in &outcome.done {
        println!("{name}: {count} executions, {took:.1?}");
    }
    let kept: Vec<String> = outcome
        .crashes
        .iter()
        .map(|crash| {
            let (_, command) = crash.keep(&crashes()).unwrap();
            format!("{crash}\n  replay: {command}")
        })
        .collect();
    assert!(kept.is_empty(), "\n{}\n", kept.join("\n"));
    assert_eq!(outcome.done.iter().map(|(_, count, _)| *count).collect::<Vec<_>>(), wanted);
}

#[test]
fn the_committed_corpus_is_what_the_code_gives() {
    for target in targets::ALL {
        let (made, committed) = (corpus::files(target), corpus::committed(target).unwrap_or_default());
        let names = |files: &[corpus::File]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let remedy = "write it anew: cargo run -p fleetknock-fuzz -- corpus";
        assert_eq!(names(&made), names(&committed), "{}: {remedy}", target.name);
        for ((name, made), (_, committed)) in made.iter().zip(&committed) {
            assert!(made == committed, "{}/{name} differs; {remedy}", target.name);
        }
    }
}

#[test]
fn the_corpus_is_small_and_of_every_target() {
    let mut folders: Vec<String> = std::fs::read_dir(corpus::folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut names: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
    for target in targets::ALL {
        let files = corpus::files(target);
        assert!(files.len() <= corpus::FILES_MAX, "{}: {} files", target.name, files.len());
        for (name, bytes) in files {
            assert!(bytes.len() <= corpus::FILE_MAX, "{}/{name}: {} bytes", target.name, bytes.len());
        }
    }
}

#[test]
fn every_message_of_the_wire_is_read() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let ours = set.file.iter().filter(|file| file.package() == "fleetknock.v1");
    let mut of_wire: Vec<String> =
        ours.flat_map(|file| &file.message_type).map(|message| message.name().to_owned()).collect();
    of_wire.sort();
    let read: Vec<_> = targets::messages::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(read, of_wire, "add it to targets/messages.rs, in the order of names");
}

/// Beside this test program, in the target directory.
fn crashes() -> PathBuf {
    let program = env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().join("fuzz-crashes")
}
