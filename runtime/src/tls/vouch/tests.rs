//! What is handed on is what is trusted, and no more.

use std::fs;

use crate::tls::{
    Certificate,
    tests::lab::{DAY, Lab},
};

#[test]
fn the_authorities_are_handed_on_without_what_stands_beside_them() {
    let lab = Lab::new();
    let text = format!(
        "notes\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{}",
        lab.authority.pem()
    );
    fs::write(lab.path("ca.crt"), text).unwrap();
    let material = lab.files(lab.leaf("a", "x://blue/host/a")).load(lab.now).unwrap();
    let handed_on = material.authorities_pem();
    assert!(!handed_on.contains("notes") && !handed_on.contains("PRIVATE"), "{handed_on}");
    assert_eq!(Certificate::from_pem(handed_on.as_bytes()).unwrap(), material.authorities);
}

#[test]
fn a_certificate_is_vouched_for_by_its_authority_and_in_its_time() {
    let (lab, other) = (Lab::new(), Lab::named("another CA"));
    let own = lab.leaf("a", "x://blue/host/a");
    let pem = fs::read(&own.certificate).unwrap();
    let material = lab.files(own).load(lab.now).unwrap();
    material.vouch(&pem, lab.now).unwrap();
    let late = material.vouch(&pem, lab.now + 2 * DAY).unwrap_err();
    assert!(late.to_string().contains("its certificate expired at"), "{late}");
    let stranger = fs::read(other.leaf("a", "x://blue/host/a").certificate).unwrap();
    let stranger = material.vouch(&stranger, lab.now).unwrap_err();
    assert!(stranger.to_string().contains("not trusted here"), "{stranger}");
    assert!(material.vouch(b"nothing", lab.now).is_err());
}
