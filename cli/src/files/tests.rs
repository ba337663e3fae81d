//! Files, folders and standard input become doors, or one line per problem.

use super::*;

const DOOR: &str = "apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: NAME}
spec:
  knock: {sequence: [{port: tcp/7412}, {port: udp/23981}, {port: tcp/51003}], within: 15s}
  opens: {hosts: {names: [a]}, ports: [tcp/22], for: 30s}
";

#[test]
fn directories_stand_for_their_files_and_every_problem_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("b.yaml", &DOOR.replace("NAME", "b"));
    write("a.yml", &format!("{}---\n{}", DOOR.replace("NAME", "a"), DOOR.replace("NAME", "b")));
    write("c.json", "{}");
    write("d.yaml", &DOOR.replace("NAME", "d").replace("ports", "prots"));
    write("e.yaml", "# nothing\n");
    write("f.txt", "not read");
    fs::create_dir(folder.path().join("g.yaml")).unwrap();

    let doors = read(&[folder.path().to_owned()]).unwrap();
    let names: Vec<_> = doors.found.iter().map(|found| found.door.name().to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    let prefix = format!("{}/", folder.path().display());
    let problems: Vec<_> = doors.problems.iter().map(|problem| problem.replace(&prefix, "")).collect();
    assert_eq!(
        problems,
        [
            "b.yaml:1: metadata.name: the door 'b' is already in a.yml:8; names are unique in a fleet",
            "c.json:1: the field 'apiVersion' is missing or empty",
            "d.yaml:6: unknown field 'prots' in spec.opens; did you mean 'ports'?",
            "e.yaml: holds no door",
        ]
    );
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yaml");
    let error = read(&[missing]).unwrap_err();
    assert_eq!(exit::code_of(&error), exit::NO_INPUT);
    assert_eq!(exit::code_of(&read(&[folder.path().to_owned()]).unwrap_err()), exit::NO_INPUT);
    let binary = folder.path().join("binary.yaml");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(exit::code_of(&read(&[binary]).unwrap_err()), exit::DATA);
}
