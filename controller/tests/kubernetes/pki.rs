//! Certificates as Secrets: made once, renewed in time, by one or by several at once, and never those of others.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use clap::Parser;
use data_encoding::BASE64;
use fleetknock_controller::{
    operator::pki::{Deed, Done, Pki, PkiError},
    seal::SealKey,
};
use fleetknock_core::identity::FleetName;
use fleetknock_runtime::tls::{Certificate, authority::Authority};
use serde_json::{Value, json};

use crate::api_server::{ApiServer, Fault};

const SECRETS: &str = "/api/v1/namespaces/knock/secrets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/knock/configmaps";
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_fleet_gets_all_that_it_needs_and_keeps_it() {
    let api = ApiServer::start().await;
    let now = SystemTime::now();
    let deeds = reconcile(&api, &pki(&[]), now).await.unwrap();
    assert!(deeds.iter().all(|deed| deed.done == Done::Made), "{deeds:?}");

    let tls = parts(&api, "fleetknock-tls");
    let names: Vec<_> = tls.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "ca.crt",
            "ca.key",
            "fleetknock-controller-0.crt",
            "fleetknock-controller-0.key",
            "fleetknock-controller-1.crt",
            "fleetknock-controller-1.key",
            "seal.key"
        ]
    );
    let authority = Authority::from_pem(&tls["ca.crt"], &tls["ca.key"]).unwrap();
    assert_eq!(authority.certificate().uris, ["fleetknock://blue/authority"]);
    SealKey::parse(&tls["seal.key"]).unwrap();
    let one = certificate(&tls["fleetknock-controller-1.crt"]);
    assert!(authority.has_signed(tls["fleetknock-controller-1.crt"].as_bytes()).unwrap());
    assert_eq!(one.uris, ["fleetknock://blue/controller/fleetknock-controller-1"]);
    assert_eq!(one.purposes, ["server", "client"]);
    let wanted = [
        "fleetknock-controller-1.fleetknock-controller.knock.svc",
        "fleetknock-controller-1.fleetknock-controller.knock.svc.cluster.local",
        "fleetknock-controller",
        "fleetknock-controller.knock",
        "fleetknock-controller.knock.svc",
        "fleetknock-controller.knock.svc.cluster.local",
    ];
    assert_eq!(one.dns_names, wanted);

    let admin = parts(&api, "fleetknock-admin");
    assert_eq!(certificate(&admin["tls.crt"]).uris, ["fleetknock://blue/user/admin?role=admin"]);
    assert_eq!(certificate(&admin["tls.crt"]).purposes, ["client"]);
    assert_eq!(admin["ca.crt"], tls["ca.crt"]);
    assert_eq!(admin.len(), 3, "its own key and no other");
    let trusted = api.object(CONFIG_MAPS, "fleetknock-ca").unwrap();
    assert_eq!(trusted["data"], json!({"ca.crt": tls["ca.crt"]}));
    for object in [api.object(SECRETS, "fleetknock-tls"), api.object(SECRETS, "fleetknock-admin")] {
        assert_eq!(object.unwrap()["type"], "Opaque");
    }

    // Once more, and nothing is written.
    api.kept().calls.clear();
    let deeds = reconcile(&api, &pki(&[]), now).await.unwrap();
    assert!(deeds.iter().all(|deed| deed.done == Done::Left), "{deeds:?}");
    assert!(api.kept().calls.iter().all(|call| call.starts_with("GET ")), "{:?}", api.kept().calls);
    // What it says shows no secret.
    let said: String = deeds.iter().map(|deed| format!("{deed}\n")).collect();
    assert!(said.contains("secret knock/fleetknock-tls: authority: left as it is"), "{said}");
    let secret = |key: &&String| key.ends_with(".key");
    assert!(tls.keys().filter(secret).all(|key| !said.contains(&tls[key])), "{said}");
}

