//! Facts about adapters, read through wgpu, and burn's device of an adapter.
//!
//! Names of devices are the order of [`WgpuFacts::adapters`]; burn selects an adapter by its kind and its place among those.

use std::sync::OnceLock;

use burn::tensor::Device;
use burn_cubecl::cubecl::future::block_on;
use cubecl_wgpu::wgpu::{Adapter, Backend, DeviceType, Features, Instance, InstanceDescriptor};
use cubecl_wgpu::{AutoGraphicsApi, WgpuDevice, WgpuDeviceKind};

use crate::wgpu_facts::{AdapterFacts, AdapterKind, WgpuFacts};

/// The adapters, asked for once: Vulkan's loader crashes where instances come and go on several threads.
pub(super) fn facts() -> WgpuFacts {
    static FACTS: OnceLock<WgpuFacts> = OnceLock::new();
    FACTS.get_or_init(gather).clone()
}

/// burn's device of an adapter.
pub(super) fn open(adapter: &AdapterFacts) -> Device {
    Device::new(WgpuDevice::new(match adapter.kind {
        AdapterKind::Discrete => WgpuDeviceKind::DiscreteGpu(adapter.place),
        AdapterKind::Integrated => WgpuDeviceKind::IntegratedGpu(adapter.place),
        AdapterKind::Virtual => WgpuDeviceKind::VirtualGpu(adapter.place),
        AdapterKind::Other => WgpuDeviceKind::Other(adapter.place),
        AdapterKind::Software => WgpuDeviceKind::Cpu,
    }))
}

/// The adapters of the graphics API that burn selects: the first with a GPU, or else the first with any.
fn gather() -> WgpuFacts {
    let enabled = Instance::enabled_backend_features();
    let mut found: Option<WgpuFacts> = None;
    for api in AutoGraphicsApi::chain().into_iter().filter(|api| enabled.contains((*api).into())) {
        let adapters = adapters_of(api);
        let has_gpu = adapters.iter().any(|adapter| adapter.kind != AdapterKind::Software);
        if has_gpu || (found.is_none() && !adapters.is_empty()) {
            found = Some(WgpuFacts { built: true, api: format!("{api:?}"), adapters });
        }
        if has_gpu {
            break;
        }
    }
    found.unwrap_or(WgpuFacts { built: true, api: String::new(), adapters: Vec::new() })
}

fn adapters_of(api: Backend) -> Vec<AdapterFacts> {
    let instance = Instance::new(InstanceDescriptor {
        backends: api.into(),
        ..InstanceDescriptor::new_without_display_handle()
    });
    let mut counts = [0; 5];
    let mut adapters: Vec<AdapterFacts> = Vec::new();
    for adapter in block_on(instance.enumerate_adapters(api.into())) {
        let mut facts = facts_of(&adapter);
        if let Some(count) = counts.get_mut(facts.kind as usize) {
            facts.place = *count;
            *count += 1;
        }
        // burn has no index for software: the first is the only one.
        if facts.kind != AdapterKind::Software || facts.place == 0 {
            adapters.push(facts);
        }
    }
    adapters.sort_by_key(|adapter| adapter.kind);
    adapters
}

fn facts_of(adapter: &Adapter) -> AdapterFacts {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => AdapterKind::Discrete,
        DeviceType::IntegratedGpu => AdapterKind::Integrated,
        DeviceType::VirtualGpu => AdapterKind::Virtual,
        DeviceType::Cpu => AdapterKind::Software,
        DeviceType::Other => AdapterKind::Other,
    };
    // cubecl uses none of a software driver.
    let has_subgroups =
        adapter.features().contains(Features::SUBGROUP) && kind != AdapterKind::Software;
    AdapterFacts {
        name: info.name,
        kind,
        place: 0,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        shared_memory: u64::from(limits.max_compute_workgroup_storage_size),
        units: u64::from(limits.max_compute_invocations_per_workgroup),
        buffers: u64::from(limits.max_storage_buffers_per_shader_stage),
        largest_tensor: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        subgroups: has_subgroups.then_some([info.subgroup_min_size, info.subgroup_max_size]),
    }
}
