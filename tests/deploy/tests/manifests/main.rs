//! `deploy/helm` and `deploy/kustomize`: what a cluster would be given, judged without one. The chart is rendered by Helm's
//! own library, the plain manifests by kubectl, and both are held against Kubernetes' schemas, against each other, against
//! what they may ask for, and against the programs that they start.

mod cases;
mod doors;
mod objects;
mod pages;
mod programs;
mod rights;
mod values;
