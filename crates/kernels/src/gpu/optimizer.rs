//! Optimizer arithmetic on many flat tensors in few launches. Lists of tensors are no arguments of burn's extensions, so the
//! operation is registered with fusion by hand, as the extensions' own code does it.

use burn::backend::fusion::FusionRuntime;
use burn::backend::fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr,
};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, CubeBackend};
use kernels_gpu::optimizer::{self, AdamwFactors, AdamwTensors};

use crate::adamw_step::{AdamwParameter, AdamwStep, Moments, coefficients};

/// [`crate::adamw_steps`]: parameters with the same factors share launches.
pub(crate) fn adamw_steps(parameters: Vec<AdamwParameter>) -> Vec<(Tensor<1>, Moments)> {
    let mut groups: Vec<(AdamwFactors, Vec<usize>, Vec<AdamwParameter>)> = Vec::new();
    let n = parameters.len();
    for (idx, parameter) in parameters.into_iter().enumerate() {
        let of = factors(&parameter.step);
        match groups.iter_mut().find(|(factors, ..)| *factors == of) {
            Some((_, places, members)) => {
                places.push(idx);
                members.push(parameter);
            }
            None => groups.push((of, vec![idx], vec![parameter])),
        }
    }
    let mut updated: Vec<Option<(Tensor<1>, Moments)>> = vec![None; n];
    for (factors, places, members) in groups {
        for (idx, result) in places.into_iter().zip(adamw(members, factors)) {
            if let Some(place) = updated.get_mut(idx) {
                *place = Some(result);
            }
        }
    }
    updated.into_iter().flatten().collect()
}

fn factors(step: &AdamwStep) -> AdamwFactors {
    let c = coefficients(step);
    AdamwFactors {
        grad_scale: c.grad_scale,
        beta1: [c.beta1, c.one_minus_beta1],
        beta2: [c.beta2, c.one_minus_beta2],
        keep: c.keep,
        step_size: c.step_size,
        inverse_root_correction2: c.inverse_root_correction2,
        eps: c.eps,
    }
}

fn adamw(parameters: Vec<AdamwParameter>, factors: AdamwFactors) -> Vec<(Tensor<1>, Moments)> {
    let outputs = parameters.iter().flat_map(|x| [x.weight.dims()[0]; 3]).collect();
    let inputs = parameters.into_iter().flat_map(|x| [x.weight, x.grad, x.moments.m, x.moments.v]);
    let update = move |tensors: Vec<CubeTensor>| -> Vec<CubeTensor> {
        let mut tensors = tensors.into_iter();
        let mut parameters = Vec::new();
        while let (Some(weight), Some(grad), Some(m), Some(v)) =
            (tensors.next(), tensors.next(), tensors.next(), tensors.next())
        {
            parameters.push(AdamwTensors { weight, grad, m, v });
        }
        optimizer::adamw(parameters, factors).into_iter().flatten().collect()
    };
    let mut results = registered("adamw", inputs.collect(), outputs, update).into_iter();
    let mut updated = Vec::new();
    while let (Some(weight), Some(m), Some(v)) = (results.next(), results.next(), results.next()) {
        updated.push((weight, Moments { m, v }));
    }
    updated
}

/// [`crate::sums_of_squares`], read in one transfer.
pub(crate) fn sums_of_squares(tensors: Vec<Tensor<1>>) -> Vec<f64> {
    let n = tensors.len();
    let sums = |tensors: Vec<CubeTensor>| match tensors.first().cloned() {
        Some(like) => vec![optimizer::sums_of_squares(tensors, &like)],
        None => Vec::new(),
    };
    let sums = registered("sums_of_squares", tensors, vec![n], sums).pop();
    sums.map_or_else(Vec::new, |x| x.into_data().iter::<f32>().map(f64::from).collect())
}

/// Defers `run` of tensors on a GPU until its results are needed. Results are flat f32, `outputs` values each.
fn registered(
    name: &str,
    inputs: Vec<Tensor<1>>,
    outputs: Vec<usize>,
    run: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
) -> Vec<Tensor<1>> {
    let mut client = None;
    let mut read: Vec<TensorIr> = Vec::with_capacity(inputs.len());
    for x in inputs {
        match x.try_into_primitive::<Cube>() {
            Ok(x) => {
                client.get_or_insert_with(|| x.client.clone());
                read.push(x.into_ir());
            }
            Err(error) => unreachable!("a tensor of a GPU: {error:?}"),
        }
    }
    let Some(client) = client else { return Vec::new() };
    let new = |n| TensorIr::uninit(client.create_empty_handle(), Shape::from([n]), DType::F32);
    let written: Vec<TensorIr> = outputs.into_iter().map(new).collect();
    let description = CustomOpIr {
        id: name.into(),
        inputs: read.clone(),
        outputs: written.clone(),
        scalars: Vec::new(),
    };
    type Handles = HandleContainer<<FusionCubeRuntime as FusionRuntime>::FusionHandle>;
    let operation = OperationFn(move |handles: &mut Handles| {
        let tensors = read.iter().map(|x| handles.get_float_tensor::<CubeBackend>(x)).collect();
        for (x, result) in written.iter().zip(run(tensors)) {
            handles.register_float_tensor::<CubeBackend>(&x.id, result);
        }
        Ok(())
    });
    let results = client.register(StreamId::current(), OperationIr::Custom(description), operation);
    results.into_iter().map(Tensor::from_primitive::<Cube>).collect()
}
