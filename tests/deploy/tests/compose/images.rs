//! Images that stand in for those that `deploy/compose.yaml` names, as no registry may be within reach: nothing in them
//! but a program of this machine and the libraries that it loads, as in the real ones, which have no shell either.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use fleetknock_deploy::{debian, docker::Engine, run::run};
use fleetknock_lab::programs;
use tempfile::TempDir;

/// The variables of the compose file that name them.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("FLEETKNOCK_IMAGES", "compose-test"),
    ("FLEETKNOCK_VERSION", "under-test"),
    ("ETCD_IMAGE", "compose-test/etcd"),
    ("PROMETHEUS_IMAGE", "compose-test/prometheus"),
];
/// The one with a shell, in which tests look from inside.
pub(crate) const HOST: &str = "compose-test/example-host:under-test";
pub(crate) const CLI: &str = "compose-test/cli:under-test";

const OWN: &str = "USER 65532:65532\n";

/// Makes all of them.
pub(crate) fn make(engine: &Engine) -> Result<()> {
    for (name, program, user) in [
        ("agent", "fleetknock-agent", ""),
        ("controller", "fleetknock-controller", OWN),
        ("cli", "fleetknock", OWN),
    ] {
        let entrypoint = format!("ENTRYPOINT [\"/usr/bin/{program}\"]\n");
        let programs = [programs::path(program)?];
        build(engine, &format!("compose-test/{name}:under-test"), &programs, &format!("{user}{entrypoint}"))?;
    }
    build(engine, "compose-test/etcd", &[found("etcd")?, found("etcdctl")?], "")?;
    // As the real one, whose volume belongs to the user that it runs as.
    let prometheus = [found("prometheus")?, found("promtool")?];
    let folder = "COPY --chown=65534:65534 empty /prometheus\nENTRYPOINT [\"/usr/bin/prometheus\"]\n";
    build(engine, "compose-test/prometheus", &prometheus, folder)?;
    engine.import(&debian::tar("ssh", &["openssh-server"])?, HOST)
}

/// An image of programs and what they load, which is content for content the same when they are.
fn build(engine: &Engine, name: &str, programs: &[PathBuf], more: &str) -> Result<()> {
    let context = TempDir::new()?;
    let root = context.path().join("root");
    fs::create_dir_all(context.path().join("empty"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/none\nfleetknock:x:65532:65532::/:/none\n")?;
    for program in programs {
        let file = program.file_name().context("a program has a name")?;
        copy(program, &root.join("usr/bin").join(file))?;
        for library in libraries(program)? {
            copy(&library, &root.join(library.strip_prefix("/")?))?;
        }
    }
    fs::write(context.path().join("Dockerfile"), format!("FROM scratch\nCOPY root /\n{more}"))?;
    run(engine.docker().args(["build", "--quiet", "--tag", name]).arg(context.path())).map(drop)
}

/// The loader and all libraries of a program, by the paths under which they are loaded.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Ok(said) = run(Command::new("ldd").arg(program)) else {
        return Ok(vec![]); // it is static
    };
    let paths = said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

fn found(program: &str) -> Result<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].map(Path::new);
    let mut files = folders.iter().map(|folder| folder.join(program));
    let file = files.find(|file| file.is_file());
    file.with_context(|| format!("there is no {program}; install what is needed with: make deps"))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).map(drop)
}
