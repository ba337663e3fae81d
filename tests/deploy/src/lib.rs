//! What proves `deploy/`: images, compose, manifests and packages are built and used as an operator would.
//!
//! Each test file takes one way to deploy. Here is what they share: [commands](run) that say what failed and with what
//! words, a [clean Debian](debian) to install into and to base images on, a [Docker engine](docker) of their own, and in it the
//! [images] and [binaries] of a release, built once for all.

pub mod binaries;
pub mod debian;
pub mod docker;
pub mod images;
pub mod manifests;
pub mod run;
pub mod tree;
