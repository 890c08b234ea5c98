//! `temper devices`: the devices of this machine, and anything that they lack.

use kernels::{AdapterKind, CudaFacts, DriverFacts, HeaderFacts, WgpuFacts};

use super::print;
use crate::failure::Result;
use crate::render::table;

pub(crate) fn run() -> Result<()> {
    let mut text = report(&kernels::cuda_facts(), kernels::n_threads());
    text += &wgpu_report(&kernels::wgpu_facts());
    print(&text)
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

/// wgpu's adapters, with what they have and lack.
fn wgpu_report(facts: &WgpuFacts) -> String {
    let mut text = String::new();
    for (index, adapter) in facts.adapters.iter().enumerate() {
        let outcome = facts.check(index);
        text += &format!(
            "wgpu:{index}  {}, {}, {}, {}, {}\n",
            if outcome.is_ok() { "ready" } else { "not usable" },
            adapter.name,
            adapter.kind,
            facts.api,
            adapter.driver
        );
        let subgroups = match adapter.subgroups {
            Some([least, most]) if least == most => format!("subgroups of {least}"),
            Some([least, most]) => format!("subgroups of {least} to {most}"),
            None => "no subgroups".to_owned(),
        };
        text += &format!(
            "        f32 without bf16 and tf32, {subgroups}, {} KiB of shared memory, tensors of up to {}\n",
            adapter.shared_memory >> 10,
            table::bytes(adapter.largest_tensor)
        );
        if let Err(problem) = outcome {
            text += &format!("        {problem}\n        hint: {}\n", problem.hint());
        } else if adapter.kind == AdapterKind::Software {
            text += "        warning: it computes on the processor, for tests; device = \"cpu\" is many times as fast\n";
        }
    }
    match facts.problem() {
        Some(problem) => text += &format!("wgpu    {problem}\n        hint: {}\n", problem.hint()),
        None => {
            text += "to use an adapter: device = \"wgpu:0\" in a recipe, or --device wgpu:0; to test it: `temper selftest \
                     --device wgpu:0`\n";
        }
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
    use kernels::{
        AdapterFacts, AdapterKind, CudaFacts, DriverFacts, GpuFacts, HeaderFacts, Version,
        WgpuFacts,
    };

    use super::{report, wgpu_report};

    fn adapter(name: &str, kind: AdapterKind) -> AdapterFacts {
        AdapterFacts {
            name: name.into(),
            kind,
            place: 0,
            driver: "radv Mesa 24.2.8".into(),
            shared_memory: 64 << 10,
            units: 1024,
            buffers: 1000,
            largest_tensor: (2 << 30) - 4,
            subgroups: Some([32, 64]),
        }
    }

    #[test]
    fn adapters() {
        let small = AdapterFacts {
            shared_memory: 16 << 10,
            subgroups: Some([32, 32]),
            ..adapter("a small GPU", AdapterKind::Integrated)
        };
        let software = AdapterFacts {
            driver: "llvmpipe Mesa 22.3.6 (LLVM 15.0.6)".into(),
            subgroups: None,
            ..adapter("llvmpipe (LLVM 15.0.6, 256 bits)", AdapterKind::Software)
        };
        let gpu = adapter("AMD Radeon RX 7900 XTX (RADV NAVI31)", AdapterKind::Discrete);
        let adapters = vec![gpu, small, software];
        assert_snapshot!(wgpu_report(&WgpuFacts { built: true, api: "Vulkan".into(), adapters }));
    }

    #[test]
    fn no_adapter_and_no_wgpu() {
        let none = WgpuFacts { built: true, ..WgpuFacts::not_built() };
        let text = wgpu_report(&none) + &wgpu_report(&WgpuFacts::not_built());
        assert_snapshot!(text);
    }

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
