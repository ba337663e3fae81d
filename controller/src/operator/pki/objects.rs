//! The objects, each read, completed and written whole.

use std::{collections::BTreeMap, time::SystemTime};

use fleetknock_core::identity::{FleetName, Identity, Role, Who};
use fleetknock_runtime::tls::{
    Certificate,
    authority::{Authority, Order},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client,
    api::{GetParams, PostParams},
    core::{Request, Resource as KubeResource},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    ADMIN, CA, Deed, Done, Pki, PkiError, TLS, TRIES_MAX,
    leaves::{self, LeafError},
};
use crate::{
    operator::client::{CallError, call},
    seal::{KeyId, SealKey},
};

/// What is made here has this label, and nothing else is changed.
pub(super) const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "fleetknock-controller-pki");
const SECRET_TYPE: &str = "Opaque";

/// What all of them take.
pub(super) struct Desk<'a> {
    pub(super) pki: &'a Pki,
    pub(super) client: &'a Client,
    pub(super) fleet: &'a FleetName,
    pub(super) now: SystemTime,
}

/// The parts of an object by their names. Never in Debug output.
type Parts = BTreeMap<String, Vec<u8>>;

/// A kind that holds parts.
trait Holder: KubeResource<DynamicType = ()> + Serialize + DeserializeOwned {
    const KIND: &'static str;
    fn parts(&self) -> Parts;
    fn with(self, parts: Parts) -> Self;
    fn empty(metadata: ObjectMeta) -> Self;
}

impl Holder for Secret {
    const KIND: &'static str = "secret";

    fn parts(&self) -> Parts {
        self.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
    }

    fn with(self, parts: Parts) -> Self {
        let data = parts.into_iter().map(|(key, value)| (key, ByteString(value))).collect();
        Self { data: Some(data), ..self }
    }

    fn empty(metadata: ObjectMeta) -> Self {
        Self { metadata, type_: Some(SECRET_TYPE.to_owned()), ..Self::default() }
    }
}

impl Holder for ConfigMap {
    const KIND: &'static str = "configmap";

    fn parts(&self) -> Parts {
        self.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect()
    }

    fn with(self, parts: Parts) -> Self {
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        Self { data: Some(parts.into_iter().map(|(key, value)| (key, text(value))).collect()), ..self }
    }

    fn empty(metadata: ObjectMeta) -> Self {
        Self { metadata, ..Self::default() }
    }
}

