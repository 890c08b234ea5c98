//! Building one crate compiles the same third-party crates as building the workspace.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;

use cargo_metadata::{MetadataCommand, Package};

use crate::support::root;

/// Third-party packages with their features, one per line, as cargo resolves them for `args`.
fn resolved(args: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}|{f}"])
        .args(args)
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().map(|line| line.replace(" (*)", "").replace(" (proc-macro)", ""));
    // Packages of the workspace are followed by their path.
    lines.filter(|line| line.contains('|') && !line.contains(" (/")).collect()
}

fn lacks_hack(package: &Package) -> bool {
    !package.dependencies.iter().any(|dependency| dependency.name == "workspace-hack")
}

/// A crate that resolves other features than the workspace compiles burn again, which takes minutes.
#[test]
fn one_crate_alone_resolves_the_features_of_the_workspace() {
    let workspace = resolved(&["--workspace", "--edges", "normal,build,dev"]);
    assert!(workspace.iter().any(|package| package.starts_with("burn v")), "{workspace:?}");
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let check = |package: &Package| {
        for edges in ["normal,build,dev", "normal,build"] {
            let alone = resolved(&["--package", &package.name, "--edges", edges]);
            let uses_burn = alone.iter().any(|package| package.starts_with("burn v"));
            if lacks_hack(package) {
                assert!(!uses_burn, "{} builds burn but not workspace-hack", package.name);
                return;
            }
            let differs: Vec<&String> = alone.difference(&workspace).collect();
            assert!(
                differs.is_empty(),
                "{} ({edges}) resolves other features than the workspace: {differs:?}; run \
                 tests/ci/workspace_hack.sh --update",
                package.name
            );
        }
    };
    thread::scope(|scope| {
        for packages in metadata.packages.chunks(metadata.packages.len().div_ceil(2)) {
            scope.spawn(move || packages.iter().for_each(check));
        }
    });
}
