//! What went wrong in a handshake, in plain words.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};

use super::time_text;

/// A reason of ours within a TLS error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Reason(pub(super) String);

/// The error with which a verifier refuses for a reason of ours.
pub(super) fn refusal(reason: impl Into<String>) -> Error {
    let reason = Reason(reason.into());
    Error::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(reason))))
}

/// What kind of end a handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This side refused the other one's certificate, or its lack of one.
    Refused(String),
    /// The other side refused.
    TurnedAway(String),
    /// Neither: the connection broke, or the other side speaks something else.
    Broken(String),
}

/// Reads the error of a handshake or of a stream.
pub(super) fn end(error: &io::Error) -> End {
    match tls(error) {
        Some(Error::AlertReceived(alert)) => End::TurnedAway(turned_away(*alert)),
        Some(error @ (Error::InvalidCertificate(_) | Error::NoCertificatesPresented)) => {
            End::Refused(of(error))
        }
        Some(error) => End::Broken(of(error)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            End::Broken("the other side closed the connection during the handshake".to_owned())
        }
        None => End::Broken(error.to_string()),
    }
}

/// The TLS error within one of the system.
pub(super) fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// A TLS error in plain words; of the other side's certificate it says "its certificate".
pub(super) fn of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => "it shows no certificate, and needs one here".to_owned(),
        Error::AlertReceived(alert) => turned_away(*alert),
        Error::InvalidMessage(_) => "the other side does not speak TLS; is it plain text there?".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the other side does not speak TLS 1.3, the only version taken".to_owned(),
        Error::NoApplicationProtocol => "the other side does not speak what is spoken here (ALPN): gRPC takes h2, a port for browsers http/1.1".to_owned(),
        error => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::ExpiredContext { not_after, .. } => {
            format!("its certificate expired at {}", time_text(at(not_after.as_secs())))
        }
        E::Expired => "its certificate expired".to_owned(),
        E::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid only from {}, and this machine's clock says {}",
            time_text(at(not_before.as_secs())),
            time_text(at(time.as_secs()))
        ),
        E::NotValidYet => "its certificate is not valid yet".to_owned(),
        E::UnknownIssuer => "its certificate is from an authority (CA) that is not trusted here".to_owned(),
        E::BadSignature => "its certificate is from an authority (CA) that is not trusted here, but has the name of one that is".to_owned(),
        E::NotValidForNameContext { expected, presented } => {
            let presented = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("its certificate is for {presented}, not for {}", expected.to_str())
        }
        E::NotValidForName => "its certificate is for another name".to_owned(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its certificate is not meant for this side of a connection (extended key usage: servers need serverAuth, \
             clients clientAuth)"
                .to_owned()
        }
        E::Other(OtherError(other)) => match other.downcast_ref::<Reason>() {
            Some(Reason(reason)) => reason.clone(),
            None => format!("its certificate cannot be verified: {other}"),
        },
        E::Revoked => "its certificate was revoked".to_owned(),
        error => format!("its certificate cannot be verified: {error}"),
    }
}

fn turned_away(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::UnknownCA => "the other side does not trust the authority (CA) of this side's certificate".to_owned(),
        A::CertificateExpired => "the other side says that this side's certificate is out of its time".to_owned(),
        A::CertificateRequired => "the other side wants a certificate, and this side has none to show".to_owned(),
        A::CertificateUnknown | A::AccessDenied => {
            "the other side does not take this side's certificate: not this name, role or fleet; its log says why"
                .to_owned()
        }
        A::UnsupportedCertificate => {
            "this side's certificate is not meant for this side of a connection (extended key usage)".to_owned()
        }
        A::DecryptError => "the other side does not trust the authority (CA) of this side's certificate, only another \
                            one of that name"
            .to_owned(),
        A::BadCertificate | A::CertificateRevoked => {
            format!("the other side does not take this side's certificate ({alert:?})")
        }
        A::ProtocolVersion => "the other side does not speak TLS 1.3, the only version taken".to_owned(),
        A::NoApplicationProtocol => "the other side does not speak what is spoken here (ALPN): gRPC takes h2, a port for browsers http/1.1".to_owned(),
        alert => format!("the other side ended the handshake ({alert:?})"),
    }
}

fn at(seconds: u64) -> std::time::SystemTime {
    std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}
