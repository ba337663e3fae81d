//! A key is read as it was written, and nothing that says why not shows any of it.

use super::*;

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn a_key_is_read_as_it_was_written() {
    let line = format!("{LINE_WORD} 2026-a {SECRET}");
    for text in [line.clone(), format!("{line}\n"), format!("  {line}\r\n")] {
        let key = SealKey::parse(&text).unwrap();
        assert_eq!(key.id().as_str(), "2026-a");
        assert_eq!(key.bytes().as_slice(), (0..32).collect::<Vec<u8>>());
        assert_eq!(*key.line(), line);
    }
}

#[test]
fn two_new_keys_differ() {
    let new = || SealKey::generate(KeyId::random(7)).unwrap();
    let (one, other) = (new(), new());
    assert_ne!(one.bytes(), other.bytes());
    assert_ne!(one.bytes(), &[0; KEY_BYTES]);
    assert_eq!(one.id().as_str(), "key-00000007");
    assert_eq!(SealKey::parse(&one.line()).unwrap().bytes(), one.bytes());
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let long = format!("{LINE_WORD} {} {SECRET}", "x".repeat(ID_MAX + 1));
    for (text, wanted) in [
        (String::new(), SealKeyError::Form),
        (SECRET.to_owned(), SealKeyError::Form),
        (format!("{LINE_WORD} {SECRET}"), SealKeyError::Form),
        (format!("fleetknock-seal-2 a {SECRET}"), SealKeyError::Form),
        (format!("{LINE_WORD} a {SECRET} more"), SealKeyError::Form),
        (format!("{LINE_WORD} a {SECRET}\n{LINE_WORD} b {SECRET}"), SealKeyError::Form),
        (format!("{LINE_WORD} a/b {SECRET}"), SealKeyError::Id),
        (long, SealKeyError::Id),
        (format!("{LINE_WORD} a {}", &SECRET[..40]), SealKeyError::Secret),
        (format!("{LINE_WORD} a {}", SECRET.replace('=', "")), SealKeyError::Secret),
        (format!("{LINE_WORD} a {SECRET}{SECRET}"), SealKeyError::Secret),
    ] {
        let error = SealKey::parse(&text).unwrap_err();
        assert_eq!(error, wanted, "{text}");
        assert!(!error.to_string().contains(&SECRET[..8]) && !format!("{error:?}").contains(&SECRET[..8]));
    }
}

#[test]
fn a_key_prints_its_name_and_nothing_else() {
    let key = SealKey::parse(&format!("{LINE_WORD} a {SECRET}")).unwrap();
    assert_eq!(format!("{key:?}"), r#"SealKey { id: KeyId("a"), .. }"#);
    assert_eq!(format!("{key:#?}").matches(char::is_numeric).count(), 0);
}
