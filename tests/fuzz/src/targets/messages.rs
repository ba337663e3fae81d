//! Every message of the wire, decoded, written again and decoded again.

use prost::Message;

use fleetknock_proto::v1;

/// Reads one message from bytes; what it writes of it must read the same.
type Reader = fn(&[u8]);

macro_rules! messages {
    ($($name:ident)*) => {
        /// Each message of `fleetknock.v1` and what reads it, by name.
        pub const ALL: &[(&str, Reader)] = &[$((stringify!($name), both_ways::<v1::$name>)),*];
    };
}

messages! {
    Acknowledge Actor AgentMessage ApplyDoorRequest ApplyDoorResponse Attempt BackupPart BackupRequest Ban
    BanSourceRequest CloseRequest CloseResponse ConfirmDoorRequest ConnectedHostsRequest ConnectedHostsResponse
    Controller ControllerMessage CreateTokenRequest CreateTokenResponse DeleteDoorRequest DeleteDoorResponse
    DeleteHostRequest DeleteHostResponse Delta DescribeRequest Door DoorExplained DoorSpec DropCounters
    EnrolRequest Event ExplainRequest ExplainResponse FieldChange ForwardBatch GetBanRequest GetControllerRequest
    GetDoorRequest GetHostRequest GetOpeningRequest Goodbye Guard GuardCount Hello Host HostBan HostObservations
    HostOpening HostReport HostSelector IssuedCertificate KnockCounts KnockSeen ListAttemptsRequest
    ListAttemptsResponse ListBansRequest ListBansResponse ListControllersRequest ListControllersResponse
    ListDoorsRequest ListDoorsResponse ListEventsRequest ListEventsResponse ListHostsRequest ListHostsResponse
    ListOpeningsRequest ListOpeningsResponse ListTokensRequest ListTokensResponse LogOrder Observation
    ObservationBatch OpenRequest Opening OpeningOnHost OpeningReport OpeningReports OpeningReportsRequest
    OpeningReportsResponse OpeningResult OverviewRequest OverviewResponse OwnKnocksRequest OwnKnocksResponse
    OwnOverviewResponse Peer PeerHello PeerMessage PeerProbeReply PeerReply PeerTraced PeerWelcome Port PortRange
    Probe ProbeReply RenewRequest Resend RestoreChange RestoreOptions RestorePart RestoreProgress RestoreSummary
    ResultBatch RevokeTokenRequest RevokeTokenResponse Sequence SetLogRequest SetLogResponse Snapshot Step Token
    TokenUser Traced UnbanSourceRequest UnbanSourceResponse WatchEventsRequest Welcome Withdrawal
}

/// The number by which an input chooses a message.
pub fn number(name: &str) -> Option<u8> {
    ALL.iter().position(|(known, _)| *known == name).and_then(|at| u8::try_from(at).ok())
}

fn both_ways<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let written = message.encode_to_vec();
    let again = M::decode(written.as_slice());
    // A number of a message may be none (IEEE 754 NaN), and then the message does not equal itself.
    if message.eq(&message) {
        assert!(again.is_ok_and(|again| again == message), "a message changes when it is written and read");
    }
}
