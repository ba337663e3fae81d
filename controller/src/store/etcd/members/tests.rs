//! What failures mean, and which member is asked next.

use super::*;

#[test]
fn failures_are_sorted_by_what_is_known_about_the_outcome() {
    let status = |code, message: &str| etcd_client::Error::GRpcStatus(Status::new(code, message));
    let sorted = |code, message: &str| sort("http://a", status(code, message));

    for (code, message) in [
        (Code::Unavailable, "etcdserver: leader changed"),
        (Code::Unavailable, "etcdserver: request timed out"),
        (Code::Cancelled, "operation was canceled"),
        (Code::Unknown, "transport error"),
    ] {
        assert!(matches!(sorted(code, message), Failure::Unknown(_)), "{message}");
    }
    for (code, message) in [
        (Code::Unavailable, "etcdserver: no leader"),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
    ] {
        assert!(matches!(sorted(code, message), Failure::NotDone(_)), "{message}");
    }
    for (code, message) in [
        (Code::PermissionDenied, "etcdserver: permission denied"),
        (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
        (Code::InvalidArgument, "etcdserver: user name is empty"),
        (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
    ] {
        let refused = sorted(code, message);
        assert!(matches!(&refused, Failure::Final(error) if error.is_retryable()), "{message}: {refused:?}");
    }
    let ended = sorted(Code::NotFound, "etcdserver: requested lease not found");
    assert!(matches!(ended, Failure::Final(StoreError::LeaseEnded)), "{ended:?}");
    let compacted = sorted(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    assert!(matches!(compacted, Failure::Final(StoreError::Compacted { .. })));
    let too_large = sorted(Code::InvalidArgument, "etcdserver: request is too large");
    assert!(matches!(too_large, Failure::Final(StoreError::Invalid(_))));
}

#[test]
fn a_refused_connection_is_known_to_have_done_nothing() {
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    for (cause, never) in [(refused, true), (reset, false)] {
        let mut status = Status::unavailable("transport error");
        status.set_source(std::sync::Arc::new(cause));
        assert_eq!(never_left(&status), never);
        let why = sort("http://a", status.into()).into_store_error().to_string();
        assert!(why.contains("http://a: transport error: connection re"), "{why}");
    }
}

#[test]
fn members_are_passed_over_in_turn_and_only_once_for_one_failure() {
    let urls = ["http://a:1", "http://b:1", "http://c:1"].map(str::to_owned).to_vec();
    let members = Members::new(&EtcdOptions::new(urls)).unwrap();
    let first = members.preferred();
    members.pass_over(first);
    members.pass_over(first);
    assert_eq!(members.preferred().url, "http://b:1");
    members.pass_over(members.preferred());
    members.pass_over(members.preferred());
    assert_eq!(members.preferred().url, "http://a:1");
}

#[tokio::test(start_paused = true)]
async fn every_member_is_asked_at_once_and_then_at_growing_intervals_until_the_deadline() {
    let urls = ["http://a:1", "http://b:1"].map(str::to_owned).to_vec();
    let members = Members::new(&EtcdOptions::new(urls)).unwrap();
    let start = Instant::now();
    let deadline = start + Duration::from_secs(3);
    let mut asked = vec![];
    for attempts in 1.. {
        if !members.pause(attempts, deadline).await {
            break;
        }
        asked.push(start.elapsed().as_millis());
    }
    assert_eq!(asked[..4], [0, 50, 100, 200]);
    assert!(asked.len() < 20 && asked.last().is_some_and(|last| (2000..3000).contains(last)), "{asked:?}");
}
