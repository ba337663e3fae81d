//! What is minted is taken, and nothing else.

use fleetknock_core::identity::Role;
use proptest::prelude::*;

use super::*;

#[test]
fn a_token_is_spelt_like_this() {
    let (secret, hash) = Secret::mint(Kind::User, &id(), &bytes());
    assert_eq!(
        secret.reveal(),
        "fkt_0123456789abcdef_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyputcub"
    );
    assert_eq!(secret.reveal().len(), LENGTH);
    // printf of the bytes 0 to 31 | sha256sum
    assert_eq!(hash, "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd");
    assert_eq!(format!("{secret:?}"), "Secret");
    let shown = format!("{:?}", Presented::parse(secret.reveal().as_bytes()).unwrap());
    assert_eq!(shown, "Presented(fkt_0123456789abcdef)");
}

#[test]
fn a_token_is_good_for_its_holder_until_it_ends() {
    for kind in [Kind::User, Kind::Host] {
        let (secret, record) = minted(kind);
        let presented = Presented::parse(secret.reveal().as_bytes()).unwrap();
        assert_eq!(presented.id(), &record.id);
        assert_eq!(presented.judge(kind, Some(&record), at(99)), Ok(()));
        assert_eq!(
            presented.judge(kind, Some(&record), at(100)),
            Err(TokenError::Expired { kind, at: at(100) })
        );
        assert_eq!(presented.judge(kind, None, at(99)), Err(TokenError::Unknown { kind }));
    }
}

#[test]
fn a_token_of_one_kind_is_not_one_of_the_other() {
    for (kind, wanted) in [(Kind::User, Kind::Host), (Kind::Host, Kind::User)] {
        let (secret, record) = minted(kind);
        let presented = Presented::parse(secret.reveal().as_bytes()).unwrap();
        assert_eq!(presented.judge(wanted, Some(&record), at(1)), Err(TokenError::OtherKind { wanted }));
        // A record of the other kind under the same name, with the same secret.
        let (_, other) = minted(wanted);
        assert_eq!(presented.judge(kind, Some(&other), at(1)), Err(TokenError::Unknown { kind }));
    }
}

#[test]
fn what_the_store_holds_does_not_log_in() {
    let (_, record) = minted(Kind::User);
    let hash = HEXLOWER.decode(record.hash.as_bytes()).unwrap();
    let (from_hash, _) = Secret::mint(Kind::User, &record.id, &hash.try_into().unwrap());
    let presented = Presented::parse(from_hash.reveal().as_bytes()).unwrap();
    let kind = Kind::User;
    assert_eq!(presented.judge(kind, Some(&record), at(1)), Err(TokenError::Wrong { kind }));
    for text in [record.hash.clone(), format!("fkt_{}_{}", record.id, record.hash)] {
        assert_eq!(Presented::parse(text.as_bytes()), Err(TokenError::Malformed));
    }
}

#[test]
fn a_record_whose_hash_is_broken_lets_nobody_in() {
    let (secret, record) = minted(Kind::User);
    let presented = Presented::parse(secret.reveal().as_bytes()).unwrap();
    for hash in [String::new(), "00".to_owned(), record.hash[..62].to_owned(), record.hash.to_uppercase()] {
        let broken = TokenRecord { hash, ..record.clone() };
        assert!(presented.judge(Kind::User, Some(&broken), at(1)).is_err(), "{broken:?}");
    }
}

#[test]
fn a_wrong_token_is_told_as_one_that_is_not_there() {
    let kind = Kind::User;
    assert_eq!(TokenError::Wrong { kind }.to_string(), TokenError::Unknown { kind }.to_string());
}

#[test]
fn whatever_is_cut_or_mistyped_is_malformed() {
    let (secret, _) = minted(Kind::User);
    let text = secret.reveal();
    for end in 0..text.len() {
        assert_eq!(Presented::parse(&text.as_bytes()[..end]), Err(TokenError::Malformed), "{end}");
    }
    for place in 0..text.len() {
        for other in [b'a', b'7', b'_', b'A', b'=', b' ', 0xff] {
            let mut typed = text.as_bytes().to_vec();
            if std::mem::replace(&mut typed[place], other) != other {
                assert_eq!(Presented::parse(&typed), Err(TokenError::Malformed), "{place} {other}");
            }
        }
    }
    for wrong in [format!("{text}a"), format!("{text} "), text.to_uppercase(), text.replacen("fkt", "fke", 1)]
    {
        assert_eq!(Presented::parse(wrong.as_bytes()), Err(TokenError::Malformed), "{wrong}");
    }
}

proptest! {
    #[test]
    fn what_is_minted_is_taken(random: [u8; RANDOM], other: [u8; RANDOM], number: u64) {
        let record = |random| {
            let id = TokenId::new(number);
            let (secret, hash) = Secret::mint(Kind::Host, &id, random);
            (secret, TokenRecord { id, hash, ..minted(Kind::Host).1 })
        };
        let (secret, kept) = record(&random);
        let presented = Presented::parse(secret.reveal().as_bytes()).unwrap();
        prop_assert_eq!(presented.judge(Kind::Host, Some(&kept), at(1)), Ok(()));
        let (_, another) = record(&other);
        prop_assert_eq!(presented.judge(Kind::Host, Some(&another), at(1)).is_ok(), random == other);
    }

    #[test]
    fn nothing_that_is_shown_breaks_the_parser(text: Vec<u8>, like in "fk[te]_[0-9a-f]{16}_[a-z2-7]{50,60}") {
        prop_assert!(Presented::parse(&text).is_err());
        prop_assert!(Presented::parse(like.as_bytes()).is_err());
    }
}

fn id() -> TokenId {
    TokenId::new(0x0123_4567_89ab_cdef)
}

fn bytes() -> [u8; RANDOM] {
    std::array::from_fn(|place| place as u8)
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1_000)
}

fn minted(kind: Kind) -> (Secret, TokenRecord) {
    let (secret, hash) = Secret::mint(kind, &id(), &bytes());
    let holder = match kind {
        Kind::Host => Holder::Host("db-1".parse().unwrap()),
        Kind::User => Holder::User { name: "alice".parse().unwrap(), role: Role::Admin },
    };
    let record = TokenRecord {
        id: id(),
        holder,
        hash,
        created: at(0),
        expires: at(100),
        created_by: "user a".to_owned(),
    };
    (secret, record)
}
