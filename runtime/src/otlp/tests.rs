//! Which choices are whole, and what is said of those that are not.

use super::*;

#[test]
fn a_collector_is_a_url_of_scheme_host_and_port() {
    for (text, whole, port, secure) in [
        ("http://10.0.0.9:4317", "http://10.0.0.9:4317", 4317, false),
        ("http://[2001:db8::9]/", "http://[2001:db8::9]:4317", 4317, false),
        ("https://collector.example:443", "https://collector.example:443", 443, true),
    ] {
        let url: CollectorUrl = text.parse().unwrap();
        assert_eq!((url.to_string().as_str(), url.port(), url.is_secure()), (whole, port, secure));
    }
    assert_eq!("http://[::1]".parse::<CollectorUrl>().unwrap().literal(), Some("::1".parse().unwrap()));
    assert_eq!("http://collector".parse::<CollectorUrl>().unwrap().literal(), None);
    for wrong in
        ["", "10.0.0.9:4317", "ftp://h:1", "http://h:0", "http://h:70000", "http://h:", "http://h/v1/traces"]
    {
        let error = wrong.parse::<CollectorUrl>().unwrap_err();
        assert!(error.contains("http://10.0.0.9:4317"), "{wrong}: {error}");
    }
}

#[test]
fn authorities_go_with_https_and_with_nothing_else() {
    assert!(of(None, &[]).check().is_ok());
    assert!(of(Some("http://h"), &[]).check().is_ok());
    assert!(of(Some("https://h"), &["ca.crt"]).check().is_ok());
    for (settings, said) in [
        (of(Some("https://h"), &[]), "otlp: with 'https://h:4317' give --otlp-ca too"),
        (of(Some("http://h"), &["ca.crt"]), "otlp-ca: 'http://h:4317' (--otlp) is plain text"),
        (of(None, &["ca.crt"]), "otlp-ca: without --otlp there is no collector"),
    ] {
        let error = settings.check().unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.exit_code(), crate::exit::USAGE);
    }
}

#[tokio::test]
async fn nothing_is_dialled_before_something_is_sent_and_missing_authorities_are_named() {
    assert!(of(None, &[]).collector().unwrap().is_none());
    assert!(of(Some("http://127.0.0.1:1"), &[]).collector().unwrap().is_some());
    let error = of(Some("https://127.0.0.1:1"), &["/nowhere/ca.crt"]).collector().unwrap_err();
    assert!(error.to_string().contains("/nowhere/ca.crt"), "{error}");
}

fn of(otlp: Option<&str>, authorities: &[&str]) -> Settings {
    Settings {
        otlp: otlp.map(|url| url.parse().unwrap()),
        otlp_ca: authorities.iter().map(PathBuf::from).collect(),
    }
}