#[tokio::test]
async fn certificates_are_renewed_past_two_thirds_of_their_life_and_nothing_else_is() {
    let api = ApiServer::start().await;
    let now = SystemTime::now();
    reconcile(&api, &pki(&["--for=90d"]), now).await.unwrap();
    let before = parts(&api, "fleetknock-tls");
    let deeds = reconcile(&api, &pki(&["--for=90d"]), now + 59 * DAY).await.unwrap();
    assert!(deeds.iter().all(|deed| deed.done == Done::Left), "{deeds:?}");

    let deeds = reconcile(&api, &pki(&["--for=90d"]), now + 61 * DAY).await.unwrap();
    let renewed = deeds.iter().filter(|deed| deed.done == Done::Renewed).count();
    assert_eq!(renewed, 3, "two controllers and the admin: {deeds:?}");
    let after = parts(&api, "fleetknock-tls");
    for key in ["ca.crt", "ca.key", "seal.key"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    for name in ["fleetknock-controller-0", "fleetknock-controller-1"] {
        assert_ne!(before[&format!("{name}.key")], after[&format!("{name}.key")]);
        let end = certificate(&after[&format!("{name}.crt")]).not_after;
        assert!(end > now + 150 * DAY, "{end:?}");
    }
    // Also one that is over: a fleet that nobody looked after for long.
    let deeds = reconcile(&api, &pki(&["--for=90d"]), now + 400 * DAY).await.unwrap();
    assert_eq!(deeds.iter().filter(|deed| deed.done == Done::Renewed).count(), 3, "{deeds:?}");
}

#[tokio::test]
async fn a_fleet_grows_shrinks_and_gets_another_name_without_losing_anything() {
    let api = ApiServer::start().await;
    let now = SystemTime::now();
    reconcile(&api, &pki(&[]), now).await.unwrap();
    let two = parts(&api, "fleetknock-tls");
    let deeds = reconcile(&api, &pki(&["--controllers=3"]), now).await.unwrap();
    let made: Vec<_> = deeds.iter().filter(|deed| deed.done == Done::Made).map(|deed| &deed.what).collect();
    assert_eq!(made, ["secret knock/fleetknock-tls: fleetknock-controller-2.crt"]);
    reconcile(&api, &pki(&["--controllers=1"]), now).await.unwrap();
    let three = parts(&api, "fleetknock-tls");
    assert!(two.iter().all(|(key, part)| three[key] == *part));
    assert!(three.contains_key("fleetknock-controller-2.key"));

    let deeds = reconcile(&api, &pki(&["--dns=knock.example"]), now).await.unwrap();
    assert_eq!(deeds.iter().filter(|deed| deed.done == Done::Renewed).count(), 2, "{deeds:?}");
    let named = certificate(&parts(&api, "fleetknock-tls")["fleetknock-controller-0.crt"]);
    assert!(named.dns_names.contains(&"knock.example".to_owned()), "{named:?}");
}

#[tokio::test]
async fn of_several_at_once_one_makes_the_authority_and_all_agree() {
    let api = ApiServer::start().await;
    let now = SystemTime::now();
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = api.client();
        jobs.spawn(async move { pki(&[]).reconcile(&client, &fleet(), now).await });
    }
    for done in jobs.join_all().await {
        done.unwrap();
    }
    let created = |what: &str| api.kept().calls.iter().filter(|call| *call == what).count();
    assert!(created(&format!("POST {SECRETS}")) >= 2);
    let (tls, admin) = (parts(&api, "fleetknock-tls"), parts(&api, "fleetknock-admin"));
    let authority = Authority::from_pem(&tls["ca.crt"], &tls["ca.key"]).unwrap();
    let signed = |text: &String| authority.has_signed(text.as_bytes()).unwrap();
    assert!(signed(&tls["fleetknock-controller-0.crt"]) && signed(&tls["fleetknock-controller-1.crt"]));
    assert!(signed(&admin["tls.crt"]));
    assert_eq!(api.object(CONFIG_MAPS, "fleetknock-ca").unwrap()["data"]["ca.crt"], tls["ca.crt"]);
}

