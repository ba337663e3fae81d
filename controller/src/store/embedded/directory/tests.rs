//! Who gets a directory.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_second_holder_is_refused_by_name_and_gets_it_afterwards() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    let held = Directory::hold(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);

    let refused = Directory::hold(&path).unwrap_err().to_string();
    assert!(refused.contains(&path.display().to_string()), "{refused}");
    assert!(refused.contains(&format!("process {}", process::id())), "{refused}");

    drop(held);
    Directory::hold(&path).unwrap();
}

#[test]
fn a_path_that_cannot_be_a_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = Directory::hold(&file.path().join("below")).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
}
