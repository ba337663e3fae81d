//! The images that `deploy/compose.yaml` names: our own, built from their Dockerfiles as they are, and stand-ins for those
//! of others, as no registry may be within reach: nothing in them but a program of this machine and the libraries that
//! it loads.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use fleetknock_deploy::{docker::Engine, images, run::run, tree};
use tempfile::TempDir;

/// The variables of the compose file that name stand-ins.
pub(crate) const NAMES: &[(&str, &str)] =
    &[("ETCD_IMAGE", "compose-test/etcd"), ("PROMETHEUS_IMAGE", "compose-test/prometheus")];
/// The one with a shell, in which tests look from inside.
pub(crate) const HOST: &str = concat!("fleetknock/example-host:", env!("CARGO_PKG_VERSION"));
pub(crate) const CLI: &str = concat!("fleetknock/cli:", env!("CARGO_PKG_VERSION"));

/// Makes all of them; the first time our own take minutes.
pub(crate) fn make(engine: &Engine) -> Result<()> {
    images::build(engine)?;
    let host = tree::top().join("deploy/compose/host");
    run(engine.docker().args(["build", "--quiet", "--tag", HOST]).arg(host))?;
    build(engine, "compose-test/etcd", &[found("etcd")?, found("etcdctl")?], "")?;
    // As the real one, whose volume belongs to the user that it runs as.
    let prometheus = [found("prometheus")?, found("promtool")?];
    let folder = "COPY --chown=65534:65534 empty /prometheus\nENTRYPOINT [\"/usr/bin/prometheus\"]\n";
    build(engine, "compose-test/prometheus", &prometheus, folder)
}

/// An image of programs and what they load, which is content for content the same when they are.
fn build(engine: &Engine, name: &str, programs: &[PathBuf], more: &str) -> Result<()> {
    let context = TempDir::new()?;
    let root = context.path().join("root");
    fs::create_dir_all(context.path().join("empty"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/none\n")?;
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
