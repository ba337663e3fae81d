//! That the fuzzing itself can fail: planted bugs are found, named and replayed.

use super::*;

const CORPUS: [&[u8]; 3] = [b"hello FLEET world", b"kind: Door\nspec: {}\n", &[0, 1, 2, 3]];

#[test]
fn a_bug_behind_four_bytes_close_to_an_entry_is_found() {
    let crash = only_crash(target("magic", |input| {
        assert!(!input.windows(4).any(|four| four == b"FLEA"), "planted");
    }));
    assert!(crash.message.contains("planted"));
    assert!(crash.input.windows(4).any(|four| four == b"FLEA"));
}

#[test]
fn a_bug_behind_a_word_of_the_dictionary_is_found_and_not_without_it() {
    let word = |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        assert!(!(text.contains("kind") && text.contains("knockKnock")), "planted");
    };
    let without = target("word", word);
    assert_eq!(outcome(without).crashes, []);
    let crash = only_crash(Target { dictionary: &[b"knockKnock"], ..without });
    assert!(crash.to_string().contains("target word, seed 7, execution "), "{crash}");
}

#[test]
fn a_bug_that_an_entry_has_is_found_without_any_mutant() {
    let target = target("entry", |input| assert_ne!(input, [0, 1, 2, 3]));
    let crash = run(vec![work(target)], Settings { executions: 0, ..settings() }).crashes.remove(0);
    assert_eq!((crash.at, crash.input.as_slice()), (Execution::Entry(2), &[0, 1, 2, 3][..]));
}

#[test]
fn a_crash_comes_back_from_its_number_and_from_its_file() {
    let planted = target("replayed", |input| assert!(!input.ends_with(&[255]), "planted"));
    let crash = only_crash(planted);
    let Execution::Mutant(number) = crash.at else { panic!("{crash}") };
    assert_eq!(mutant(&work(planted), crash.seed, number), crash.input);
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = crash.keep(folder.path()).unwrap();
    assert!(command.starts_with("cargo run -p fleetknock-fuzz -- replay replayed "), "{command}");
    assert!(command.ends_with(file.to_str().unwrap()));
    assert_eq!(execute(&planted, &fs::read(file).unwrap()), Err("planted".to_owned()));
}

#[test]
fn an_input_that_never_ends_is_told() {
    let stuck = target("stuck", |input| {
        if input == CORPUS[1] {
            loop {
                thread::sleep(Duration::from_secs(1));
            }
        }
    });
    let crash = only_crash(stuck);
    assert_eq!(crash.at, Execution::Entry(1));
    assert!(crash.message.contains("it took more than"), "{crash}");
}

#[test]
fn one_broken_target_does_not_end_the_others() {
    let broken = target("broken", |_| assert_eq!(1, 2));
    let fine = target("fine", |_| {});
    let outcome = run(vec![work(broken), work(fine)], settings());
    assert_eq!(outcome.crashes.len(), 1);
    assert_eq!(outcome.done[1].1, settings().executions + CORPUS.len() as u64);
}

#[test]
fn mutants_differ_and_follow_from_their_number() {
    let work = work(target("any", |_| {}));
    let of = |seed| (0..1_000).map(|number| mutant(&work, seed, number)).collect::<Vec<_>>();
    let (one, again, other) = (of(1), of(1), of(2));
    assert_eq!(one, again);
    assert_ne!(one, other);
    let different: std::collections::BTreeSet<_> = one.iter().collect();
    assert!(different.len() > 500, "{} of 1,000 mutants differ", different.len());
    assert!(one.iter().all(|input| input.len() <= INPUT_MAX));
}

fn only_crash(target: Target) -> Crash {
    let mut crashes = outcome(target).crashes;
    assert_eq!(crashes.len(), 1, "{crashes:?}");
    crashes.remove(0)
}

fn outcome(target: Target) -> Outcome {
    run(vec![work(target)], settings())
}

fn settings() -> Settings {
    Settings { executions: 50_000, seed: 7, threads: 2 }
}

fn work(target: Target) -> Work {
    Work { target, corpus: CORPUS.map(<[u8]>::to_vec).to_vec() }
}

fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, dictionary: &[] }
}
