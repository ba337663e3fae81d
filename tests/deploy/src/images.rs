//! The images, built from `deploy/docker/Dockerfile` as it is, on stand-ins for the public images that it begins with.
//!
//! No image registry is needed: what stands in for `debian:bookworm-slim` is made by mmdebstrap, and what stands in for
//! `rust:1.95-bookworm` is that with a C compiler, and with this machine's own Rust, authorities and cargo settings, so
//! that a build reaches crates.io as the machine does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{binaries, debian, docker::Engine, run::run, tree};

/// The tag of the images: the workspace's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The images are `fleetknock/` and each of these.
pub const TARGETS: [&str; 3] = ["agent", "controller", "cli"];

const BASE: &str = "debian:bookworm-slim";
const BUILDER: &str = "rust:1.95-bookworm";
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
const STAND_IN: &str = "\
FROM fleetknock-test/builder-base
COPY bin/cargo bin/rustc /usr/local/bin/
COPY lib/ /usr/local/lib/
COPY --from=fleetknock-test/machine / /
";

/// The name of an image.
pub fn name(target: &str) -> String {
    format!("fleetknock/{target}:{VERSION}")
}

/// Builds the three images, the programs within; the first time takes minutes.
///
/// # Errors
/// When a build fails, with what it said.
pub fn build(engine: &Engine) -> Result<()> {
    stand_in(engine)?;
    for target in TARGETS {
        let (name, version) = (name(target), format!("VERSION={VERSION}"));
        let mut command = from_dockerfile(engine, target);
        command.args(["--build-arg", &version, "--tag", &name]);
        run(with_context(&mut command))?;
    }
    Ok(())
}

/// The checkout, or the folder of programs that are there already.
fn with_context(command: &mut Command) -> &mut Command {
    match binaries::ready_made() {
        Some(folder) => command.args(["--build-arg", "BINARIES=prebuilt"]).arg(folder),
        None => command.arg(tree::top()),
    }
}

/// Builds a target and writes its files into a folder.
///
/// # Errors
/// When the build fails, with what it said.
pub fn export(engine: &Engine, target: &str, folder: &Path) -> Result<()> {
    stand_in(engine)?;
    let output = format!("type=local,dest={}", folder.display());
    run(with_context(from_dockerfile(engine, target).args(["--output", &output]))).map(drop)
}

/// `docker build` of a target, which still lacks the context.
pub fn from_dockerfile(engine: &Engine, target: &str) -> Command {
    let mut command = engine.docker();
    command.args(["build", "--progress=plain", "--target", target, "--file"]);
    command.arg(tree::top().join("deploy/docker/Dockerfile"));
    // Docker knows these by itself: no line of the Dockerfile is needed for them.
    for proxy in ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        if std::env::var_os(proxy).is_some() {
            command.args(["--build-arg", proxy]);
        }
    }
    command
}

/// Makes the public images' stand-ins, where they are not there yet.
///
/// # Errors
/// When they cannot be made: Debian's packages cannot be reached, or Rust is not there.
pub fn stand_in(engine: &Engine) -> Result<()> {
    engine.import(&debian::tar("slim", &[])?, BASE)?;
    let packages = ["ca-certificates", "gcc", "libc6-dev"];
    engine.import(&debian::tar("builder", &packages)?, "fleetknock-test/builder-base")?;
    engine.import(&machine()?, "fleetknock-test/machine")?;
    let toolchain = run(Command::new("rustc").args(["--print", "sysroot"]).current_dir(tree::top()))?;
    let file = tree::kept().join("builder.Dockerfile");
    fs::write(&file, STAND_IN)?;
    run(engine.docker().args(["build", "--tag", BUILDER, "--file"]).arg(file).arg(toolchain.trim())).map(drop)
}

/// A tar file with how this machine reaches what is fetched: its authorities, and where cargo finds crates.
fn machine() -> Result<PathBuf> {
    let folder = tree::kept().join("machine");
    fs::create_dir_all(folder.join("etc/ssl/certs"))?;
    fs::create_dir_all(folder.join(".cargo"))?;
    let authorities = std::env::var_os("SSL_CERT_FILE").map_or_else(|| AUTHORITIES.into(), PathBuf::from);
    if authorities.exists() {
        fs::copy(&authorities, folder.join(&AUTHORITIES[1..]))
            .with_context(|| format!("cannot read {}", authorities.display()))?;
    }
    let own = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    if let Some(settings) = own.map(|folder| folder.join("config.toml")).filter(|file| file.exists()) {
        // At the top, where it is found from wherever cargo runs.
        fs::copy(&settings, folder.join(".cargo/config.toml"))?;
    }
    let tar = folder.with_extension("tar");
    run(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&tar).arg("."))?;
    Ok(tar)
}
