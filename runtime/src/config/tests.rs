//! Flag before environment before file before default, and what each mistake is told.

use std::{ffi::OsString, io::Write as _};

use clap::{Parser, ValueEnum};
use tempfile::NamedTempFile;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Kind {
    Auto,
    Nftables,
}

/// Stands for a program.
#[derive(Debug, Parser, PartialEq)]
#[command(version = "1.2.3")]
struct Args {
    /// The host's name.
    #[arg(long, value_name = "NAME")]
    host: String,
    #[arg(long, value_delimiter = ',')]
    label: Vec<String>,
    #[arg(long, value_enum, default_value = "auto")]
    firewall: Kind,
    #[arg(long)]
    insecure: bool,
    #[arg(long, default_value_t = 10)]
    retries: u8,
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long, hide_env_values = true, value_parser = secret)]
    token: Option<String>,
}

fn secret(text: &str) -> Result<String, String> {
    if text.len() < 4 { Err("it has fewer than 4 characters".to_owned()) } else { Ok(text.to_owned()) }
}

#[test]
fn flag_goes_before_environment_before_file_before_default() {
    let file = yaml("host: from-file\nretries: 3\nlabel: [role=edge, zone=a]\ninsecure: true\n");
    let path = file.path().to_str().unwrap();
    let args =
        load_with::<Args>(strings(&["p", "--config", path, "--host", "from-flag"]), &|name| match name {
            "FLEETKNOCK_HOST" => Some("from-environment".into()),
            "FLEETKNOCK_RETRIES" => Some("4".into()),
            "FLEETKNOCK_INSECURE" => Some("".into()),
            _ => None,
        })
        .unwrap();
    assert_eq!(args.host, "from-flag");
    assert_eq!(args.retries, 4);
    assert_eq!(args.label, ["role=edge", "zone=a"]);
    assert!(args.insecure);
    assert_eq!(args.firewall, Kind::Auto);
}

#[test]
fn a_flag_replaces_a_list_of_the_file_and_the_file_may_come_from_the_environment() {
    let file = yaml("host: h\nlabel: [role=edge]\nfirewall: nftables\n");
    let path = file.path().as_os_str().to_owned();
    let environment = |name: &str| (name == "FLEETKNOCK_CONFIG").then(|| path.clone());
    let args = load_with::<Args>(strings(&["p", "--label", "a=1", "--label", "b=2"]), &environment).unwrap();
    assert_eq!(args.label, ["a=1", "b=2"]);
    assert_eq!(args.firewall, Kind::Nftables);
    let args = load_with::<Args>(strings(&["p"]), &|name| match name {
        "FLEETKNOCK_LABEL" => Some("x=1,y=2".into()),
        other => environment(other),
    });
    assert_eq!(args.unwrap().label, ["x=1", "y=2"]);
}

#[test]
fn a_scalar_is_taken_as_it_is_written() {
    for written in ["1.10", "0x1f", "yes", "1_000", "'quoted: text'", "-dash"] {
        let file = yaml(&format!("host: {written}\n"));
        let args = from_file(&file).unwrap();
        assert_eq!(args.host, written.trim_matches('\''));
    }
}

#[test]
fn an_empty_file_gives_nothing() {
    let file = yaml("# nothing yet\n\n");
    let error = from_file(&file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "host is missing: give --host <NAME>, set FLEETKNOCK_HOST, or write 'host: ...' in the file of --config"
    );
    assert_eq!(error.exit_code(), 64);
}

#[test]
fn a_wrong_value_is_named_with_its_source_its_reason_and_the_remedy() {
    for (text, said) in [
        (
            "host: h\n\nfirewall: nftable\n",
            "firewall: 'nftable' is wrong (FILE:3): use one of auto, nftables; did you mean 'nftables'?",
        ),
        ("host: h\nretries: 300\n", "retries: '300' is wrong (FILE:2): 300 is not in 0..=255"),
        ("host: h\ninsecure: 'yes'\n", "insecure: 'yes' is wrong (FILE:2): write true or false"),
        ("host: [a, b]\n", "host: 'b' is wrong (FILE:1): it takes one value, not a list"),
        ("host: h\ntoken: abc\n", "token: '(hidden)' is wrong (FILE:2): it has fewer than 4 characters"),
        ("host: h\nretry: 3\n", "FILE:2: there is no setting 'retry'; did you mean 'retries'?"),
        ("host: h\nhost:\n", "FILE:2: duplicate mapping key: host"),
        ("host: h\nlabel:\n", "FILE:2: label has no value; give one or remove the line"),
        ("host: {name: h}\n", "FILE:1: host holds a map; give one value or a list of values"),
    ] {
        let file = yaml(text);
        let error = from_file(&file).unwrap_err();
        let shown = error.to_string().replace(&file.path().display().to_string(), "FILE");
        assert!(shown.starts_with(said), "{text:?}: {shown}");
        assert!(!shown.contains('\n'), "{shown}");
        assert_eq!(error.exit_code(), 64);
    }
    let environment = |name: &str| (name == "FLEETKNOCK_RETRIES").then(|| "many".into());
    let error = load_with::<Args>(strings(&["p", "--host=h"]), &environment).unwrap_err();
    assert_eq!(
        error.to_string(),
        "retries: 'many' is wrong (environment variable FLEETKNOCK_RETRIES): invalid digit found in string"
    );
}

