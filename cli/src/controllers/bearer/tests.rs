//! Where a token may be read from, and that no error repeats it.

use std::fs::{self, Permissions};

use super::*;

const TOKEN: &str = "fkt_0123456789abcdef_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyputcub";

#[test]
fn a_file_goes_before_the_variable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut bearer = Bearer::read(Some(&path), Some("fkt_other".to_owned())).unwrap();
    let request = bearer.call(Request::new(())).unwrap();
    let shown = request.metadata().get("authorization").unwrap();
    assert_eq!(shown.to_str().unwrap(), format!("Bearer {TOKEN}"));
    assert!(shown.is_sensitive());
    assert!(!format!("{:?}", request.metadata()).contains("fkt_"));
}

#[test]
fn the_variable_is_enough_and_an_empty_one_is_none() {
    assert!(Bearer::read(None, Some(TOKEN.to_owned())).unwrap().is_given());
    assert!(!Bearer::read(None, Some(String::new())).unwrap().is_given());
    let mut none = Bearer::read(None, None).unwrap();
    assert!(none.call(Request::new(())).unwrap().metadata().is_empty());
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, TOKEN).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = Bearer::read(Some(&path), None).err().unwrap();
        assert_eq!(exit::code_of(&error), exit::NO_PERMISSION);
        let remedy = format!("chmod 600 {}", path.display());
        assert!(
            error.to_string().contains(&remedy) && error.to_string().contains(&format!("{mode:o}")),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_users_token_is_refused_and_not_repeated() {
    for (text, said) in [
        ("fke_0123456789abcdef_secretsecret", "a host's token"),
        ("secretsecret", "holds no token"),
        ("fkt_secret secret", "holds no token"),
        ("fkt_secret\u{7}", "holds no token"),
    ] {
        let error = Bearer::read(None, Some(text.to_owned())).err().unwrap();
        assert_eq!(exit::code_of(&error), exit::DATA);
        let line = format!("{error:#}");
        assert!(line.contains(said) && !line.contains("secret"), "{line}");
    }
}