impl Desk<'_> {
    /// The controllers' Secret; and the authority in it.
    pub(super) async fn tls(&self) -> Result<(Authority, Vec<Deed>), PkiError> {
        self.settle::<Secret, _>(TLS, |parts, is_new| self.complete_tls(parts, is_new)).await
    }

    /// The agents' ConfigMap.
    pub(super) async fn ca(&self, authority: &Authority) -> Result<Vec<Deed>, PkiError> {
        let object = self.named::<ConfigMap>(CA);
        let done = self.settle::<ConfigMap, _>(CA, |parts, is_new| {
            let deed = |done| vec![Deed { what: format!("{object}: ca.crt"), done }];
            if is_new {
                parts.insert("ca.crt".to_owned(), authority.pem().as_bytes().to_vec());
                return Ok(((), deed(Done::Made)));
            }
            if !trusts(parts, authority) {
                return Err(PkiError::OtherAuthority { object: object.clone() });
            }
            Ok(((), deed(Done::Left)))
        });
        done.await.map(|((), deeds)| deeds)
    }

    /// The first admin's Secret.
    pub(super) async fn admin(&self, authority: &Authority) -> Result<Vec<Deed>, PkiError> {
        let object = self.named::<Secret>(ADMIN);
        let name = self.pki.admin.clone();
        let identity = Identity { fleet: self.fleet.clone(), who: Who::User { name, role: Role::Admin } };
        let order = leaves::order(&identity, vec![], self.pki.valid_for);
        let done = self.settle::<Secret, _>(ADMIN, |parts, _| {
            let deed = self.pair(&object, parts, "tls", authority, &order)?;
            if !trusts(parts, authority) {
                parts.insert("ca.crt".to_owned(), authority.pem().as_bytes().to_vec());
            }
            Ok(((), vec![deed]))
        });
        done.await.map(|((), deeds)| deeds)
    }

    fn complete_tls(&self, parts: &mut Parts, is_new: bool) -> Result<(Authority, Vec<Deed>), PkiError> {
        let object = self.named::<Secret>(TLS);
        let failed = |source: LeafError| PkiError::Part { object: object.clone(), source };
        let mut deeds = Vec::new();
        if is_new {
            let made = leaves::authority(self.fleet, self.pki.authority_for, self.now);
            let (authority, key) = made.map_err(LeafError::from).map_err(failed)?;
            let seal = SealKey::generate(KeyId::random(rand::random()));
            let seal = seal.map_err(LeafError::from).map_err(failed)?;
            parts.insert("ca.crt".to_owned(), authority.pem().as_bytes().to_vec());
            parts.insert("ca.key".to_owned(), key.pem().as_bytes().to_vec());
            parts.insert("seal.key".to_owned(), format!("{}\n", *seal.line()).into_bytes());
        }
        for (key, loss) in [
            ("ca.crt", "every certificate of the fleet is made anew, and agents enrol again"),
            ("ca.key", "every certificate of the fleet is made anew, and agents enrol again"),
            ("seal.key", "doors in the store cannot be read any more, and are applied again"),
        ] {
            if !parts.contains_key(key) {
                return Err(PkiError::Gone { object: object.clone(), key, loss });
            }
        }
        let text = |key: &str| {
            let text = parts.get(key).and_then(|part| std::str::from_utf8(part).ok());
            text.ok_or_else(|| failed(LeafError::NoText { key: key.to_owned() }))
        };
        let authority =
            leaves::check(text("ca.crt")?, text("ca.key")?, self.fleet, self.now).map_err(failed)?;
        SealKey::parse(text("seal.key")?).map_err(LeafError::from).map_err(failed)?;
        let done = if is_new { Done::Made } else { Done::Left };
        for what in ["authority", "seal key"] {
            deeds.push(Deed { what: format!("{object}: {what}"), done });
        }
        for name in self.pki.controller_names() {
            let dns_names = self.pki.dns_names(&name);
            let stem = name.to_string();
            let identity = Identity { fleet: self.fleet.clone(), who: Who::Controller(name) };
            let order = leaves::order(&identity, dns_names, self.pki.valid_for);
            deeds.push(self.pair(&object, parts, &stem, &authority, &order)?);
        }
        Ok((authority, deeds))
    }

    /// Sees that `STEM.crt` and `STEM.key` are there and good for a while.
    fn pair(
        &self,
        object: &str,
        parts: &mut Parts,
        stem: &str,
        authority: &Authority,
        order: &Order,
    ) -> Result<Deed, PkiError> {
        let failed = |source: LeafError| PkiError::Part { object: object.to_owned(), source };
        let (certificate, key) = (format!("{stem}.crt"), format!("{stem}.key"));
        let there = parts.get(&certificate).filter(|_| parts.contains_key(&key));
        let done = match there {
            None => Done::Made,
            Some(text) => {
                let text = std::str::from_utf8(text);
                let text = text.map_err(|_| failed(LeafError::NoText { key: certificate.clone() }))?;
                if leaves::stays(text, authority, order, self.now, &certificate).map_err(failed)? {
                    Done::Left
                } else {
                    Done::Renewed
                }
            }
        };
        if done != Done::Left {
            let leaf = leaves::sign(authority, order, self.now).map_err(|error| failed(error.into()))?;
            parts.insert(certificate, leaf.certificate.into_bytes());
            parts.insert(key, leaf.key.as_bytes().to_vec());
        }
        Ok(Deed { what: format!("{object}: {stem}.crt"), done })
    }

    /// Reads an object, completes its parts and writes it, until nobody comes in between. What `complete` gives back is
    /// that of the parts which are there in the end.
    async fn settle<K: Holder, T>(
        &self,
        name: &str,
        complete: impl Fn(&mut Parts, bool) -> Result<(T, Vec<Deed>), PkiError>,
    ) -> Result<(T, Vec<Deed>), PkiError> {
        let object = self.named::<K>(name);
        let failed = |source| PkiError::Call { object: object.clone(), source };
        for _ in 0..TRIES_MAX {
            let there = match self.read::<K>(name).await {
                Ok(there) => Some(there),
                Err(CallError::NotFound) => None,
                Err(error) => return Err(failed(error)),
            };
            let ours = |metadata: &ObjectMeta| {
                let label = metadata.labels.as_ref().and_then(|labels| labels.get(LABEL.0));
                label.is_some_and(|label| label == LABEL.1)
            };
            if there.as_ref().is_some_and(|there| !ours(there.meta())) {
                return Err(PkiError::Foreign { object });
            }
            let before = there.as_ref().map(K::parts);
            let mut parts = before.clone().unwrap_or_default();
            let (made, deeds) = complete(&mut parts, before.is_none())?;
            if before.as_ref() == Some(&parts) {
                return Ok((made, deeds));
            }
            let written = match there {
                Some(there) => self.replace(name, there.with(parts)).await,
                None => self.create(K::empty(self.metadata(name)).with(parts)).await,
            };
            match written {
                Ok(()) => return Ok((made, deeds)),
                // What was made is thrown away, and what is there is looked at.
                Err(CallError::Conflict | CallError::NotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(PkiError::Contended { object })
    }

    async fn read<K: Holder>(&self, name: &str) -> Result<K, CallError> {
        call(self.client, self.of::<K>().get(name, &GetParams::default())).await
    }

    async fn create<K: Holder>(&self, object: K) -> Result<(), CallError> {
        let body = serde_json::to_vec(&object).map_err(|_| CallError::Unreadable)?;
        let answer: Result<serde::de::IgnoredAny, _> =
            call(self.client, self.of::<K>().create(&PostParams::default(), body)).await;
        answer.map(drop)
    }

    /// The version that was read stands in the object: the API server refuses when it is another one by now.
    async fn replace<K: Holder>(&self, name: &str, object: K) -> Result<(), CallError> {
        let body = serde_json::to_vec(&object).map_err(|_| CallError::Unreadable)?;
        let answer: Result<serde::de::IgnoredAny, _> =
            call(self.client, self.of::<K>().replace(name, &PostParams::default(), body)).await;
        answer.map(drop)
    }

    fn of<K: Holder>(&self) -> Request {
        Request::new(K::url_path(&(), Some(&self.pki.namespace)))
    }

    fn named<K: Holder>(&self, name: &str) -> String {
        format!("{} {}/{name}", K::KIND, self.pki.namespace)
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        let labels =
            [LABEL, ("app.kubernetes.io/name", "fleetknock"), ("app.kubernetes.io/part-of", "fleetknock")];
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.pki.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        }
    }
}

/// Whether this authority is among those of `ca.crt`.
fn trusts(parts: &Parts, authority: &Authority) -> bool {
    let there = Certificate::from_pem(parts.get("ca.crt").map_or(&[], Vec::as_slice));
    there.is_ok_and(|all| all.contains(authority.certificate()))
}
