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
fn the_token_is_not_shown() {
    let shown = format!("{:?}", TokenFile::parse("abc.def").unwrap());
    assert!(!shown.contains("abc"), "{shown}");
}
