//! Users and groups as `/etc/passwd` and `/etc/group` have them (passwd(5), group(5)).
//!
//! The C library would ask the host's name service as well. Its plugins (nss(5)) are shared libraries for a C library of
//! their own, and take a statically linked program down: libnss_systemd does.

use std::{fs, io};

use nix::unistd::{Gid, Uid};

use super::User;

pub(super) const PASSWD: &str = "/etc/passwd";
pub(super) const GROUP: &str = "/etc/group";

/// The text of such a file; none where there is none, as in an image with nothing but a program.
pub(super) fn read(path: &str) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// The user of that name. Lines that are not whole are passed over.
pub(super) fn named(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next().filter(|found| !found.is_empty() && *found == name)?;
        let uid = fields.nth(1)?.parse().ok().map(Uid::from_raw)?;
        let gid = fields.next()?.parse().ok().map(Gid::from_raw)?;
        Some(User { name: found.to_owned(), uid: uid.as_raw(), gid: gid.as_raw() })
    })
}

/// The groups of a user: its own first, then those that name it as a member, each once.
pub(super) fn groups(group: &str, user: &User) -> Vec<Gid> {
    let mut found = vec![Gid::from_raw(user.gid)];
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let Some(gid) = fields.next().and_then(|gid| gid.parse().ok()).map(Gid::from_raw) else { continue };
        let is_member = fields.next().is_some_and(|members| members.split(',').any(|name| name == user.name));
        if is_member && !found.contains(&gid) {
            found.push(gid);
        }
    }
    found
}

#[cfg(test)]
mod tests;
