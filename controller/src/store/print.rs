//! How what a store holds is printed: with the values, unless they are secret.

use std::fmt;

use bytes::Bytes;

use super::{Change, Entry, mirror::Kept};
use crate::seal;

struct Shown<'a>(&'a str, &'a Bytes);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, value) = self;
        if seal::is_secret(key) { write!(f, "({} secret bytes)", value.len()) } else { value.fmt(f) }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, revision } = self;
        let mut entry = f.debug_struct("Entry");
        entry.field("key", key).field("value", &Shown(key, value)).field("revision", revision).finish()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("bytes", &self.value.len()).field("revision", &self.revision).finish()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete { key } => f.debug_struct("Delete").field("key", key).finish(),
            Self::Put { key, value } => {
                f.debug_struct("Put").field("key", key).field("value", &Shown(key, value)).finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_values_are_not_printed() {
        let value = Bytes::from_static(b"tcp/7412");
        for (key, printed) in [("doors/a", false), ("hosts/a", true)] {
            let entry = Entry { key: key.to_owned(), value: value.clone(), revision: 1 };
            let change = Change::Put { key: key.to_owned(), value: value.clone() };
            for text in [format!("{entry:?}"), format!("{change:?}"), format!("{change:#?}")] {
                assert_eq!(text.contains("7412"), printed, "{text}");
                assert!(text.contains(key), "{text}");
            }
        }
    }
}
