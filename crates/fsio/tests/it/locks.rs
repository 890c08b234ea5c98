//! Locks between processes.

use std::process::{Command, Stdio};

use fsio::{Error, Lock};

const CHILD: &str = "FSIO_TEST_LOCK_CHILD";

/// Runs in a child process only: tries to take the lock at the parent's path.
#[test]
fn lock_child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let code = match Lock::acquire(path) {
        Ok(_) => 10,
        Err(Error::Locked { pid, .. }) => {
            let parent = std::os::unix::process::parent_id();
            if pid == Some(parent) { 11 } else { 12 }
        }
        Err(_) => 13,
    };
    #[allow(clippy::exit)]
    std::process::exit(code);
}

#[test]
fn another_process_cannot_take_a_held_lock() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = root.path().join("LOCK");
    let child = || {
        Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "locks::lock_child"])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .status()
            .expect("child")
            .code()
    };
    let lock = Lock::acquire(&path).expect("free");
    assert_eq!(child(), Some(11), "the child must see that the parent holds it");
    let error = Lock::acquire(&path).expect_err("held by this process").to_string();
    assert!(error.contains(&format!("locked by another process: `{}`", std::process::id())));
    drop(lock);
    assert_eq!(child(), Some(10), "free after the drop");
    Lock::acquire(&path).expect("a process that ended holds no lock");
}
