//! What messages with secrets show of themselves: `Debug` prints no port or host of a step, no port that was knocked at,
//! and no token.

use std::fmt;

use crate::v1::{CreateTokenResponse, EnrolRequest, KnockSeen, Observation, Step};

const SECRET: &str = "(secret)";

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Step(secret)")
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counter, time_us, source, destination, protocol: _, port: _, fingerprint: _ } = self;
        f.debug_struct("Observation")
            .field("counter", counter)
            .field("time_us", time_us)
            .field("source", source)
            .field("destination", destination)
            .field("port", &SECRET)
            .finish()
    }
}

impl fmt::Debug for KnockSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnockSeen")
            .field("host", &self.host)
            .field("time_us", &self.time_us)
            .field("port", &SECRET)
            .field("outcome", &self.outcome())
            .field("door", &self.door)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, secret: _ } = self;
        f.debug_struct("CreateTokenResponse").field("token", token).field("secret", &SECRET).finish()
    }
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, signing_request } = self;
        let mut request = f.debug_struct("EnrolRequest");
        request.field("token", &SECRET).field("signing_request", signing_request).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{self as pb, door_spec::Knock};

    use super::*;

    #[test]
    fn messages_print_no_secret() {
        let port = |port| Some(pb::Port { protocol: pb::Protocol::Tcp.into(), port });
        let hosts = pb::HostSelector { names: vec!["db-hidden".to_owned()], ..pb::HostSelector::default() };
        let step = Step { hosts: Some(hosts), port: port(27412) };
        let knock = Knock::Sequence(pb::Sequence { steps: vec![step], within_ms: 9, length: 1 });
        let spec = pb::DoorSpec { knock: Some(knock), ..pb::DoorSpec::default() };
        let door = pb::Door { name: "bastion".to_owned(), spec: Some(spec), ..pb::Door::default() };
        let apply = pb::ApplyDoorRequest { door: Some(door), ..pb::ApplyDoorRequest::default() };
        let seen = Observation { counter: 77, port: 27412, ..Observation::default() };
        let batch = pb::ObservationBatch { observations: vec![seen], ..pb::ObservationBatch::default() };
        let made = CreateTokenResponse { token: None, secret: "27412".to_owned() };
        let enrol = EnrolRequest { token: "27412".to_owned(), signing_request: "pem".to_owned() };
        for (printed, shown) in [
            (format!("{apply:?} {apply:#?}"), "bastion"),
            (format!("{batch:?} {batch:#?}"), "77"),
            (format!("{made:?} {made:#?}"), "CreateTokenResponse"),
            (format!("{enrol:?} {enrol:#?}"), "pem"),
        ] {
            assert!(!printed.contains("27412") && !printed.contains("db-hidden"), "{printed}");
            assert!(printed.contains(shown), "{printed}");
        }
    }
}
