//! What the API server may say of a token, and what comes of it.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::UserInfo;

use super::*;

#[test]
fn only_a_token_of_that_account_for_this_audience_with_a_pod_and_a_node_makes_a_host() {
    let node = |status: &TokenReviewStatus| judge(status, &account()).map(|word| word.host.to_string());
    assert_eq!(node(&good()).unwrap(), "node-1.example");
    assert_eq!(
        judge(&good(), &account()).unwrap().holder,
        "kubernetes serviceaccount fleetknock/fleetknock-agent pod fleetknock-agent-x7k2p"
    );

    type Change = fn(&mut TokenReviewStatus);
    let table: &[(&str, Change, &str)] = &[
        (
            "nothing is said",
            |s| *s = TokenReviewStatus::default(),
            "does not vouch for the token: it is over",
        ),
        ("not authenticated", |s| s.authenticated = Some(false), "does not vouch"),
        ("neither yes nor no", |s| s.authenticated = None, "does not vouch"),
        (
            "an error",
            |s| (s.authenticated, s.error) = (Some(false), Some("[token\n has expired]".to_owned())),
            "the token: [token has expired]",
        ),
        ("no audience: it was judged for the API server", |s| s.audiences = None, "not for the audience"),
        ("an empty list of them", |s| s.audiences = Some(vec![]), "not for the audience"),
        (
            "the API server's own audience",
            |s| s.audiences = Some(vec!["https://kubernetes.default.svc".to_owned()]),
            "not for the audience",
        ),
        ("no user", |s| s.user = None, "the token is that of ;"),
        ("another account", |s| rename(s, "system:serviceaccount:fleetknock:default"), "fleetknock:default;"),
        (
            "another namespace",
            |s| rename(s, "system:serviceaccount:x:fleetknock-agent"),
            "x:fleetknock-agent;",
        ),
        ("a person", |s| rename(s, "fleetknock-agent"), "the token is that of fleetknock-agent;"),
        (
            "more than the name",
            |s| rename(s, "system:serviceaccount:fleetknock:fleetknock-agent2"),
            "agent2;",
        ),
        ("no pod", |s| drop(extra(s).remove(POD_NAME)), "bound to no pod"),
        ("a pod without a name", |s| say(s, POD_NAME, &[""]), "bound to no pod"),
        ("a pod that is no name", |s| say(s, POD_NAME, &["a\nb"]), "bound to no pod"),
        ("no node: an older cluster", |s| drop(extra(s).remove(NODE_NAME)), "Kubernetes 1.30 or later"),
        ("nothing about the node", |s| say(s, NODE_NAME, &[]), "Kubernetes 1.30 or later"),
        ("two nodes", |s| say(s, NODE_NAME, &["node-1", "node-2"]), "Kubernetes 1.30 or later"),
        ("a node without a name", |s| say(s, NODE_NAME, &[""]), "it is empty"),
        ("a node that is no host's name", |s| say(s, NODE_NAME, &["Node_1"]), "no host can have"),
        ("nothing beside the name", |s| s.user.as_mut().unwrap().extra = None, "bound to no pod"),
    ];
    for (what, change, said) in table {
        let mut status = good();
        change(&mut status);
        let error = judge(&status, &account()).expect_err(what).to_string();
        assert!(error.contains(said), "{what}: {error}");
    }
}

#[test]
fn other_audiences_beside_ours_change_nothing() {
    let mut status = good();
    status.audiences = Some(vec!["x".to_owned(), AUDIENCE.to_owned()]);
    judge(&status, &account()).unwrap();
}

#[test]
fn an_api_servers_words_are_bounded() {
    let mut status = good();
    (status.authenticated, status.error) = (Some(false), Some("x".repeat(100_000)));
    assert!(judge(&status, &account()).unwrap_err().to_string().len() < 500);
}

#[test]
fn an_account_is_a_namespace_and_a_name() {
    assert_eq!(account().to_string(), "fleetknock/fleetknock-agent");
    for wrong in ["", "a", "/a", "a/", "a/b/c", "A/b", "a.b/c", "a/b_c", "a b/c"] {
        assert!(wrong.parse::<ServiceAccount>().unwrap_err().contains("NAMESPACE/NAME"), "{wrong}");
    }
    assert!(format!("{}/a", "n".repeat(64)).parse::<ServiceAccount>().is_err());
}

fn account() -> ServiceAccount {
    "fleetknock/fleetknock-agent".parse().unwrap()
}

fn good() -> TokenReviewStatus {
    let extra = [(POD_NAME, "fleetknock-agent-x7k2p"), (NODE_NAME, "node-1.example")];
    let extra = extra.map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
    TokenReviewStatus {
        audiences: Some(vec![AUDIENCE.to_owned()]),
        authenticated: Some(true),
        error: None,
        user: Some(UserInfo {
            extra: Some(extra.into()),
            username: Some("system:serviceaccount:fleetknock:fleetknock-agent".to_owned()),
            ..UserInfo::default()
        }),
    }
}

fn rename(status: &mut TokenReviewStatus, name: &str) {
    status.user.as_mut().unwrap().username = Some(name.to_owned());
}

fn extra(status: &mut TokenReviewStatus) -> &mut BTreeMap<String, Vec<String>> {
    status.user.as_mut().unwrap().extra.as_mut().unwrap()
}

fn say(status: &mut TokenReviewStatus, key: &str, values: &[&str]) {
    extra(status).insert(key.to_owned(), values.iter().map(ToString::to_string).collect());
}
