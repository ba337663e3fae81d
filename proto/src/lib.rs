//! The wire contract `fleetknock.v1` and its conversions to and from the core's types.
//!
//! The `.proto` files in `fleetknock/v1` are the source; the Rust in `generated` is checked in so that no user needs a
//! protobuf compiler, and a test compares the two. Conversions stand beside the generated types: from the wire to the
//! core they can fail and say which field and why; from the core to the wire they cannot.

/// The messages and services of `fleetknock.v1`, generated.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto files carry the documentation"
)]
pub mod v1 {
    include!("generated/fleetknock.v1.rs");

    /// The encoded descriptors of this package, for the reflection service.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
}

pub mod convert;
mod field;
pub mod limits;
mod secret;
pub mod status;

pub use convert::Seen;
pub use field::FieldError;
