//! Identities read back as they were printed, and nothing else reads as one.

use proptest::prelude::*;

use super::*;

#[test]
fn identities_are_printed_and_read() {
    for (text, who, name) in [
        ("fleetknock://blue/host/db-1.example", "host db-1.example", "db-1.example"),
        ("fleetknock://blue/controller/c-1", "controller c-1", "c-1"),
        (
            "fleetknock://blue/user/alice@example.com?role=admin",
            "user alice@example.com (admin)",
            "alice@example.com",
        ),
        ("fleetknock://b.l-ue/user/a_b+c?role=viewer", "user a_b+c (viewer)", "a_b+c"),
    ] {
        let identity: Identity = text.parse().unwrap();
        assert_eq!(identity.to_string(), text);
        assert_eq!((identity.who.to_string().as_str(), identity.who.name()), (who, name));
        assert_eq!(serde_json::to_string(&identity).unwrap(), format!("\"{text}\""));
    }
}

#[test]
fn there_is_one_spelling() {
    for wrong in [
        "",
        "fleetknock",
        "fleetknock:",
        "fleetknock://",
        "fleetknock://blue",
        "fleetknock://blue/",
        "fleetknock://blue/host",
        "fleetknock://blue/host/",
        "fleetknock:///host/a",
        "fleetknock://blue/host/a/",
        "fleetknock://blue/host/a/b",
        "fleetknock://blue//host/a",
        "fleetknock://blue/host/a?",
        "fleetknock://blue/host/a?role=admin",
        "fleetknock://blue/host/a#f",
        "fleetknock://blue/host/%61",
        "fleetknock://blue/host/A",
        "fleetknock://Blue/host/a",
        "fleetknock://blue:7600/host/a",
        "fleetknock://me@blue/host/a",
        "fleetknock://blue/Host/a",
        "fleetknock://blue/door/a",
        "fleetknock://blue/host/a ",
        " fleetknock://blue/host/a",
        "fleetknock://blue/host/a\n",
        "fleetknock://blue/host/a\0",
        "Fleetknock://blue/host/a",
        "https://blue/host/a",
        "fleetknock://blue/user/a",
        "fleetknock://blue/user/a?role=",
        "fleetknock://blue/user/a?role=root",
        "fleetknock://blue/user/a?role=Admin",
        "fleetknock://blue/user/a?role=admin&role=viewer",
        "fleetknock://blue/user/a?role=viewer?role=admin",
        "fleetknock://blue/user/?role=admin",
        "fleetknock://blue/user/-a?role=admin",
        "fleetknock://blue/user/a%40b?role=admin",
        "fleetknock://blue/controller/a?role=admin",
    ] {
        assert!(wrong.parse::<Identity>().is_err(), "{wrong:?}");
    }
    let long = format!("fleetknock://{}/host/{}", "a".repeat(253), "b".repeat(253));
    assert!(long.len() <= TEXT_MAX && long.parse::<Identity>().is_ok());
    assert!(format!("{long}b").parse::<Identity>().is_err());
}

#[test]
fn a_certificate_names_exactly_one() {
    let of = |uris: &[&str]| Identity::among(uris).map(|identity| identity.to_string());
    let host = "fleetknock://blue/host/a";
    assert_eq!(of(&["spiffe://x/y", host]), Ok(host.to_owned()));
    assert_eq!(of(&["spiffe://x/y"]), Err(IdentityError::Nobody));
    assert_eq!(of(&[]), Err(IdentityError::Nobody));
    for other in ["fleetknock://blue/host/b", host, "FLEETKNOCK://blue/host/b", "fleetknock:x"] {
        assert!(matches!(of(&[host, other]), Err(IdentityError::Several { .. })), "{other}");
        assert!(matches!(of(&[other, host]), Err(IdentityError::Several { .. })), "{other}");
    }
    assert!(matches!(of(&["fleetknock:x"]), Err(IdentityError::Form { .. })));

    let (blue, red): (FleetName, FleetName) = ("blue".parse().unwrap(), "red".parse().unwrap());
    assert!(Identity::of_fleet(&blue, &[host]).is_ok());
    let refused = Identity::of_fleet(&red, &[host]).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the certificate is of another fleet: it names fleetknock://blue/host/a, and this fleet is 'red'"
    );
}

