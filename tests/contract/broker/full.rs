//! Disks that are full: refused is said, accepted is kept, and space heals.

use super::sites::{Site, Sqlite};
use super::*;
use crate::harness::child::Child;
use std::process::Command;

/// Messages of this size fill a small disk soon.
const BYTES: &str = "20000";

pub async fn a_limit_of_file_size_refuses_and_loses_nothing(site: Sqlite) {
    // In blocks of 512 bytes; the signal that the kernel sends is ignored, as a worker does.
    let limited = ["/bin/sh", "-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\""];
    let child = Child::start_in(&limited, "publish", &[&site.address(), "p", BYTES]);
    let said = child.finish();
    check(&site, said).await;
}

pub async fn a_full_disk_refuses_and_loses_nothing(site: Sqlite) {
    // Mounting a disk takes root; without it the limit above is all that can be shown.
    let folder = site.folder().display().to_string();
    if !nix::unistd::geteuid().is_root() {
        println!("without root only a limit of file size is tested, no full disk");
        return a_limit_of_file_size_refuses_and_loses_nothing(site).await;
    }
    let disk = Mounted::new(folder);
    let said = Child::start("publish", &[&site.address(), "p", BYTES]).finish();
    disk.grow();
    check(&site, said).await;
}

/// A small disk in memory, unmounted when it is dropped.
struct Mounted(String);

impl Mounted {
    fn new(folder: String) -> Mounted {
        run(&["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", &folder]);
        Mounted(folder)
    }

    fn grow(&self) {
        run(&["mount", "-o", "remount,size=30m", &self.0]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(&["umount", "-l", &self.0]);
    }
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// All that was accepted is there, whole, once, and it goes on.
async fn check(site: &Sqlite, mut said: Vec<String>) {
    let refused = said.pop().unwrap();
    assert!(refused.starts_with("refused: "), "{refused}");
    assert!(refused.contains("full") || refused.contains("disk I/O"), "{refused}");
    assert!(said.len() > 10, "{said:?}");
    site.client().producer().publish(vec![posting("after")]).await.unwrap();
    let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
    let mut taken = consumer.take(MANY).await.unwrap();
    assert_eq!(id(&taken.pop().unwrap()), "after");
    let found: Vec<&str> = taken.iter().map(|one| text(one).split_once(' ').unwrap().0).collect();
    assert!(taken.iter().all(|one| one.payload.size() > 20_000), "whole");
    assert_eq!(found, said, "what was refused is not there, what was accepted is");
}
