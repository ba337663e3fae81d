//! The forms that are taken, and what is said about the others.

use super::*;

#[test]
fn both_forms_are_read_and_printed_as_given() {
    for given in
        ["embedded:/var/lib/fleetknock", "etcd:http://a:2379", "etcd:http://10.0.0.1:2379,http://[::1]:2379"]
    {
        assert_eq!(given.parse::<StoreSpec>().unwrap().to_string(), given);
    }
    let trailing: StoreSpec = "etcd:http://a:2379/".parse().unwrap();
    assert_eq!(trailing.to_string(), "etcd:http://a:2379");
}

#[test]
fn what_is_refused_names_what_was_given_and_the_forms() {
    for given in [
        "",
        "redis:x",
        "/var/lib",
        "embedded:",
        "etcd:",
        "etcd:a:2379",
        "etcd:http://a:2379,",
        "etcd:http://a/b",
    ] {
        let error = given.parse::<StoreSpec>().unwrap_err().to_string();
        assert!(error.contains(&format!("{given:?}")) && error.contains(FORMS), "{given}: {error}");
    }
}

#[test]
fn a_password_is_never_repeated() {
    let error = "etcd:http://root:hunter2@a:2379".parse::<StoreSpec>().unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");

    let mut options = EtcdOptions::new(vec!["http://a:2379".to_owned()]);
    options.user = Some(("root".to_owned(), "hunter2".to_owned()));
    assert!(!format!("{options:?}").contains("hunter2"));
}

#[test]
fn options_that_no_cluster_can_take_are_refused() {
    let good = EtcdOptions::new(vec!["http://a:2379".to_owned()]);
    good.check().unwrap();
    let tls = Some(EtcdTls { authority_pem: vec![], identity_pem: None });
    for bad in [
        EtcdOptions { endpoints: vec![], ..good.clone() },
        EtcdOptions { fleet: "a/b".to_owned(), ..good.clone() },
        EtcdOptions { fleet: String::new(), ..good.clone() },
        EtcdOptions { prefix: "/x".to_owned(), ..good.clone() },
        EtcdOptions { prefix: String::new(), ..good.clone() },
        EtcdOptions { tls, ..good.clone() },
        EtcdOptions { endpoints: vec!["https://a:2379".to_owned()], ..good.clone() },
    ] {
        assert!(matches!(bad.check(), Err(StoreError::Invalid(_))), "{bad:?}");
    }
}
