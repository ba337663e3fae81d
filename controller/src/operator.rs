//! What a controller does in Kubernetes beside its own work: doors that are custom resources become doors of the fleet,
//! hosts that enrol show the word of their cluster instead of a token, and certificates are kept as secrets.
//!
//! Nothing else in the controller knows of Kubernetes. This room reads its API and then does what an operator's command
//! would do, through the same functions; behind the feature `operator`, since a fleet without Kubernetes needs none of it.

pub mod client;
pub mod command;
pub mod crd;
pub mod enroll;
pub mod labels;
pub mod pki;
