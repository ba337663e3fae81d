//! What is sealed opens where it was sealed, with the key that sealed it, unchanged; and nowhere else, nor otherwise.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::{
    record::{self, IdentityRecord},
    seal,
};

const FLEET: &str = "default";
const PLACE: &str = "doors/bastion-ssh";
const NONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];

proptest! {
    #[test]
    fn what_was_sealed_opens(
        plain in proptest::collection::vec(any::<u8>(), 0..600),
        secret in any::<[u8; 32]>(),
        nonce in any::<[u8; NONCE_BYTES]>(),
        place in "[a-z]{1,8}/[a-z0-9-]{1,20}",
        others in 0_u8..3,
    ) {
        let plain = Bytes::from(plain);
        let sealed = ring(FLEET, vec![key("a", secret)]).seal(&place, &plain, nonce).unwrap();
        prop_assert_eq!(state_of(&sealed), State::Sealed("a".parse().unwrap()));
        // Whatever keys stand before and after it.
        let mut keys: Vec<_> = (0..others).map(|n| key(&format!("k{n}"), [n; 32])).collect();
        keys.push(key("a", secret));
        keys.push(key("z", [1; 32]));
        prop_assert_eq!(ring(FLEET, keys).open(&place, &sealed), Ok(plain));
    }

    #[test]
    fn a_changed_byte_makes_it_no_record(at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let sealed = sealed();
        let mut changed = sealed.to_vec();
        let at = at.index(changed.len());
        changed[at] ^= mask;
        is_no_record(changed.into())?;
    }

    #[test]
    fn a_part_of_it_is_no_record(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let sealed = sealed();
        let (from, to) = (from.index(sealed.len()), to.index(sealed.len()));
        is_no_record(sealed.slice(from.min(to)..from.max(to)))?;
    }

    #[test]
    fn it_opens_nowhere_else(place in "[a-z]{1,8}/[a-z0-9-]{1,20}", fleet in "[a-z]{1,12}") {
        prop_assume!(place != PLACE && fleet != FLEET);
        let sealed = sealed();
        let refused = Err(OpenError::Refused("a".parse().unwrap()));
        prop_assert_eq!(&ring(FLEET, vec![key("a", [7; 32])]).open(&place, &sealed), &refused);
        prop_assert_eq!(&ring(&fleet, vec![key("a", [7; 32])]).open(PLACE, &sealed), &refused);
    }

    #[test]
    fn any_bytes_are_looked_at_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = state_of(&bytes);
        let _ = ring(FLEET, vec![key("a", [7; 32])]).open(PLACE, &bytes);
        let _ = seal::why_unopened(&bytes);
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let sealed = sealed();
    for at in 0..sealed.len() {
        for mask in [1, 2, 0x20, 0x80] {
            let mut changed = sealed.to_vec();
            changed[at] ^= mask;
            is_no_record(changed.into()).unwrap();
        }
    }
}

#[test]
fn another_key_does_not_open_it() {
    let sealed = sealed();
    let id = || "a".parse().unwrap();
    let open = |keys| ring(FLEET, keys).open(PLACE, &sealed).unwrap_err();
    assert_eq!(open(vec![]), OpenError::UnknownKey(id()));
    assert_eq!(open(vec![key("b", [7; 32])]), OpenError::UnknownKey(id()));
    assert_eq!(open(vec![key("a", [8; 32])]), OpenError::Refused(id()));
}

#[test]
fn what_is_sealed_twice_looks_different() {
    let ring = ring(FLEET, vec![key("a", [7; 32])]);
    let plain = Bytes::from_static(b"tcp/7412");
    let once = |nonce: u8| ring.seal(PLACE, &plain, [nonce; NONCE_BYTES]).unwrap();
    assert_ne!(once(1), once(2));
    assert!(!once(1).windows(4).any(|window| window == b"7412"));
}

/// The bytes of one sealed value, so that what is in somebody's store stays readable. The text was computed by another
/// implementation, written from RFC 8439 and the draft.
#[test]
fn the_form_stays_what_it_is() {
    let known =
        r#"{"format":2,"sealed":{"key":"a","nonce":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ","text":"TEXT"}}"#;
    let plain = Bytes::from_static(b"tcp/7412");
    let ring = ring(FLEET, vec![key("a", [7; 32])]);
    let sealed = ring.seal(PLACE, &plain, NONCE).unwrap();
    let text = "yhGSpUueSFA+nw9fqqfo4CptHkw51qkt";
    assert_eq!(sealed, known.replace("TEXT", text));
    assert_eq!(ring.open(PLACE, &sealed).unwrap(), plain);
}

#[test]
fn without_a_key_values_stay_as_they_are() {
    let none = ring(FLEET, vec![]);
    let plain = Bytes::from_static(b"{\"format\":1,\"record\":{}}");
    assert!(none.is_empty() && none.first().is_none());
    assert_eq!(none.seal(PLACE, &plain, NONCE).unwrap(), plain);
    assert_eq!(none.open(PLACE, &plain).unwrap(), plain);
    assert_eq!(state_of(&plain), State::Clear);
}

#[test]
fn a_build_without_seals_would_say_that_it_is_too_old() {
    // What such a build looks at first.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(&sealed()).unwrap();
    assert_eq!(format, 2);
}

#[test]
fn keys_of_a_ring_have_names_of_their_own() {
    let twice = Keyring::new(FLEET, vec![key("a", [1; 32]), key("b", [2; 32]), key("a", [3; 32])]);
    assert_eq!(twice.unwrap_err(), KeyringError::Twice("a".parse().unwrap()));
    let many = (0..=KEYS_MAX).map(|n| key(&format!("k{n}"), [7; 32])).collect();
    assert_eq!(Keyring::new(FLEET, many).unwrap_err(), KeyringError::Many(KEYS_MAX + 1));
}

#[test]
fn a_ring_prints_names_and_no_secret() {
    let printed = format!("{:?}", ring(FLEET, vec![key("a", [0xa7; 32])]));
    assert!(printed.contains(r#""a""#), "{printed}");
    assert!(!printed.contains("167") && !printed.to_lowercase().contains("a7"), "{printed}");
}

/// Neither opens to what was sealed, nor is what it opens to a record.
fn is_no_record(value: Bytes) -> Result<(), TestCaseError> {
    let opened = ring(FLEET, vec![key("a", [7; 32])]).open(PLACE, &value);
    if let Ok(bytes) = opened {
        // Only what does not look sealed is handed on, as it is.
        prop_assert_eq!(&bytes, &value);
        let key = record::Key::Identity;
        prop_assert!(record::decode::<IdentityRecord>(&key, &bytes).is_err());
    }
    Ok(())
}

fn sealed() -> Bytes {
    let plain =
        record::encode(&IdentityRecord { id: "0123456789abcdef".to_owned(), new: false, missed: false })
            .unwrap();
    ring(FLEET, vec![key("a", [7; 32])]).seal(PLACE, &plain, NONCE).unwrap()
}

fn ring(fleet: &str, keys: Vec<SealKey>) -> Keyring {
    Keyring::new(fleet, keys).unwrap()
}

fn key(id: &str, bytes: [u8; 32]) -> SealKey {
    SealKey::new(id.parse().unwrap(), Zeroizing::new(bytes))
}
