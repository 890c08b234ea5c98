//! Times of each operation on the shapes of two workloads, with the machine's roofline.
//!
//! `cargo bench --workspace --bench operations -- [pretrain7m] [lora135m] [decoding] [--threads N]`
//!
//! The roofline of an operation is the larger of two times: its multiplications and additions at the rate of large
//! products, and the bytes that it must read or write at the rate of memory for a working set of that size (Williams et
//! al. 2009). Both rates are measured first. Exponentials are not counted.

// Results go to stdout.
#![allow(clippy::print_stdout)]

mod cases;
mod machine;
mod measure;
mod table;

use machine::Machine;

fn main() {
    kernels::configure_allocator();
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Passed by cargo.
            "--bench" => {}
            "--threads" => {
                let n = arguments.next().and_then(|n| n.parse().ok()).expect("--threads N");
                kernels::set_threads(n).expect("a number of threads");
            }
            _ => wanted.push(argument),
        }
    }
    kernels::on_pool(|| {
        let machine = Machine::measured();
        machine.print();
        for (workload, cases) in cases::workloads() {
            if wanted.is_empty() || wanted.iter().any(|wanted| wanted == workload) {
                let passes = cases.into_iter().flat_map(measure::passes).collect::<Vec<_>>();
                table::print(workload, &passes, &machine);
            }
        }
    });
}
