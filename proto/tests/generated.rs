//! The checked-in generated code is what the `.proto` files give. After a change to one of them run
//! `FLEETKNOCK_UPDATE_GENERATED=1 cargo test -p fleetknock-proto --test generated`.

use std::{fs, path::Path};

const PROTOS: [&str; 5] = [
    "fleetknock/v1/types.proto",
    "fleetknock/v1/agent.proto",
    "fleetknock/v1/control.proto",
    "fleetknock/v1/enrolment.proto",
    "fleetknock/v1/peer.proto",
];

/// Messages that hold secrets themselves: how they are printed is written by hand, in `secret.rs`.
const SECRETIVE: [&str; 5] = [
    ".fleetknock.v1.CreateTokenResponse",
    ".fleetknock.v1.EnrolRequest",
    ".fleetknock.v1.KnockSeen",
    ".fleetknock.v1.Observation",
    ".fleetknock.v1.Step",
];

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/generated");
    let fresh = tempfile::tempdir().unwrap();

    let descriptors = protox::compile(PROTOS, [root]).unwrap();
    tonic_prost_build::configure()
        .skip_debug(SECRETIVE)
        .out_dir(fresh.path())
        .file_descriptor_set_path(fresh.path().join("descriptors.bin"))
        .compile_fds(descriptors.clone())
        .unwrap();
    fs::write(fresh.path().join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors)).unwrap();

    for file in ["fleetknock.v1.rs", "descriptors.bin"] {
        let new = fs::read(fresh.path().join(file)).unwrap();
        if std::env::var_os("FLEETKNOCK_UPDATE_GENERATED").is_some() {
            fs::write(checked_in.join(file), new).unwrap();
            continue;
        }
        let old = fs::read(checked_in.join(file)).unwrap_or_default();
        assert!(
            old == new,
            "proto/src/generated/{file} is not what the .proto files give; regenerate it with\n    \
             FLEETKNOCK_UPDATE_GENERATED=1 cargo test -p fleetknock-proto --test generated"
        );
    }
}