#[tokio::test]
async fn whoever_comes_in_between_is_not_overwritten() {
    let api = ApiServer::start().await;
    let now = SystemTime::now();
    reconcile(&api, &pki(&[]), now).await.unwrap();
    // Another Job renews, and only its answer to this one is a conflict.
    api.spoil(&format!("PUT {SECRETS}/fleetknock-tls"), Fault::DoneAnd(409));
    let deeds = reconcile(&api, &pki(&[]), now + 61 * DAY).await.unwrap();
    let mut controllers = deeds.iter().filter(|deed| deed.what.contains("-controller-"));
    assert!(controllers.all(|deed| deed.done == Done::Left), "they are good by then: {deeds:?}");
    let writes =
        api.kept().calls.iter().filter(|call| call.starts_with("PUT") && call.ends_with("-tls")).count();
    assert_eq!(writes, 1);

    for _ in 0..20 {
        api.spoil(&format!("PUT {SECRETS}/fleetknock-tls"), Fault::Code(409));
    }
    let error = reconcile(&api, &pki(&[]), now + 200 * DAY).await.unwrap_err();
    assert!(matches!(error, PkiError::Contended { .. }), "{error}");
}

#[tokio::test]
async fn what_others_made_is_left_alone() {
    for (collection, name) in
        [(SECRETS, "fleetknock-tls"), (SECRETS, "fleetknock-admin"), (CONFIG_MAPS, "fleetknock-ca")]
    {
        for labels in [json!(null), json!({"app.kubernetes.io/managed-by": "Helm"})] {
            let api = ApiServer::start().await;
            let theirs = json!({"metadata": {"labels": labels}, "data": {"tls.crt": "eA=="}});
            api.put(collection, name, theirs);
            let before = api.object(collection, name);
            let error = reconcile(&api, &pki(&[]), SystemTime::now()).await.unwrap_err();
            assert!(matches!(error, PkiError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(&format!("knock/{name} is there")), "{error}");
            assert_eq!(api.object(collection, name), before);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_made_again_is_not_made_anew_beside_the_rest() {
    let now = SystemTime::now();
    for gone in ["ca.crt", "ca.key", "seal.key"] {
        let api = ApiServer::start().await;
        reconcile(&api, &pki(&[]), now).await.unwrap();
        let mut object = api.object(SECRETS, "fleetknock-tls").unwrap();
        object["data"].as_object_mut().unwrap().remove(gone);
        api.put(SECRETS, "fleetknock-tls", object);
        let error = reconcile(&api, &pki(&[]), now).await.unwrap_err().to_string();
        assert!(error.contains(&format!("lacks {gone}")) && error.contains("from a copy"), "{error}");
    }
    // The whole Secret is gone, and agents trust what was in it.
    let api = ApiServer::start().await;
    reconcile(&api, &pki(&[]), now).await.unwrap();
    api.delete(SECRETS, "fleetknock-tls");
    let error = reconcile(&api, &pki(&[]), now).await.unwrap_err();
    assert!(matches!(error, PkiError::OtherAuthority { .. }), "{error}");
    api.delete(CONFIG_MAPS, "fleetknock-ca");
    reconcile(&api, &pki(&[]), now).await.unwrap();
    let (tls, admin) = (parts(&api, "fleetknock-tls"), parts(&api, "fleetknock-admin"));
    assert_eq!(tls["ca.crt"], admin["ca.crt"], "the admin is of the new one, and trusts it");
    let authority = Authority::from_pem(&tls["ca.crt"], &tls["ca.key"]).unwrap();
    assert!(authority.has_signed(admin["tls.crt"].as_bytes()).unwrap());
}

#[tokio::test]
async fn broken_parts_and_those_of_another_fleet_are_refused_by_name() {
    let now = SystemTime::now();
    for (key, part, said) in [
        ("fleetknock-controller-0.crt", "nonsense", "fleetknock-controller-0.crt is no certificate"),
        (
            "fleetknock-controller-0.crt",
            "fleetknock-controller-1.crt",
            "of fleetknock://blue/controller/fleetknock-controller-1, not of",
        ),
        ("seal.key", "nonsense", "seal.key is no seal key"),
        ("ca.key", "fleetknock-controller-0.key", "does not belong to the authority"),
    ] {
        let api = ApiServer::start().await;
        reconcile(&api, &pki(&[]), now).await.unwrap();
        let mut object = api.object(SECRETS, "fleetknock-tls").unwrap();
        let other = object["data"].get(part).cloned();
        object["data"][key] = other.unwrap_or_else(|| json!(BASE64.encode(part.as_bytes())));
        api.put(SECRETS, "fleetknock-tls", object.clone());
        let error = reconcile(&api, &pki(&[]), now).await.unwrap_err().to_string();
        assert!(error.contains(said), "{key}: {error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    let api = ApiServer::start().await;
    reconcile(&api, &pki(&[]), now).await.unwrap();
    let error = pki(&[]).reconcile(&api.client(), &"red".parse().unwrap(), now).await.unwrap_err();
    assert!(error.to_string().contains("of fleet 'blue', not of 'red'"), "{error}");
}

#[tokio::test]
async fn a_failure_in_the_middle_is_gone_on_from() {
    let now = SystemTime::now();
    for (call, fault) in [
        (format!("GET {SECRETS}/fleetknock-tls"), Fault::Code(500)),
        (format!("POST {SECRETS}"), Fault::Code(503)),
        // It was done, and the answer says otherwise.
        (format!("POST {SECRETS}"), Fault::DoneAnd(500)),
        (format!("GET {CONFIG_MAPS}"), Fault::Nonsense),
        (format!("POST {CONFIG_MAPS}"), Fault::Code(403)),
        (format!("POST {CONFIG_MAPS}"), Fault::DoneAnd(504)),
        (format!("GET {SECRETS}/fleetknock-admin"), Fault::Code(429)),
    ] {
        let api = ApiServer::start().await;
        api.spoil(&call, fault);
        let error = reconcile(&api, &pki(&[]), now).await.unwrap_err();
        assert!(matches!(error, PkiError::Call { .. }), "{call}: {error}");
        let before = api.object(SECRETS, "fleetknock-tls");
        reconcile(&api, &pki(&[]), now).await.unwrap();
        if let Some(before) = before {
            assert_eq!(api.object(SECRETS, "fleetknock-tls"), Some(before), "{call}: what was made stays");
        }
        let deeds = reconcile(&api, &pki(&[]), now).await.unwrap();
        assert!(deeds.iter().all(|deed| deed.done == Done::Left), "{call}: {deeds:?}");
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    pki: Pki,
}

fn pki(more: &[&str]) -> Pki {
    let mut args = vec!["pki", "--namespace=knock"];
    if !more.iter().any(|arg| arg.starts_with("--controllers")) {
        args.push("--controllers=2");
    }
    args.extend(more);
    Line::try_parse_from(args).unwrap_or_else(|error| panic!("{error}")).pki
}

fn fleet() -> FleetName {
    "blue".parse().unwrap()
}

async fn reconcile(api: &ApiServer, pki: &Pki, now: SystemTime) -> Result<Vec<Deed>, PkiError> {
    pki.reconcile(&api.client(), &fleet(), now).await
}

fn parts(api: &ApiServer, name: &str) -> BTreeMap<String, String> {
    let object: Value = api.object(SECRETS, name).unwrap();
    let decoded = |value: &Value| {
        String::from_utf8(BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap()).unwrap()
    };
    object["data"].as_object().unwrap().iter().map(|(key, value)| (key.clone(), decoded(value))).collect()
}

fn certificate(text: &str) -> Certificate {
    Certificate::from_pem(text.as_bytes()).unwrap().remove(0)
}
