//! The server's side of a handshake: the certificate of now, and whose word counts about clients.

use std::sync::Arc;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
    version::TLS13,
};

use super::{ALPN, Certificate, Credentials, Derived, Material, Outcome, Refusal, UriRule, provider, words};

/// Which certificates clients must show.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Every client shows one that the rule likes.
    Required(UriRule),
    /// A client may come without one, for those that show a token later; one that is shown must be as the rule likes.
    Optional(UriRule),
}

/// What is spoken within TLS, as both sides agree on in the handshake (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/2, as gRPC needs.
    #[default]
    Http2,
    /// HTTP/1.1, which browsers, probes and scrapers speak too.
    Http1,
}

impl Spoken {
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => ALPN,
            Self::Http1 => b"http/1.1",
        }
    }
}

/// Takes part in handshakes as a server, each with what the credentials hold then.
#[derive(Debug)]
pub struct Acceptor {
    pub(super) credentials: Credentials,
    clients: Clients,
    spoken: Spoken,
    built: Derived<Built>,
    refused: RefusalObserver,
    pub(super) metrics: Metrics,
}

/// A configuration, and the part of it that judges clients.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) config: Arc<ServerConfig>,
    pub(super) verifier: Arc<Verifier>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    outcomes: Family<[(&'static str, &'static str); 1], Counter>,
    pub(super) under_way: Gauge,
    pub(super) sessions_ended: Counter,
}

struct RefusalObserver(Option<Box<Observe>>);

type Observe = dyn Fn(&Refusal) + Send + Sync;

impl std::fmt::Debug for RefusalObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefusalObserver")
    }
}

/// A server without a certificate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TLS server needs a certificate and its key; name both files")]
pub struct NoCertificate;

impl Acceptor {
    /// # Errors
    /// When the credentials hold no certificate.
    pub fn new(credentials: Credentials, clients: Clients) -> Result<Self, NoCertificate> {
        if credentials.current().own.is_none() {
            return Err(NoCertificate);
        }
        let (refused, metrics) = (RefusalObserver(None), Metrics::default());
        Ok(Self { credentials, clients, spoken: Spoken::default(), built: Derived::new(), refused, metrics })
    }

    /// Speaks this within TLS; HTTP/2 unless said otherwise.
    #[must_use]
    pub fn speaking(self, spoken: Spoken) -> Self {
        Self { spoken, ..self }
    }

    /// Calls this for each client that was refused for its certificate, to count and to audit it; within the handshake's
    /// task, so it must not block.
    #[must_use]
    pub fn on_refusal(mut self, observe: impl Fn(&Refusal) + Send + Sync + 'static) -> Self {
        self.refused = RefusalObserver(Some(Box::new(observe)));
        self
    }

    /// Adds `tls_handshakes_total` by outcome and its like to a registry; a prefix is the caller's.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.metrics;
        registry.register(
            "tls_handshakes",
            "Handshakes of clients, by how they ended",
            metrics.outcomes.clone(),
        );
        registry.register("tls_handshakes_under_way", "Handshakes not yet ended", metrics.under_way.clone());
        registry.register(
            "tls_sessions_ended",
            "Connections ended because the client's certificate expired or is no longer trusted",
            metrics.sessions_ended.clone(),
        );
    }

    /// The configuration for the credentials of now.
    pub(super) fn built(&self) -> Result<Arc<Built>, Error> {
        self.built.of(&self.credentials.current(), |material| build(material, &self.clients, self.spoken))
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.metrics.outcomes.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        if let RefusalObserver(Some(observe)) = &self.refused {
            observe(refusal);
        }
    }
}

fn build(material: &Material, clients: &Clients, spoken: Spoken) -> Result<Built, Error> {
    let own = material.own.as_ref().ok_or_else(|| Error::General(NoCertificate.to_string()))?;
    let (rule, optional) = match clients {
        Clients::Required(rule) => (rule.clone(), false),
        Clients::Optional(rule) => (rule.clone(), true),
    };
    // Without hints on whose certificates are wanted: a client has one, and whoever only knocks here need not learn
    // the names of the authorities.
    let builder = WebPkiClientVerifier::builder_with_provider(material.roots.clone(), provider())
        .clear_root_hint_subjects();
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    let chain = builder.build().map_err(|error| Error::General(error.to_string()))?;
    let verifier = Arc::new(Verifier { chain, rule });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified.clone())));
    config.alpn_protocols = vec![spoken.alpn().to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Built { config: Arc::new(config), verifier })
}

/// Verifies the chain, then asks the rule.
#[derive(Debug)]
pub(super) struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
    rule: UriRule,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = Certificate::from_der(end_entity)
            .map_err(|error| words::refusal(format!("its certificate cannot be read: {error}")))?;
        self.rule.judge(&certificate.uris).map_err(|reason| {
            words::refusal(format!("its certificate ({}) is not taken: {reason}", certificate.holder()))
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
