//! `temper devices`: the devices of this machine, and anything that they lack.

use kernels::{CudaFacts, DriverFacts, HeaderFacts};

use super::print;
use crate::failure::Result;
use crate::render::table;

pub(crate) fn run() -> Result<()> {
    print(&report(&kernels::cuda_facts(), kernels::n_threads()))
}

fn report(facts: &CudaFacts, threads: usize) -> String {
    let plural = if threads == 1 { "" } else { "s" };
    let mut text = format!("cpu     ready, {threads} thread{plural}\n");
    for (index, gpu) in facts.gpus.iter().enumerate() {
        text += &format!(
            "cuda:{index}  {}, {}, {}, compute capability {}\n",
            if facts.check(index).is_ok() { "ready" } else { "not usable" },
            gpu.name,
            table::bytes(gpu.memory),
            gpu.capability
        );
    }
    let problems = facts.problems();
    if facts.built {
        text += &parts(facts);
    }
    for problem in &problems {
        text += &format!("cuda    {problem}\n        hint: {}\n", problem.hint());
    }
    for warning in facts.warnings() {
        text += &format!("        warning: {warning}\n");
    }
    if problems.is_empty() {
        text += "to use a GPU: device = \"cuda:0\" in a recipe, or --device cuda:0; to test it: `temper selftest --device \
                 cuda:0`\n";
    }
    text
}

/// Versions of the driver, the compiler and the headers.
fn parts(facts: &CudaFacts) -> String {
    let driver = match &facts.driver {
        DriverFacts::Missing => "no driver".to_owned(),
        DriverFacts::Refused { .. } => "a driver that fails to start".to_owned(),
        DriverFacts::Works(version) => format!("driver for CUDA {version}"),
    };
    let nvrtc =
        facts.nvrtc.map_or_else(|| "no NVRTC".to_owned(), |version| format!("NVRTC {version}"));
    let headers = match &facts.headers {
        HeaderFacts::Found(folder) => format!("headers in {}", folder.display()),
        HeaderFacts::Missing { include, .. } => format!("some headers in {}", include.display()),
        HeaderFacts::NoToolkit => "no headers".to_owned(),
    };
    format!("cuda    {driver}, {nvrtc}, {headers}; built for CUDA {}\n", facts.bindings)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use kernels::{CudaFacts, DriverFacts, GpuFacts, HeaderFacts, Version};

    use super::report;

    fn two_gpus() -> CudaFacts {
        let gpu = |name: &str, memory: u64, capability| GpuFacts {
            name: name.into(),
            memory: memory << 20,
            capability,
        };
        CudaFacts {
            built: true,
            bindings: Version::new(13, 4),
            driver: DriverFacts::Works(Version::new(12, 8)),
            gpus: vec![
                gpu("NVIDIA H100 80GB HBM3", 81_079, Version::new(9, 0)),
                gpu("Quadro RTX 4000", 7_982, Version::new(7, 5)),
            ],
            nvrtc: Some(Version::new(12, 9)),
            headers: HeaderFacts::Found("/usr/local/cuda/include".into()),
        }
    }

    #[test]
    fn a_build_without_cuda() {
        assert_snapshot!(report(&CudaFacts::not_built(), 2));
    }

    #[test]
    fn a_machine_without_a_driver() {
        let mut facts = two_gpus();
        facts.driver = DriverFacts::Missing;
        facts.gpus.clear();
        facts.nvrtc = None;
        facts.headers = HeaderFacts::NoToolkit;
        assert_snapshot!(report(&facts, 16));
    }

    #[test]
    fn a_machine_with_gpus() {
        assert_snapshot!(report(&two_gpus(), 1));
    }

    #[test]
    fn gpus_that_lack_the_compiler_of_kernels() {
        let mut facts = two_gpus();
        facts.nvrtc = None;
        facts.headers = HeaderFacts::Missing {
            include: "/env/lib/python3.12/site-packages/nvidia/cu13/include".into(),
            files: vec!["crt/mma.h".into(), "cuda/barrier".into()],
        };
        assert_snapshot!(report(&facts, 16));
    }
}