#[test]
fn an_authority_names_its_fleet_and_nobody() {
    let fleet: FleetName = "blue".parse().unwrap();
    let uri = authority_uri(&fleet);
    assert_eq!(authority_fleet(&[&uri]), Some(fleet));
    assert!(uri.parse::<Identity>().is_err());
    for other in
        [&["fleetknock://blue/host/a"][..], &["fleetknock:///authority"], &[], &[uri.as_str(), uri.as_str()]]
    {
        assert_eq!(authority_fleet(other), None, "{other:?}");
    }
}

#[test]
fn roles_are_ordered_by_what_they_may() {
    assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    assert!("".parse::<Role>().is_err() && "Viewer".parse::<Role>().is_err());
}

#[test]
fn the_default_fleet_has_a_name_like_any_other() {
    assert_eq!("default".parse(), Ok(FleetName::default()));
}

#[test]
fn only_whom_somebody_expects_will_do() {
    let blue: FleetName = "blue".parse().unwrap();
    let uris = [
        "fleetknock://blue/host/a",
        "fleetknock://blue/host/b",
        "fleetknock://blue/controller/a",
        "fleetknock://blue/controller/b",
        "fleetknock://blue/user/a?role=admin",
        "fleetknock://red/controller/a",
    ];
    for (expected, fitting) in [
        (Expected::Anybody, &uris[..5]),
        (Expected::AnyController, &uris[2..4]),
        (Expected::Controller("a".parse().unwrap()), &uris[2..3]),
        (Expected::Host("a".parse().unwrap()), &uris[..1]),
        (Expected::User, &uris[4..5]),
    ] {
        let taken: Vec<_> = uris.into_iter().filter(|uri| expected.among(&blue, &[uri]).is_ok()).collect();
        assert_eq!(taken, fitting, "{expected}");
        assert!(expected.among::<&str>(&blue, &[]).is_err());
        assert!(expected.among(&blue, &uris[..2]).is_err(), "two are nobody");
    }
    let error = Expected::Host("a".parse().unwrap()).among(&blue, &uris[1..2]).unwrap_err();
    assert_eq!(error.to_string(), "the certificate is that of host b, and host a is expected");
    let error = Expected::AnyController.among(&blue, &uris[4..5]).unwrap_err();
    assert_eq!(error.to_string(), "the certificate is that of user a (admin), and a controller is expected");
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(identity in identity()) {
        let text = identity.to_string();
        prop_assert!(text.len() <= TEXT_MAX);
        prop_assert_eq!(text.parse(), Ok(identity.clone()));
        prop_assert_eq!(Identity::among(&[text]), Ok(identity));
    }

    #[test]
    fn what_reads_is_printed_as_it_was(text in any::<String>()) {
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    /// One byte of a good one becomes another one, goes, or comes: then it is refused, or is another identity.
    #[test]
    fn no_two_texts_are_the_same_identity(
        identity in identity(), at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..3,
    ) {
        let good = identity.to_string();
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => { bytes.remove(at); }
            _ => bytes.insert(at, byte),
        }
        if let Ok(text) = String::from_utf8(bytes) && let Ok(read) = text.parse::<Identity>() {
            prop_assert_eq!(read.to_string(), text.clone());
            prop_assert_eq!(read == identity, text == good);
        }
    }
}

fn identity() -> impl Strategy<Value = Identity> {
    let name = "[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?";
    let user = ("[a-z0-9][a-z0-9._@+-]{0,63}", prop::sample::select(Role::ALL.to_vec()))
        .prop_map(|(name, role)| Who::User { name: name.parse().unwrap(), role });
    let host = name.prop_map(|name| Who::Host(name.parse().unwrap()));
    let controller = name.prop_map(|name| Who::Controller(name.parse().unwrap()));
    (name, prop_oneof![host, controller, user])
        .prop_map(|(fleet, who)| Identity { fleet: fleet.parse().unwrap(), who })
}
