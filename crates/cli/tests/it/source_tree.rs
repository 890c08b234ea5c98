//! Rules about the source text that are not lints.

use std::path::{Path, PathBuf};

use crate::support::root;

/// Hard limit of a file's lines.
const MOST_LINES: usize = 600;

/// Files outside a family's own that may name it: the one match of each crate that has one, and the recipe's section.
const NAME_FAMILIES: &[&str] = &[
    "crates/arch/src/lib.rs",
    "crates/arch/src/family.rs",
    "crates/arch/src/family_list.rs",
    "crates/gguf/src/hugging_face/architecture.rs",
    "crates/arch/src/model_config.rs",
    "crates/model/src/lib.rs",
    "crates/model/src/backbone.rs",
    "crates/recipe/src/lib.rs",
    "crates/recipe/src/dense_models.rs",
    "crates/recipe/src/expert_models.rs",
    "crates/recipe/src/model.rs",
];

/// Every Rust file under `crates/*/src` and `tools/*/src`, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    for parent in ["crates", "tools"] {
        let crates = std::fs::read_dir(root.join(parent)).expect("a directory of crates");
        for entry in crates.flatten() {
            collect(&entry.path().join("src"), &mut files);
        }
    }
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let name = path.strip_prefix(&root).expect("under the root").display().to_string();
            (name, text)
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let files = sources();
    assert!(files.len() > 100, "the tree was not found");
    for (name, text) in files {
        assert!(text.starts_with("//! "), "{name} does not open with `//!`");
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{name} has {lines} lines");
    }
}

#[test]
fn unsafe_stays_in_kernels_and_fsio() {
    let allowed = |name: &str| {
        ["kernels-cpu", "kernels-gpu", "kernels", "fsio"]
            .iter()
            .any(|own| name.starts_with(&format!("crates/{own}/")))
    };
    for (name, text) in sources() {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found =
            code.clone().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
        assert!(allowed(&name) || !found, "{name} has unsafe code");
    }
}

/// `kernels` selects the kernels of a call, from its tensors and the setting; `kernels-cpu` computes.
#[test]
fn kernels_are_selected_in_one_place() {
    for (name, text) in sources() {
        let reads_setting = text.contains("\"TEMPER_KERNELS\"");
        assert!(
            !reads_setting || name == "crates/kernels/src/dispatch.rs",
            "{name} reads the setting"
        );
        if name.starts_with("crates/kernels-cpu/") {
            assert!(!text.contains("std::env"), "{name} reads a setting");
        }
    }
}

#[test]
fn a_family_is_named_in_its_own_files() {
    for (name, text) in sources() {
        let own = name.starts_with("crates/arch/src/family/") || name.contains("/gpt2");
        if own || NAME_FAMILIES.contains(&name.as_str()) || name.starts_with("crates/testkit/") {
            continue;
        }
        // Types, not words in messages; and a way of stretching positions is called after the model that brought it.
        let is_type = |line: &str, family: &str| {
            line.match_indices(family).any(|(at, _)| {
                let rest = &line[at + family.len()..];
                // Classes of tokenizers are named after models, too.
                let is_tokenizer = rest.starts_with("Tokenizer");
                let next = rest.chars().next();
                !is_tokenizer && next.is_some_and(|c| c.is_ascii_alphabetic() || "(:{".contains(c))
            })
        };
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let families = [
            "Llama", "Gpt2", "Mistral", "Qwen", "Gemma", "Phi3", "Olmo", "SmolLm", "Granite",
            "Mixtral",
        ];
        let found = code.find(|line| families.iter().any(|family| is_type(line, family)));
        assert!(found.is_none(), "{name} names a family: {}", found.unwrap_or_default());
    }
}

#[test]
fn only_train_handles_signals_and_only_cli_exits() {
    for (name, text) in sources() {
        if !name.starts_with("crates/train/") {
            assert!(!text.contains("signal_hook"), "{name} handles signals");
        }
        if !name.starts_with("crates/cli/") && !name.starts_with("crates/train/src/signals") {
            assert!(!text.contains("process::exit"), "{name} ends the process");
        }
    }
}

