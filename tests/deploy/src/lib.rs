//! What proves `deploy/`: images, compose, manifests and packages are built and used as an operator would.
//!
//! Each test file takes one way to deploy. Here is what they share: [commands](run) that say what failed and with what
//! words, a [clean Debian](debian) to install into and to base images on, a [machine] that boots it, a
//! [Docker engine](docker) of their own, and the [images], [binaries] and [packages] of a release.

pub mod binaries;
pub mod debian;
pub mod docker;
pub mod images;
pub mod machine;
pub mod manifests;
pub mod packages;
pub mod run;
pub mod tree;
