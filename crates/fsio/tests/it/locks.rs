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

/// A directory from a stranger may have a link in place of the file.
#[test]
fn a_link_is_not_followed() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = |name: &str| root.path().join(name);
    std::fs::write(path("precious"), "text").expect("written");
    for target in ["precious", "none"] {
        let link = path("LOCK");
        std::os::unix::fs::symlink(path(target), &link).expect("a link");
        let error = Lock::acquire(&link).expect_err("refused");
        assert!(matches!(error, Error::NotAFile { .. }), "{error}");
        std::fs::remove_file(link).expect("removed");
    }
    assert_eq!(std::fs::read_to_string(path("precious")).expect("read"), "text");
    assert!(!path("none").exists());
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
    assert_eq!(Lock::holder(&path), None);
    let lock = Lock::acquire(&path).expect("free");
    assert_eq!(Lock::holder(&path).expect("held").pid, Some(std::process::id()));
    assert_eq!(child(), Some(11), "the child must see that the parent holds it");
    let error = Lock::acquire(&path).expect_err("held by this process").to_string();
    assert!(error.contains(&format!("locked by another process: `{}`", std::process::id())));
    drop(lock);
    assert_eq!(child(), Some(10), "free after the drop");
    Lock::acquire(&path).expect("a process that ended holds no lock");
}
