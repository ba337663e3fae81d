//! What a token's file may look like.

use std::time::{Duration, SystemTime};

use fleetknock_runtime::tls::authority::Authority;

use super::*;

#[test]
fn a_file_is_a_token_and_the_authorities_that_may_stand_beneath_it() {
    let (authority, _) =
        Authority::create("a CA", "x://ca", Duration::from_secs(60), SystemTime::now()).unwrap();
    let pem = authority.pem();
    for (text, authorities) in [
        ("abc.def\n".to_owned(), None),
        ("\n  abc.def\r\n\n".to_owned(), None),
        (format!("abc.def\n{pem}"), Some(1)),
        (format!("abc.def\n\n# the CA of blue\n{pem}\n{pem}"), Some(2)),
    ] {
        let file = TokenFile::parse(&text).unwrap();
        assert_eq!(file.token, "abc.def");
        let found = file.authorities.map(|pem| Certificate::from_pem(pem.as_bytes()).unwrap().len());
        assert_eq!(found, authorities, "{text}");
    }
    for text in ["", "\n", "abc def", pem, "päss"] {
        assert_eq!(TokenFile::parse(text), Err(TokenFileError::NoToken), "{text}");
    }
    let wrong = TokenFile::parse("abc.def\nghi.jkl\n").unwrap_err().to_string();
    assert!(wrong.contains("not the certificate of an authority"), "{wrong}");
}

#[test]
fn the_token_of_a_cluster_fits_and_is_told_from_ours() {
    // The longest that there can be, and its newline.
    let long = format!("eyJ{}.{}.{}", "a".repeat(100), "b".repeat(2300), "c".repeat(683));
    let file = TokenFile::parse(&format!("{long}\n")).unwrap();
    assert!(file.token == long && file.is_of_a_cluster());
    let ours = "fke_0123456789abcdef_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyputcub";
    assert!(!TokenFile::parse(ours).unwrap().is_of_a_cluster());
    assert_eq!(TokenFile::parse(&"x".repeat(TOKEN_MAX + 1)), Err(TokenFileError::NoToken));
}

#[test]
fn the_token_is_not_shown() {
    let shown = format!("{:?}", TokenFile::parse("abc.def").unwrap());
    assert!(!shown.contains("abc"), "{shown}");
}
