//! The whole suite runs on both databases: one test starts a PostgreSQL and runs this program again
//! on it.

use std::env;
use std::process::Command;

use crate::database::{CLUSTER, Cluster};

#[test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
fn the_whole_suite_passes_on_postgresql() {
    let cluster = Cluster::start();
    let output = Command::new(env::current_exe().unwrap())
        .env(CLUSTER, cluster.directory.path())
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(!out.contains(" 0 passed"), "no test was run: {out}");
}
