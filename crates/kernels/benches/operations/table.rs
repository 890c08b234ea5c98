//! The measurements as a Markdown table.

use crate::machine::Machine;
use crate::measure::Pass;

pub(crate) fn print(workload: &str, passes: &[Pass], machine: &Machine) {
    println!("\n### {workload}\n");
    println!(
        "| operation | shape | pass | MFLOP | MB | roofline ms | by | median ms | fastest ms | attained | a step | share |"
    );
    println!("| --- | --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |");
    let step = |seconds: &dyn Fn(&Pass) -> f64| -> f64 {
        passes.iter().map(|pass| seconds(pass) * pass.per_step as f64).sum()
    };
    let roofline = |pass: &Pass| machine.roofline(pass.flop, pass.bytes);
    let (whole, ideal) = (step(&|pass| pass.median), step(&|pass| roofline(pass).0));
    for pass in passes {
        let (seconds, by_memory) = roofline(pass);
        println!(
            "| {} | {} | {} | {:.1} | {:.2} | {:.3} | {} | {:.3} | {:.3} | {:.2} | {} | {:.1} % |",
            pass.name,
            pass.shape,
            pass.direction,
            pass.flop / 1e6,
            pass.bytes / 1e6,
            seconds * 1e3,
            if by_memory { "memory" } else { "products" },
            pass.median * 1e3,
            pass.fastest * 1e3,
            seconds / pass.median,
            pass.per_step,
            100.0 * pass.median * pass.per_step as f64 / whole,
        );
    }
    println!(
        "\nA step's operations: {:.2} ms, their rooflines {:.2} ms, attained {:.2}",
        whole * 1e3,
        ideal * 1e3,
        ideal / whole
    );
}
