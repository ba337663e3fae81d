//! What an issuer signs is what the fleet takes.

use std::fs;

use fleetknock_runtime::tls::{
    Certificate, Files,
    authority::{Access, write_new},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_certificate_is_for_the_host_and_ends_in_time() {
    let fleet = Fleet::new();
    let now = SystemTime::now();
    let issued = fleet.issue("ca", HOUR).unwrap();
    let certificates = Certificate::from_pem(issued.certificate.as_bytes()).unwrap();
    let [certificate] = &certificates[..] else { panic!("the authority is known already") };
    assert_eq!(certificate.uris, ["fleetknock://blue/host/edge-1"]);
    assert_eq!(certificate.purposes, ["client"]);
    assert!(certificate.remaining(now) <= HOUR && certificate.remaining(now) > HOUR / 2);
    assert_eq!(issued.authorities, fleet.trusted.authorities_pem());
    // Never beyond the authority itself.
    let issued = fleet.issue("ca", 100 * HOUR).unwrap();
    let certificate = Certificate::from_pem(issued.certificate.as_bytes()).unwrap().remove(0);
    assert!(certificate.remaining(now) <= 10 * HOUR);
}

#[test]
fn an_intermediate_comes_along_with_what_it_signed() {
    let fleet = Fleet::new();
    let issued = fleet.issue("intermediate", HOUR).unwrap();
    let certificates = Certificate::from_pem(issued.certificate.as_bytes()).unwrap();
    assert_eq!(certificates.len(), 2);
    assert!(!certificates[0].is_authority && certificates[1].is_authority);
    assert_eq!(issued.authorities, fleet.trusted.authorities_pem());
}

#[test]
fn what_the_fleet_would_not_take_is_not_signed() {
    let fleet = Fleet::new();
    fleet.authority("stranger");
    let error = fleet.issue("stranger", HOUR).unwrap_err().to_string();
    assert!(error.contains("stranger.crt") && error.contains("--tls-ca of every controller"), "{error}");
    let issuer = fleet.issuer("stranger", HOUR);
    let blue = "blue".parse().unwrap();
    assert!(issuer.try_out(&blue, &fleet.trusted, SystemTime::now()).is_err());
    fleet.issuer("ca", HOUR).try_out(&blue, &fleet.trusted, SystemTime::now()).unwrap();
}

#[test]
fn files_are_read_each_time() {
    let fleet = Fleet::new();
    let issuer = fleet.issuer("ca", HOUR);
    let sign = || {
        let key = PrivateKey::generate().unwrap().public().unwrap();
        issuer.issue(&host(), &key, &fleet.trusted, SystemTime::now())
    };
    sign().unwrap();
    let key = fs::read_to_string(fleet.path("ca.key")).unwrap();
    fs::write(fleet.path("ca.key"), PrivateKey::generate().unwrap().pem()).unwrap();
    assert!(matches!(
        sign().unwrap_err(),
        IssuerError::Authority(AuthorityError::Mismatch | AuthorityError::File { .. })
    ));
    fs::write(fleet.path("ca.key"), key).unwrap();
    sign().unwrap();
}

struct Fleet {
    directory: TempDir,
    trusted: Material,
}

impl Fleet {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_after = (SystemTime::now() + 10 * HOUR).into();
        params.distinguished_name.push(rcgen::DnType::CommonName, "root");
        let (key, below_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        write_new(&path("ca.key"), &key.serialize_pem(), Access::Owner).unwrap();
        let root = CertifiedIssuer::self_signed(params.clone(), key).unwrap();
        write_new(&path("ca.crt"), &root.pem(), Access::Everybody).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
        write_new(&path("intermediate.key"), &below_key.serialize_pem(), Access::Owner).unwrap();
        let below = params.signed_by(&below_key, &root).unwrap();
        write_new(&path("intermediate.crt"), &below.pem(), Access::Everybody).unwrap();
        let trusted = Files { own: None, authorities: vec![path("ca.crt")] }.load(SystemTime::now()).unwrap();
        Self { directory, trusted }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn authority(&self, name: &str) {
        let (authority, key) = Authority::create(name, "x://ca", HOUR, SystemTime::now()).unwrap();
        write_new(&self.path(&format!("{name}.crt")), authority.pem(), Access::Everybody).unwrap();
        write_new(&self.path(&format!("{name}.key")), key.pem(), Access::Owner).unwrap();
    }

    fn issuer(&self, name: &str, valid_for: Duration) -> Issuer {
        Issuer::new(self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")), valid_for)
    }

    fn issue(&self, name: &str, valid_for: Duration) -> Result<pb::IssuedCertificate, IssuerError> {
        let key = PrivateKey::generate().unwrap().public().unwrap();
        self.issuer(name, valid_for).issue(&host(), &key, &self.trusted, SystemTime::now())
    }
}

fn host() -> Identity {
    "fleetknock://blue/host/edge-1".parse().unwrap()
}
