//! What proves `deploy/`: images, compose, manifests and packages are built and used as an operator would.
//!
//! Each test file takes one way to deploy. Here is what they share: [commands](run) that say what failed and with what
//! words, and a [clean Debian](debian) to install into and to base images on where no image registry can be reached.

pub mod debian;
pub mod docker;
pub mod manifests;
pub mod run;
pub mod tree;
