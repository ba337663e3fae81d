//! What goes wrong around the resources: no guard is lifted by it, and what was left undone is done afterwards.

use super::*;

#[tokio::test]
async fn the_eldest_writes_and_when_it_dies_the_next_goes_on() {
    let (api, store) = (Api::start().await, Arc::new(MemoryStore::new()));
    let eldest = Doomed::start("ctl-1", store.clone(), &api).await;
    let other = started("ctl-2", store, &api).await;
    let mut bastion = other.agent("bastion-1", "bastion").await;
    api.apply_door("ssh", spec(&[22]), json!({}));
    guards(&mut bastion, &[22]).await;
    status(&api, "ssh", |status| condition(status, "Accepted").0 == "True").await;
    let mut operator = other.operator().await;
    let controller = applied(&mut operator).await.controller;
    assert_eq!((controller.as_str(), api.held().watches), ("ctl-1", 2), "only the eldest watches");
    eldest.kill();
    api.apply_door("web", spec(&[443]), json!({}));
    api.delete_door("ssh");
    guards(&mut bastion, &[443]).await;
    until(async || api.door("ssh").is_none().then_some(())).await;
    status(&api, "web", |status| condition(status, "Accepted").0 == "True").await;
    let events = operator.list_events(pb::ListEventsRequest::default()).await.unwrap().into_inner().events;
    let web = events.iter().find(|event| event.door == "web").unwrap();
    assert_eq!(web.controller, "ctl-2");
}

#[tokio::test]
async fn an_api_server_that_goes_away_lifts_no_guard_and_is_followed_when_it_is_back() {
    let (api, controller) = fleet().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let mut operator = controller.operator().await;
    api.apply_door("ssh", spec(&[22]), json!({}));
    guards(&mut bastion, &[22]).await;
    api.set(|held| held.away = true);
    sleep(Duration::from_secs(3)).await;
    assert!(shown(&mut operator, "ssh").await.is_some());
    api.apply_door("web", spec(&[443]), json!({}));
    // It has forgotten where the watch stood, too.
    api.forget();
    api.set(|held| held.away = false);
    guards(&mut bastion, &[22, 443]).await;
    api.forget();
    api.apply_door("db", spec(&[5432]), json!({}));
    guards(&mut bastion, &[22, 443, 5432]).await;
}

#[tokio::test]
async fn calls_that_fail_conflict_or_take_their_time_are_made_again() {
    let (api, controller) = fleet().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    for (code, name, port) in [(500, "a", 22), (409, "b", 80), (429, "c", 443)] {
        api.set(|held| held.failing = (2, code));
        api.apply_door(name, spec(&[port]), json!({}));
        status(&api, name, |status| condition(status, "Accepted").0 == "True").await;
        assert_eq!(api.held().failing.0, 0);
    }
    guards(&mut bastion, &[22, 80, 443]).await;
    api.set(|held| held.delay = Duration::from_millis(700));
    api.delete_door("a");
    until(async || api.door("a").is_none().then_some(())).await;
    guards(&mut bastion, &[80, 443]).await;
}

#[tokio::test]
async fn a_resource_that_is_torn_out_leaves_its_door_in_force_to_the_control_api() {
    let (api, controller) = fleet().await;
    let mut operator = controller.operator().await;
    api.apply_door("ssh", spec(&[22]), json!({}));
    status(&api, "ssh", |status| condition(status, "Accepted").0 == "True").await;
    api.tear_out_door("ssh");
    let delete = pb::DeleteDoorRequest { name: "ssh".to_owned(), ..Default::default() };
    until(async || {
        let events =
            operator.list_events(pb::ListEventsRequest::default()).await.unwrap().into_inner().events;
        events.iter().any(|event| event.message.contains("the door stays in force")).then_some(())
    })
    .await;
    assert!(shown(&mut operator, "ssh").await.is_some());
    // Made again it is the resource's again.
    api.apply_door("ssh", spec(&[22, 80]), json!({}));
    status(&api, "ssh", |status| condition(status, "Accepted").0 == "True").await;
    assert!(operator.delete_door(delete.clone()).await.is_err());
    api.tear_out_door("ssh");
    until(async || operator.delete_door(delete.clone()).await.is_ok().then_some(())).await;
}

#[tokio::test]
async fn deleting_the_definition_lifts_no_guard() {
    let (api, controller) = fleet().await;
    let mut operator = controller.operator().await;
    api.apply_door("ssh", spec(&[22]), json!({}));
    status(&api, "ssh", |status| condition(status, "Accepted").0 == "True").await;
    // The API server then deletes every resource, each of which waits for its finalizer.
    api.set(|held| held.definition_deleted = true);
    api.delete_door("ssh");
    until(async || api.door("ssh").is_none().then_some(())).await;
    assert!(shown(&mut operator, "ssh").await.is_some());
    let delete = pb::DeleteDoorRequest { name: "ssh".to_owned(), ..Default::default() };
    operator.delete_door(delete).await.unwrap();
}

#[tokio::test]
async fn without_the_right_to_secrets_doors_that_need_none_work() {
    let api = Api::start().await;
    api.set(|held| held.secrets_forbidden = true);
    let mut kept = spec(&[22]);
    kept["knock"] =
        json!({"within": "15s", "sequenceFrom": {"secretKeyRef": {"name": "ssh", "key": "steps"}}});
    api.apply_door("kept", kept, json!({}));
    api.apply_door("open", spec(&[80]), json!({}));
    let controller = started("ctl-1", Arc::new(MemoryStore::new()), &api).await;
    status(&api, "open", |status| condition(status, "Accepted").0 == "True").await;
    status(&api, "kept", |status| condition(status, "Accepted") == ("False", "SecretForbidden")).await;
    drop(controller);
}
