//! `make reproduce`: builds the release's programs twice, in different places, and compares them byte by byte. It is not a
//! test of `make test`, since it compiles everything anew.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};
use fleetknock_deploy::{
    binaries::{self, PROGRAMS},
    docker::Engine,
    images,
    run::run,
    tree,
};

/// Neither the checkout nor what is compiled lies where it does in the image's build, and nothing of that is used.
const ELSEWHERE: &str = "\
FROM fleetknock-test/tools AS compile
WORKDIR /some/where/else
COPY . .
RUN --mount=type=cache,target=/crates,sharing=locked \
    CARGO_HOME=/crates CARGO_TARGET_DIR=/some/target deploy/docker/compile ARCHITECTURE /out
FROM scratch
COPY --from=compile /out/ /
";

fn main() -> ExitCode {
    match compare() {
        Ok(lines) => {
            for line in &lines {
                say(line);
            }
            ExitCode::from(u8::from(lines.iter().any(|line| line.ends_with("differs"))))
        }
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<Vec<String>> {
    let engine = Engine::start()?;
    say("the first build: that of the images");
    let first = binaries::release_with(&engine)?;
    let folder = tree::kept().join("again");
    fs::create_dir_all(&folder)?;
    let dockerfile = folder.join("Dockerfile");
    let architecture = engine.run(&["version", "--format", "{{.Server.Arch}}"])?;
    fs::write(&dockerfile, ELSEWHERE.replace("ARCHITECTURE", &architecture))?;
    let ignored = tree::top().join("deploy/docker/Dockerfile.dockerignore");
    fs::copy(ignored, folder.join("Dockerfile.dockerignore"))?;
    let mut tools = images::from_dockerfile(&engine, "tools");
    run(tools.args(["--tag", "fleetknock-test/tools"]).arg(tree::top()))?;
    say("the second build, elsewhere and from nothing: it takes minutes");
    let second = folder.join("out");
    let mut build = engine.docker();
    build.args(["build", "--no-cache", "--progress=plain", "--file"]).arg(&dockerfile);
    build.args(["--output", &format!("type=local,dest={}", second.display())]);
    run(build.arg(tree::top()))?;
    // Their lists of contents name the folder in which they were made, so those are not compared.
    let same = |program: &str| -> Result<String> {
        let bytes = |folder: &std::path::Path| {
            fs::read(folder.join(program)).with_context(|| format!("{program} is missing"))
        };
        let verdict = if bytes(&first)? == bytes(&second)? { "the same bytes" } else { "differs" };
        Ok(format!("{program}: {verdict}"))
    };
    PROGRAMS.into_iter().map(same).collect()
}

fn say(line: &str) {
    use std::io::Write as _;
    // Nobody is told when nobody listens.
    let _ = writeln!(std::io::stdout(), "{line}");
}
