//! A volume as the kubelet writes it: files are links through `..data` to a directory with the time in its name, and a
//! change is a new directory and one renamed link (AtomicWriter).

use std::{
    cell::Cell,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

pub(crate) struct Volume {
    path: PathBuf,
    changes: Cell<u32>,
}

impl Volume {
    pub(crate) fn new(path: &Path, file: &str, contents: &str) -> Self {
        fs::create_dir(path).unwrap();
        let volume = Self { path: path.to_owned(), changes: Cell::new(0) };
        volume.swap(file, contents);
        symlink(format!("..data/{file}"), path.join(file)).unwrap();
        volume
    }

    pub(crate) fn swap(&self, file: &str, contents: &str) {
        let number = self.changes.get() + 1;
        self.changes.set(number);
        let name = format!("..2026_11_23_06_00_00.{number}");
        fs::create_dir(self.path.join(&name)).unwrap();
        fs::write(self.path.join(&name).join(file), contents).unwrap();
        let before = fs::read_link(self.path.join("..data")).ok();
        symlink(&name, self.path.join("..data_tmp")).unwrap();
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).unwrap();
        if let Some(before) = before {
            fs::remove_dir_all(self.path.join(before)).unwrap();
        }
    }
}
