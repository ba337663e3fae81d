//! What is said of a certificate.

use std::time::{Duration, UNIX_EPOCH};

use fleetknock_runtime::tls::Certificate;

use super::*;

#[test]
fn operators_are_told_in_time() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let certificate = Certificate {
        subject: String::new(),
        issuer: String::new(),
        serial: String::new(),
        uris: vec![],
        dns_names: vec![],
        addresses: vec![],
        not_before: at(0),
        not_after: at(1_300),
        is_authority: false,
        purposes: vec![],
        key: String::new(),
    };
    let validity = Validity::of(&certificate);
    for (now, renews, failure, said) in [
        (1_000, true, Some("nobody is there"), None),
        (1_000, false, None, None),
        (
            1_200,
            true,
            Some("nobody is there"),
            Some("ends at 1970-01-01 00:21:40 UTC and cannot be renewed: nobody is"),
        ),
        (1_200, true, None, Some("is not renewed yet")),
        (1_200, false, None, Some("put the next one in its place")),
        (1_300, false, None, Some("ended at")),
    ] {
        let notice = notice(validity, at(now), renews, failure);
        assert_eq!(notice.is_some(), said.is_some(), "{now}: {notice:?}");
        let (notice, said) = (notice.unwrap_or_default(), said.unwrap_or_default());
        assert!(notice.contains(said), "{notice}");
    }
}
