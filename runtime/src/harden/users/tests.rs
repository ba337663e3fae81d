//! Both files as they are found, and with lines that are not theirs.

use super::*;

const TEXT: &str = "root:x:0:0:root:/root:/bin/bash\n+::::::\nbroken:x:one:2\nshort:x:7\n:x:5:5::/:\n\
                    agent:x:998:997::/nonexistent:/usr/sbin/nologin";

#[test]
fn a_user_is_found_by_its_name() {
    let agent = User { name: "agent".to_owned(), uid: 998, gid: 997 };
    assert_eq!(named(TEXT, "agent"), Some(agent));
    assert_eq!(named(TEXT, "root").map(|user| user.uid), Some(0));
    for name in ["", "+", "broken", "short", "x", "agen", "nobody"] {
        assert_eq!(named(TEXT, name), None, "{name}");
    }
}

#[test]
fn a_user_has_its_own_group_and_those_that_name_it() {
    let agent = User { name: "agent".to_owned(), uid: 998, gid: 997 };
    let text = "root:x:0:\nagent:x:997:agent\nfleetknock:x:996:other,agent\nbroken:x:a:agent\nagents:x:5:agents\nkeys:x:6";
    let numbers: Vec<_> = groups(text, &agent).into_iter().map(Gid::as_raw).collect();
    assert_eq!(numbers, [997, 996]);
}

#[test]
fn a_file_that_is_not_there_names_nobody() {
    assert_eq!(read("/proc/self/no-such-file").unwrap(), "");
    assert!(read("/").is_err());
}

#[test]
fn this_system_is_read_as_the_c_library_reads_it() {
    let root = named(&read(PASSWD).unwrap(), "root").unwrap();
    let groups = groups(&read(GROUP).unwrap(), &root);
    assert_eq!((root.uid, root.gid, groups[0].as_raw()), (0, 0, 0));
}
