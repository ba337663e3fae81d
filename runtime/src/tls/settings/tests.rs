//! Which choices are whole, and what is said of those that are not.

use super::*;

#[test]
fn either_all_three_files_or_plain_text() {
    let files = of("c", "k", &["a", "b"]).files(false, UriRule::anybody()).unwrap().unwrap();
    assert_eq!(files.authorities, [PathBuf::from("a"), PathBuf::from("b")]);
    let own = files.own.unwrap();
    assert_eq!((own.certificate, own.key), (PathBuf::from("c"), PathBuf::from("k")));
    assert!(of("", "", &[]).files(true, UriRule::anybody()).unwrap().is_none());
}

#[test]
fn what_is_missing_or_too_much_is_named_with_the_remedy() {
    for (settings, insecure, said) in [
        (of("", "", &[]), false, "--tls-cert, --tls-key and --tls-ca are missing: name the files"),
        (of("", "", &[]), false, "(fleetknock pki makes them), or give --insecure"),
        (of("c", "", &["a"]), false, "with --tls-cert and --tls-ca give --tls-key too: "),
        (of("c", "k", &[]), false, "with --tls-cert and --tls-key give --tls-ca too: "),
        (of("", "", &["a"]), false, "with --tls-ca give --tls-cert and --tls-key too: "),
        (of("c", "k", &["a"]), true, "--insecure and --tls-cert and --tls-key and --tls-ca are both given"),
        (of("", "", &["a"]), true, "--insecure and --tls-ca are both given"),
    ] {
        let error = settings.files(insecure, UriRule::anybody()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.exit_code(), crate::exit::USAGE);
    }
}

#[test]
fn whoever_shows_something_else_needs_the_authorities_and_no_certificate() {
    let files = of("", "", &["a", "b"]).authorities_only(false, "a token").unwrap();
    assert!(files.own.is_none());
    assert_eq!(files.authorities, [PathBuf::from("a"), PathBuf::from("b")]);
    for (settings, insecure, said) in [
        (of("", "", &["a"]), true, "--insecure and a token are both given"),
        (of("", "", &[]), true, "--insecure and a token are both given"),
        (of("", "", &[]), false, "with a token give --tls-ca too"),
        (of("c", "", &["a"]), false, "a token and a certificate (--tls-cert, --tls-key) are both given"),
        (of("", "k", &["a"]), false, "choose one of them"),
    ] {
        let error = settings.authorities_only(insecure, "a token").unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.exit_code(), crate::exit::USAGE);
    }
}

fn of(certificate: &str, key: &str, authorities: &[&str]) -> Settings {
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    Settings {
        tls_cert: path(certificate),
        tls_key: path(key),
        tls_ca: authorities.iter().map(PathBuf::from).collect(),
    }
}
