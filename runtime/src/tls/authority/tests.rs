//! What is signed says what was ordered, and a request proves its key.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::tls::tests::lab::DAY;

fn order() -> Order {
    Order {
        common_name: "a".to_owned(),
        uri: "x://blue/host/a".to_owned(),
        dns_names: vec!["a.example".to_owned()],
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        server: true,
        client: true,
        valid_for: DAY,
    }
}

#[test]
fn what_is_signed_says_what_was_ordered() {
    let now = SystemTime::now();
    let (authority, _) = Authority::create("the CA", "x://blue/ca", 10 * DAY, now).unwrap();
    let own = authority.certificate();
    assert!(own.is_authority);
    assert_eq!((own.subject.as_str(), own.uris.as_slice()), ("CN=the CA", &["x://blue/ca".to_owned()][..]));

    let key = PrivateKey::generate().unwrap();
    let asked = PublicKey::from_request(&key.request().unwrap()).unwrap();
    let first = authority.sign(&asked, &order(), now).unwrap();
    let second = authority.sign(&key.public().unwrap(), &order(), now).unwrap().certificate;
    assert_eq!(
        Certificate::from_pem(first.pem.as_bytes()).unwrap(),
        std::slice::from_ref(&first.certificate)
    );
    assert!(authority.has_signed(first.pem.as_bytes()).unwrap());
    let first = first.certificate;
    assert_ne!(first.serial, second.serial);
    assert_eq!(first.serial.len(), 32);
    assert_eq!(Certificate { serial: second.serial.clone(), ..first.clone() }, second);
    assert_eq!((first.subject.as_str(), first.issuer.as_str()), ("CN=a", "CN=the CA"));
    assert_eq!(first.uris, [order().uri]);
    assert_eq!((first.dns_names, first.addresses), (order().dns_names, order().addresses));
    assert_eq!((first.is_authority, first.key.as_str()), (false, "EC 256 bit"));
    assert_eq!(first.purposes, ["server", "client"]);
    assert_eq!(first.not_after.duration_since(first.not_before).unwrap(), DAY + BACKDATED);

    // No longer than the authority itself.
    let long = authority.sign(&asked, &Order { valid_for: 99 * DAY, ..order() }, now).unwrap();
    assert_eq!(long.certificate.not_after, authority.certificate().not_after);
    assert!(matches!(authority.sign(&asked, &order(), now + 11 * DAY), Err(AuthorityError::Over { .. })));
    let odd = Order { uri: "x://ü".to_owned(), ..order() };
    assert!(matches!(authority.sign(&asked, &odd, now), Err(AuthorityError::Rcgen(_))));
    let nameless = Order { common_name: "n".repeat(65), client: false, ..order() };
    let nameless = authority.sign(&asked, &nameless, now).unwrap().certificate;
    assert_eq!((nameless.subject.as_str(), nameless.purposes.as_slice()), ("", &["server".to_owned()][..]));
}

