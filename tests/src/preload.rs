//! Clocks that jump and disks that dawdle, for one process at a time.
//!
//! A small library (`preload.c`) stands between the node and the C library: it adds a number to the time of day and
//! makes every `fsync` take longer by another. Both numbers lie in a page that the harness shares with the process, so
//! they change while it runs and no other process sees them. (A time namespace does not shift the time of day, and
//! libfaketime stands in the way of every timed wait.)

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCE: &str = include_str!("preload.c");

/// One node's page.
pub struct FaultPage {
    file: std::fs::File,
    path: PathBuf,
    library: PathBuf,
}

impl FaultPage {
    /// Makes a page in a directory, and there the library for all pages of the directory.
    pub fn create(dir: &Path, name: &str) -> FaultPage {
        let library = dir.join("preload.so");
        if !library.exists() {
            let source = dir.join("preload.c");
            std::fs::write(&source, SOURCE).expect("the library's source");
            let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
            let output = Command::new(&compiler)
                .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
                .args([&library, &source])
                .output()
                .unwrap_or_else(|e| panic!("{compiler}: {e}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "the preloaded library does not compile:\n{said}");
        }
        let path = dir.join(format!("{name}.page"));
        std::fs::write(&path, [0u8; 16]).expect("a page");
        let file = std::fs::File::options().write(true).open(&path).expect("the page");
        FaultPage { file, path, library }
    }

    /// What the process's environment must say.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("AMPHORA_FAULT_PAGE".to_owned(), text(&self.path)),
        ]
    }

    /// The time of day is off by so much from now on.
    pub fn shift_clock(&self, seconds: i64) {
        self.write(0, seconds * 1000);
    }

    /// Every `fsync` takes so much longer from now on.
    pub fn slow_disk(&self, by: Duration) {
        self.write(8, by.as_micros() as i64);
    }

    fn write(&self, offset: u64, value: i64) {
        self.file.write_all_at(&value.to_ne_bytes(), offset).expect("the page takes a number");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What `date` believes; the shell's own `sync` is timed by the caller.
    fn run(page: &FaultPage, program: &str, argument: &str) -> String {
        let output = Command::new(program).arg(argument).envs(page.environment()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn one_process_believes_what_its_page_says() {
        let dir = tempfile::tempdir().unwrap();
        let (page, other) = (FaultPage::create(dir.path(), "a"), FaultPage::create(dir.path(), "b"));
        let date = |page: &FaultPage| run(page, "date", "+%s").parse::<i64>().unwrap();
        page.shift_clock(-60);
        assert!((date(&other) - date(&page) - 60).abs() <= 2);
        page.shift_clock(60);
        assert!((date(&page) - date(&other) - 60).abs() <= 2);
        page.shift_clock(0);
        page.slow_disk(Duration::from_millis(400));
        let file = dir.path().join("b.page");
        let synced = |page: &FaultPage| {
            let start = std::time::Instant::now();
            run(page, "sync", file.to_str().unwrap());
            start.elapsed()
        };
        assert!(synced(&page) >= Duration::from_millis(400));
    }
}