#[test]
fn only_fsio_starts_programs() {
    let mut n_places = 0;
    for (name, text) in sources() {
        let starts = text.contains("process::Command") || text.contains("Command::new(");
        n_places += usize::from(starts);
        // Development tools and the commands of the argument parser are no programs of a recipe.
        let allowed = name == "crates/fsio/src/program.rs" || name.starts_with("tools/");
        assert!(allowed || !starts, "{name} starts programs");
    }
    assert!(n_places > 0, "the place was not found");
}

#[test]
fn only_hub_connects_and_only_get_calls_it() {
    // `serve` listens. It has no word with which a connection is opened.
    let listens = |name: &str, line: &str| {
        let opens = ["TcpStream", "TcpSocket", "UdpSocket", "connect(", "client::"];
        name == "crates/serve/src/server.rs" && !opens.iter().any(|word| line.contains(word))
    };
    let callers = [
        "crates/cli/src/commands/get.rs",
        "crates/cli/src/render/download.rs",
        "crates/cli/src/failure.rs",
    ];
    let mut n_callers = 0;
    for (name, text) in sources() {
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let is_hub = name.starts_with("crates/hub/");
        let opens = |line: &&str| {
            ["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs", "ureq::"]
                .iter()
                .any(|word| line.contains(word))
        };
        let found = code.clone().find(|line| opens(line) && !listens(&name, line));
        assert!(
            is_hub || found.is_none(),
            "{name} opens a connection: {}",
            found.unwrap_or_default()
        );
        let calls = code.any(|line| line.contains("hub::"));
        assert!(!calls || is_hub || callers.contains(&name.as_str()), "{name} calls hub");
        n_callers += usize::from(calls && !is_hub);
    }
    assert_eq!(n_callers, callers.len());
}

/// burn's default device is a GPU as soon as the feature `cuda` is compiled in, whether there is one or not.
#[test]
fn every_device_is_named() {
    for (name, text) in sources() {
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let unnamed =
            |line: &&str| line.contains("Device::default") || line.contains("&Default::default()");
        let found = code.find(unnamed);
        assert!(found.is_none(), "{name} lets burn choose a device: {}", found.unwrap_or_default());
    }
}

/// An operation that a backend is not registered for panics at its first call there.
#[test]
fn every_backend_extension_names_the_gpu_backends() {
    let mut n_extensions = 0;
    for (name, text) in sources() {
        let code: Vec<&str> =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for extension in code.join(" ").split("#[backend_extension(").skip(1) {
            let backends = extension.split(")]").next().unwrap_or_default();
            // Operations of the directory `gpu` are called on GPUs only.
            let needed = ["Flex", "Autodiff", "Cube", "Fusion"];
            let of_gpu = name.starts_with("crates/kernels/src/gpu/");
            for backend in needed.into_iter().skip(usize::from(of_gpu)) {
                assert!(
                    backends.split([',', ':', ' ']).any(|word| word == backend),
                    "{name}: a `backend_extension` lacks {backend}: {backends}"
                );
            }
            n_extensions += 1;
        }
    }
    assert!(n_extensions >= 2, "found {n_extensions} uses of `backend_extension`");
}

/// On a GPU each scalar that is read waits for the device: values are stacked and read in one transfer.
#[test]
fn gradients_are_not_read_one_scalar_at_a_time() {
    let files = sources();
    let hot = |name: &str| {
        name.starts_with("crates/kernels/src/") || name == "crates/train/src/gradients.rs"
    };
    assert!(files.iter().any(|(name, _)| name == "crates/train/src/gradients.rs"));
    for (name, text) in files.iter().filter(|(name, _)| hot(name)) {
        assert!(!text.contains("into_scalar"), "{name} reads a single scalar from the device");
    }
}