#[test]
fn a_certificate_lasts_two_thirds_of_its_life_or_as_long_as_its_authority() {
    let now = SystemTime::now();
    let (authority, _) = Authority::create("the CA", "x://blue/ca", 100 * DAY, now).unwrap();
    let public = PrivateKey::generate().unwrap().public().unwrap();
    let minute = Duration::from_secs(60);
    for (made_after, valid_for, age, lasts) in [
        (Duration::ZERO, 30 * DAY, Duration::ZERO, true),
        (Duration::ZERO, 30 * DAY, 20 * DAY - minute, true),
        (Duration::ZERO, 30 * DAY, 20 * DAY + minute, false),
        (Duration::ZERO, 30 * DAY, 30 * DAY, false),
        (Duration::ZERO, 30 * DAY, 31 * DAY, false),
        // It is dated back by more than its life.
        (Duration::ZERO, 2 * minute, Duration::ZERO, true),
        (Duration::ZERO, 2 * minute, minute, true),
        (Duration::ZERO, 2 * minute, Duration::from_secs(81), false),
        // It ends with the authority: another one would, too.
        (90 * DAY, 30 * DAY, 8 * DAY, true),
        (90 * DAY, 30 * DAY, 10 * DAY - minute, true),
        (90 * DAY, 30 * DAY, 10 * DAY, false),
        (90 * DAY, 9 * DAY, 8 * DAY, false),
    ] {
        let made = now + made_after;
        let order = Order { valid_for, ..order() };
        let certificate = authority.sign(&public, &order, made).unwrap().certificate;
        let what = format!("for {valid_for:?}, made after {made_after:?}, {age:?} old");
        assert_eq!(authority.lasts(&certificate, made + age), lasts, "{what}");
    }
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let request = PrivateKey::generate().unwrap().request().unwrap();
    let base64: String = request.lines().filter(|line| !line.starts_with('-')).collect();
    // The last byte of the signature is in the last characters before the padding.
    let at = base64.trim_end_matches('=').len() - 4;
    let other = if &base64[at..=at] == "A" { "B" } else { "A" };
    let forged = format!("{}{other}{}", &base64[..at], &base64[at + 1..]);
    let pem = |base64: &str| {
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{base64}\n-----END CERTIFICATE REQUEST-----\n")
    };
    assert!(PublicKey::from_request(&pem(&base64)).is_ok());
    let refused = PublicKey::from_request(&pem(&forged)).unwrap_err();
    assert!(matches!(refused, AuthorityError::Request { .. }), "{refused:?}");
    for wrong in ["", "x", &pem(""), &pem("AAAA")] {
        assert!(PublicKey::from_request(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_authority_is_loaded_whole() {
    let now = SystemTime::now();
    let directory = tempfile::tempdir().unwrap();
    let (certificate_path, key_path) = (directory.path().join("ca.crt"), directory.path().join("ca.key"));
    let load = || Authority::load(directory.path(), now);
    let (authority, key) = Authority::create("the CA", "x://blue/ca", DAY, now).unwrap();
    assert!(load().unwrap_err().to_string().contains("cannot read"));
    write_new(&certificate_path, authority.pem(), Access::Everybody).unwrap();
    write_new(&key_path, key.pem(), Access::Owner).unwrap();
    assert_eq!(load().unwrap().certificate(), authority.certificate());
    assert!(matches!(
        Authority::load(directory.path(), now + 2 * DAY),
        Err(AuthorityError::Files(FileError::Expired { .. }))
    ));

    let again = write_new(&key_path, "x", Access::Owner).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&key_path).unwrap(), key.pem());

    let said = |path: &Path, text: &str| {
        Staged::new(path, text, Access::Owner).unwrap().commit().unwrap();
        load().unwrap_err().to_string()
    };
    let other = PrivateKey::generate().unwrap();
    let mismatch = said(&key_path, other.pem());
    assert!(mismatch.contains("ca.key: the private key does not belong"), "{mismatch}");
    assert!(said(&key_path, "x").contains("ca.key: the private key cannot be used"));
    Staged::new(&key_path, key.pem(), Access::Owner).unwrap().commit().unwrap();
    let leaf = authority.sign(&other.public().unwrap(), &order(), now).unwrap();
    assert!(said(&certificate_path, &leaf.pem).contains("ca.crt: 'CN=a' is no authority"));
    assert!(said(&certificate_path, "x").contains("ca.crt: no certificate can be read"));
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_replaced_file_keeps_its_owner_and_mode_but_for_others_at_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let (key, link) = (directory.path().join("a.key"), directory.path().join("link.key"));
    write_new(&key, "old", Access::Owner).unwrap();
    std::os::unix::fs::symlink(&key, &link).unwrap();
    let mode = || fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    for (before, after) in [(0o600, 0o600), (0o640, 0o640), (0o644, 0o640), (0o400, 0o400)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(before)).unwrap();
        Staged::new(&link, "new", Access::Owner).unwrap().commit().unwrap();
        assert_eq!(mode(), after, "{before:o}");
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&key).unwrap(), "new");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    Staged::new(&key, "public", Access::Everybody).unwrap().commit().unwrap();
    assert_eq!(mode(), 0o644);
    drop(Staged::new(&key, "never", Access::Owner).unwrap());
    assert_eq!(fs::read_to_string(&key).unwrap(), "public");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}
