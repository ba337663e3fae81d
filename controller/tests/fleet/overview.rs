//! The fleet at a glance: the same from every controller.

use fleetknock_proto::v1 as pb;
use tonic::Code;

use crate::{
    several::{Fleet, knock_all, until},
    support::{apply, door},
};

#[tokio::test]
async fn every_controller_tells_the_knocks_of_all_and_what_the_fleet_has() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2", "ctl-3"]).await;
    let mut operators = fleet.operators().await;
    operators[0].apply_door(apply(door())).await.unwrap();
    let mut edge = fleet.controllers[0].agent("edge-1", "edge").await;
    let mut db = fleet.controllers[1].agent("db-1", "db").await;
    let mut bastion = fleet.controllers[2].agent("bastion-1", "bastion").await;
    // Sources that different controllers follow.
    for last in 1..=6 {
        knock_all(&mut edge, &mut db, &mut bastion, [203, 0, 113, last]).await;
        bastion.opening().await;
    }
    let ban = pb::BanSourceRequest { source: "198.51.100.1".to_owned(), ..Default::default() };
    operators[1].ban_source(ban).await.unwrap();
    edge.knock([198, 51, 100, 2], 9).await;
    for (name, operator) in ["ctl-1", "ctl-2", "ctl-3"].into_iter().zip(&mut operators) {
        let told = until(async || {
            let told = operator.overview(pb::OverviewRequest { seconds: 60 }).await.unwrap().into_inner();
            let sum = |of: fn(&pb::KnockCounts) -> u32| told.knocks.iter().map(of).sum::<u32>();
            let counted = (sum(|k| k.steps), sum(|k| k.completed), sum(|k| k.misses)) == (18, 6, 1);
            (counted && told.bans == 1 && told.openings == 6).then_some(told)
        })
        .await;
        assert_eq!((told.controller.as_str(), told.fleet.as_str()), (name, "test"));
        assert_eq!((told.doors, told.hosts, told.hosts_connected, told.controllers), (1, 3, 3, 3));
        assert_eq!((told.hosts_drifting, told.unanswered.len()), (0, 0));
        assert!(told.sources_limit > 0 && told.sources_in_flight <= told.sources_limit);
        assert_eq!(told.caller.unwrap().who, "anybody");
        assert_eq!(told.knocks.len(), 60);
        assert!(told.knocks.windows(2).all(|two| two[0].from_ms + 1_000 == two[1].from_ms));
        assert!(told.knocks[59].from_ms + 1_000 <= told.now_ms);
    }
    let many = operators[0].overview(pb::OverviewRequest { seconds: 901 }).await.unwrap_err();
    assert!(many.code() == Code::InvalidArgument && many.message().starts_with("seconds"), "{many}");
}