#[test]
fn wrong_flags_are_named_too() {
    let none = |_: &str| None;
    let error = load_with::<Args>(strings(&["p", "--host=h", "--firewall=ipfw"]), &none).unwrap_err();
    assert_eq!(error.to_string(), "--firewall: 'ipfw' is wrong (flag): use one of auto, nftables");
    let error = load_with::<Args>(strings(&["p", "--host=h", "--fire=ipfw"]), &none).unwrap_err();
    assert!(error.to_string().starts_with("unexpected argument '--fire' found"), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    assert_eq!(error.exit_code(), 64);
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_refused() {
    let none = |_: &str| None;
    let error = load_with::<Args>(strings(&["p", "--config", "/nowhere/at.all"]), &none).unwrap_err();
    assert_eq!(error.exit_code(), 66);
    assert!(error.to_string().starts_with("cannot read /nowhere/at.all (--config): "), "{error}");
    for hostile in ["[a, b]", "host: [", "a: &a [*a, *a]\n", "host: h\n---\nhost: i\n", "\tx", "host: [[a]]"]
    {
        let error = from_file(&yaml(hostile)).unwrap_err();
        assert!(matches!(error, ConfigError::File { .. }), "{hostile:?}: {error:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let long = yaml(&format!("host: {}\n", "x".repeat(FILE_BYTES_MAX as usize)));
    assert!(from_file(&long).unwrap_err().to_string().ends_with("it is longer than 1048576 bytes"));
}

#[test]
fn help_and_version_are_no_errors_and_help_names_the_variables() {
    let none = |_: &str| None;
    for args in [&["p", "--help"][..], &["p", "--version"], &["p", "--firewall=auto", "--help"]] {
        let error = load_with::<Args>(strings(args), &none).unwrap_err();
        assert_eq!(error.exit_code(), 0);
        let ConfigError::Said { text } = error else { panic!("{error:?}") };
        assert!(text.contains("FLEETKNOCK_HOST") || text.contains("1.2.3"), "{text}");
    }
}

#[test]
fn flags_alone_look_at_no_variable_and_no_file() {
    #[derive(Debug, Parser)]
    #[command(version = "1.2.3")]
    struct Alone {
        /// Every process has this variable.
        #[arg(long, env = "PATH")]
        first: Option<String>,
        #[arg(long, required = true)]
        second: u8,
        #[arg(long)]
        config: Option<PathBuf>,
    }
    let read = flags::<Alone>(strings(&["p", "--second=2", "--config=/nowhere/at.all"])).unwrap();
    assert_eq!((read.first, read.second, read.config), (None, 2, Some("/nowhere/at.all".into())));
    for (wrong, reason) in [
        (&["p"][..], "--second <SECOND> is missing"),
        (&["p", "--second=many"], "--second: 'many' is wrong (flag): invalid digit found in string"),
        (&["p", "--third"], "unexpected argument '--third' found; see --help"),
    ] {
        let error = flags::<Alone>(strings(wrong)).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (reason, 64));
    }
    for (asked, part) in [("--help", "Every process has this variable"), ("--version", "1.2.3")] {
        let error = flags::<Alone>(strings(&["p", asked])).unwrap_err();
        assert_eq!(error.exit_code(), 0);
        let ConfigError::Said { text } = error else { panic!("{error:?}") };
        assert!(text.contains(part) && !text.contains(ENVIRONMENT_PREFIX), "{text}");
    }
}

#[test]
fn a_listen_address_needs_a_port() {
    assert_eq!(listen_address("[::1]:9600").unwrap().port(), 9600);
    for wrong in ["", "9600", "localhost:9600", "127.0.0.1", "127.0.0.1:65536"] {
        assert!(listen_address(wrong).unwrap_err().contains("127.0.0.1:9600"), "{wrong}");
    }
}

fn yaml(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn from_file(file: &NamedTempFile) -> Result<Args, ConfigError> {
    load_with(strings(&["p", "--config", file.path().to_str().unwrap()]), &|_| None)
}

fn strings(args: &[&str]) -> Vec<OsString> {
    args.iter().map(Into::into).collect()
}
