//! When a token is needed.

use fleetknock_runtime::tls::{
    UriRule,
    authority::{Authority, Order, PrivateKey},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_token_is_needed_while_no_certificate_counts() {
    let now = SystemTime::now();
    let (authority, _) = Authority::create("a CA", "x://ca", 9 * HOUR, now).unwrap();
    let order = Order::client("a", "x://a", HOUR);
    let key = PrivateKey::generate().unwrap();
    let pem = authority.sign(&key.public().unwrap(), &order, now).unwrap().pem;
    assert!(is_needed(None, now));
    assert!(!is_needed(Some(pem.as_bytes()), now));
    assert!(is_needed(Some(pem.as_bytes()), now + 2 * HOUR), "it is over");
    assert!(!is_needed(Some(b"something else"), now), "what is broken is told, and not replaced");
}

#[test]
fn a_key_of_somebody_else_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let own = OwnFiles { certificate: path("a.crt"), key: path("a.key"), rule: UriRule::anybody() };
    check_key(&own, false).unwrap();
    std::fs::write(path("a.key"), "a key").unwrap();
    check_key(&own, true).unwrap();
    let error = check_key(&own, false).unwrap_err();
    assert!(error.to_string().contains("move the key away"), "{error}");
    assert_eq!(exit::code_of(&error), exit::DATA);
}

#[test]
fn authorities_come_with_the_token_or_from_the_operator() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.crt");
    let files = Files { own: None, authorities: vec![path.clone()] };
    let from = Path::new("/etc/a.token");
    let alone = TokenFile { token: "t".to_owned(), authorities: None };
    let error = bring_authorities(&files, &alone, from).unwrap_err();
    assert!(error.to_string().contains("/etc/a.token holds only a token"), "{error}");
    assert_eq!(exit::code_of(&error), exit::NO_INPUT);
    let with = TokenFile { token: "t".to_owned(), authorities: Some("theirs".to_owned()) };
    bring_authorities(&files, &with, from).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
    std::fs::write(&path, "the operator's").unwrap();
    bring_authorities(&files, &with, from).unwrap();
    bring_authorities(&files, &alone, from).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the operator's");
}
