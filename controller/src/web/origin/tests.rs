//! Who may have made a request.

use axum::http::{HeaderName, HeaderValue};
use tonic::Code;

use super::*;

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const OWN: (&str, &str) = ("fleetknock-request", "1");

fn headers(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    headers.iter().copied().map(pair).collect()
}

#[test]
fn a_page_of_somebody_else_can_change_nothing() {
    for (given, code) in [
        (&[JSON, OWN][..], None),
        (&[JSON, ("authorization", "Bearer x")], None),
        (&[JSON, OWN, ("sec-fetch-site", "same-origin")], None),
        (&[JSON], Some(Code::PermissionDenied)),
        (&[JSON, ("fleetknock-request", "")], Some(Code::PermissionDenied)),
        (&[JSON, OWN, ("sec-fetch-site", "cross-site")], Some(Code::PermissionDenied)),
        (&[JSON, OWN, ("sec-fetch-site", "same-site")], Some(Code::PermissionDenied)),
        (&[JSON, ("authorization", "x"), ("sec-fetch-site", "cross-site")], Some(Code::PermissionDenied)),
        (&[OWN], Some(Code::InvalidArgument)),
        (&[OWN, ("content-type", "text/plain")], Some(Code::InvalidArgument)),
        (&[OWN, ("content-type", "application/x-www-form-urlencoded")], Some(Code::InvalidArgument)),
    ] {
        assert_eq!(check_change(&headers(given)).err().map(|status| status.code()), code, "{given:?}");
    }
}

#[test]
fn a_page_of_somebody_else_can_not_even_watch() {
    assert!(check(&headers(&[])).is_ok() && check(&headers(&[("sec-fetch-site", "none")])).is_ok());
    assert!(check(&headers(&[("sec-fetch-site", "cross-site")])).is_err());
    assert!(check(&headers(&[("sec-fetch-site", "anything new")])).is_err());
}
