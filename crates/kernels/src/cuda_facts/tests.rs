//! Problems, hints and warnings from made-up facts.

use super::{CudaFacts, CudaProblem, DriverFacts, GpuFacts, HeaderFacts, Version};

fn h100() -> GpuFacts {
    GpuFacts { name: "NVIDIA H100".into(), memory: 80 << 30, capability: Version::new(9, 0) }
}

/// A machine without problems.
fn complete() -> CudaFacts {
    CudaFacts {
        built: true,
        bindings: Version::new(13, 4),
        driver: DriverFacts::Works(Version::new(13, 0)),
        gpus: vec![h100(), h100()],
        nvrtc: Some(Version::new(12, 9)),
        headers: HeaderFacts::Found("/usr/local/cuda/include".into()),
    }
}

fn refused(name: &str) -> DriverFacts {
    DriverFacts::Refused { name: name.into(), text: "some text".into() }
}

/// The problem, its text and its hint, for GPU 1.
fn verdict(change: impl FnOnce(&mut CudaFacts)) -> (CudaProblem, String, String) {
    let mut facts = complete();
    change(&mut facts);
    let problem = facts.check(1).expect_err("something is missing");
    assert!(
        facts.problems().contains(&problem) || matches!(problem, CudaProblem::NoSuchGpu { .. })
    );
    let (text, hint) = (problem.to_string(), problem.hint());
    (problem, text, hint)
}

#[test]
fn versions() {
    assert_eq!(Version::from_number(12080).to_string(), "12.8");
    assert_eq!(Version::from_number(13040), Version::new(13, 4));
    assert!(
        Version::new(12, 10) > Version::new(12, 9) && Version::new(13, 0) > Version::new(12, 9)
    );
}

#[test]
fn a_complete_machine_can_be_used() {
    let facts = complete();
    assert_eq!((facts.check(0), facts.check(1)), (Ok(()), Ok(())));
    assert!(facts.problems().is_empty() && facts.warnings().is_empty());
}

#[test]
fn each_problem_has_a_text_and_a_hint() {
    let (problem, text, hint) = verdict(|facts| facts.built = false);
    assert_eq!(problem, CudaProblem::NotBuilt);
    assert_eq!(text, "this binary was built without CUDA");
    assert!(hint.contains("--features cuda"), "{hint}");

    let (_, text, hint) = verdict(|facts| facts.driver = DriverFacts::Missing);
    assert_eq!(text, "no NVIDIA driver: libcuda.so could not be opened");
    assert!(hint.contains("nvidia-smi") && hint.contains("LD_LIBRARY_PATH"), "{hint}");

    let (_, text, hint) = verdict(|facts| facts.driver = refused("CUDA_ERROR_NO_DEVICE"));
    assert_eq!(text, "the NVIDIA driver does not start: some text (CUDA_ERROR_NO_DEVICE)");
    assert!(hint.contains("CUDA_VISIBLE_DEVICES"), "{hint}");
    let (.., hint) = verdict(|facts| facts.driver = refused("CUDA_ERROR_STUB_LIBRARY"));
    assert!(hint.contains("stub"), "{hint}");
    let (.., hint) = verdict(|facts| facts.driver = refused("CUDA_ERROR_UNKNOWN"));
    assert!(hint.contains("restarted"), "{hint}");

    let (_, text, hint) = verdict(|facts| facts.driver = DriverFacts::Works(Version::new(12, 4)));
    assert_eq!(text, "the NVIDIA driver is too old: it supports CUDA 12.4, but 12.8 is required");
    assert!(hint.contains("CUDARC_CUDA_VERSION=12040"), "{hint}");

    let (problem, ..) = verdict(|facts| facts.gpus.clear());
    assert_eq!(problem, CudaProblem::NoGpu);
    let (_, text, hint) = verdict(|facts| facts.gpus.truncate(1));
    assert_eq!(text, "there is no GPU 1: the driver lists 1");
    assert!(hint.contains("temper devices"), "{hint}");

    let (_, text, hint) = verdict(|facts| facts.nvrtc = None);
    assert!(text.starts_with("NVRTC, which compiles the kernels, was not found"), "{text}");
    assert!(hint.starts_with("`pip install nvidia-cuda-nvrtc`"), "{hint}");
    assert!(hint.contains("LD_LIBRARY_PATH"), "{hint}");

    let (_, text, hint) = verdict(|facts| facts.headers = HeaderFacts::NoToolkit);
    assert!(text.contains("headers of the CUDA toolkit"), "{text}");
    let packages = "`pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl`";
    assert!(hint.starts_with(packages) && hint.contains("CUDA_PATH"), "{hint}");
    let (_, text, hint) = verdict(|facts| {
        let files = vec!["crt/mma.h".into(), "cuda/barrier".into()];
        facts.headers = HeaderFacts::Missing { include: "/cuda/include".into(), files };
    });
    assert!(text.ends_with("`/cuda/include` lacks crt/mma.h, cuda/barrier"), "{text}");
    assert!(hint.starts_with("`pip install nvidia-cuda-crt nvidia-cuda-cccl`"), "{hint}");
}

#[test]
fn all_problems_are_listed_at_once() {
    let mut facts = complete();
    facts.driver = DriverFacts::Missing;
    facts.gpus.clear();
    facts.nvrtc = None;
    facts.headers = HeaderFacts::NoToolkit;
    let problems = [CudaProblem::NoDriver, CudaProblem::NoNvrtc, CudaProblem::NoHeaders];
    assert_eq!(facts.problems(), problems);
    assert_eq!(CudaFacts::not_built().problems(), [CudaProblem::NotBuilt]);
}

#[test]
fn a_binary_for_an_older_cuda_accepts_an_older_driver() {
    let mut facts = complete();
    facts.bindings = Version::new(12, 4);
    facts.driver = DriverFacts::Works(Version::new(12, 4));
    facts.nvrtc = Some(Version::new(12, 4));
    assert_eq!(facts.check(0), Ok(()));
    assert!(facts.warnings().is_empty());
    facts.driver = DriverFacts::Works(Version::new(11, 8));
    assert!(matches!(facts.check(0), Err(CudaProblem::DriverTooOld { .. })));
}

#[test]
fn possible_problems_are_warnings() {
    let mut facts = complete();
    facts.nvrtc = Some(Version::new(13, 1));
    assert_eq!(facts.check(0), Ok(()));
    assert!(facts.warnings()[0].contains("newer than the driver"), "{:?}", facts.warnings());
    facts.nvrtc = Some(Version::new(12, 4));
    assert!(facts.warnings()[0].contains("CUDARC_CUDA_VERSION=12040"), "{:?}", facts.warnings());
    facts.nvrtc = Some(Version::new(12, 9));
    facts.gpus[1].capability = Version::new(7, 5);
    assert!(facts.warnings()[0].starts_with("cuda:1 has compute capability 7.5"));
}
