//! Parts of the CUDA toolkit that kernels are compiled with, and the Python packages that bring them.
//!
//! NVIDIA's packages for CUDA 13 share one directory, `nvidia/cu13` in Python's packages, which has the layout that
//! cubecl expects of a toolkit. Those for CUDA 12 have a directory each and cannot be used this way.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The package that brings NVRTC.
pub(super) const NVRTC_PACKAGE: &str = "nvidia-cuda-nvrtc";

/// A header that kernels include.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Paths under `include`, one of which must exist.
    pub(crate) paths: &'static [&'static str],
    /// The Python package that brings it.
    package: &'static str,
}

/// The headers of kernels; the last one moved to another directory in CUDA 13.
pub(crate) const HEADERS: [Header; 4] = [
    Header { paths: &["cuda_fp16.h"], package: "nvidia-cuda-runtime" },
    Header { paths: &["mma.h"], package: "nvidia-cuda-runtime" },
    Header { paths: &["crt/mma.h"], package: "nvidia-cuda-crt" },
    Header { paths: &["cuda/barrier", "cccl/cuda/barrier"], package: "nvidia-cuda-cccl" },
];

impl Header {
    /// Its path in a message.
    pub(crate) fn name(&self) -> &'static str {
        self.paths.first().copied().unwrap_or_default()
    }
}

/// The packages that bring the headers of these names, each once; all headers' packages for no names.
pub(super) fn packages(names: &[String]) -> String {
    let mut packages: Vec<&str> = HEADERS
        .iter()
        .filter(|header| names.is_empty() || names.iter().any(|name| name == header.name()))
        .map(|header| header.package)
        .collect();
    packages.dedup();
    packages.join(" ")
}

/// A directory `nvidia/cuN` in the packages of a Python environment.
///
/// Searched in this order: the activated environment (`VIRTUAL_ENV`, `CONDA_PREFIX`), `.venv` in the working directory,
/// the user's packages (`~/.local`). `list` returns the names in a directory, none if there is no such directory.
#[cfg_attr(not(any(test, feature = "cuda")), expect(dead_code, reason = "for CUDA only"))]
pub(crate) fn in_python_packages(
    variable: impl Fn(&str) -> Option<OsString>,
    list: impl Fn(&Path) -> Vec<String>,
) -> Option<PathBuf> {
    let environments = [
        variable("VIRTUAL_ENV").map(PathBuf::from),
        variable("CONDA_PREFIX").map(PathBuf::from),
        Some(PathBuf::from(".venv")),
        variable("HOME").map(|home| Path::new(&home).join(".local")),
    ];
    environments.into_iter().flatten().find_map(|environment| {
        let lib = environment.join("lib");
        newest(&lib, "python3.", &list).find_map(|python| {
            let packages = python.join("site-packages/nvidia");
            newest(&packages, "cu", &list).find(|toolkit| !list(toolkit).is_empty())
        })
    })
}

/// The directories in `parent` named `prefix` and a number, the largest number first.
fn newest(
    parent: &Path,
    prefix: &str,
    list: &impl Fn(&Path) -> Vec<String>,
) -> impl Iterator<Item = PathBuf> {
    let mut numbers: Vec<u32> = list(parent)
        .iter()
        .filter_map(|name| name.strip_prefix(prefix).and_then(|number| number.parse().ok()))
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.into_iter().map(move |number| parent.join(format!("{prefix}{number}")))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use super::{in_python_packages, packages};

    /// Searches among these directories.
    fn search(variables: &[(&str, &str)], directories: &[&str]) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        };
        let list = |parent: &Path| {
            directories
                .iter()
                .filter_map(|directory| Path::new(directory).strip_prefix(parent).ok())
                .filter_map(|rest| rest.iter().next())
                .map(|name| name.to_string_lossy().into_owned())
                .collect()
        };
        in_python_packages(variable, list)
    }

    #[test]
    fn packages_of_an_environment_are_found() {
        let packages = "lib/python3.11/site-packages/nvidia/cu13/include";
        let [active, local, user] =
            ["/env", ".venv", "/home/ada/.local"].map(|place| format!("{place}/{packages}"));
        let (home, env) = (("HOME", "/home/ada"), ("VIRTUAL_ENV", "/env"));
        let all = [active.as_str(), &local, &user];
        let found = |place: &str| Some(PathBuf::from(place.trim_end_matches("/include")));
        assert_eq!(search(&[home, env], &all), found(&active));
        assert_eq!(search(&[home, ("CONDA_PREFIX", "/env")], &all), found(&active));
        assert_eq!(search(&[home], &all), found(&local));
        assert_eq!(search(&[home, env], &all[2..]), found(&user));
        assert_eq!(search(&[home, env], &[]), None);
    }

    #[test]
    fn the_newest_python_and_toolkit_are_taken() {
        let at = |python: &str, toolkit: &str| {
            format!("/env/lib/python3.{python}/site-packages/nvidia/{toolkit}/lib")
        };
        let directories = [
            at("9", "cu13"),
            at("12", "cu13"),
            at("12", "cu14"),
            at("12", "cublas"),
            at("13", "nccl"),
        ];
        let directories: Vec<&str> = directories.iter().map(String::as_str).collect();
        let expected = "/env/lib/python3.12/site-packages/nvidia/cu14";
        assert_eq!(search(&[("VIRTUAL_ENV", "/env")], &directories), Some(expected.into()));
    }

    #[test]
    fn packages_of_missing_headers() {
        assert_eq!(packages(&[]), "nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl");
        assert_eq!(
            packages(&["mma.h".into(), "crt/mma.h".into()]),
            "nvidia-cuda-runtime nvidia-cuda-crt"
        );
        assert_eq!(packages(&["cuda/barrier".into()]), "nvidia-cuda-cccl");
    }
}
