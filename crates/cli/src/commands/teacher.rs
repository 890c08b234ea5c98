//! Describes the teacher of a distillation for `temper plan`.

use plan::{DistillPlan, Start};

use crate::render::table;

/// The teacher of a distillation and the divergence from it.
pub(super) fn teacher_note(distill: &DistillPlan) -> String {
    let section = &distill.section;
    let teacher = match &distill.teacher {
        Start::Stage(name) => format!("[{name}]"),
        Start::Directory(dir) => dir.display().to_string(),
        Start::Fresh => "new weights".to_owned(),
    };
    let divergence = if section.beta <= 0.0 {
        "KL(teacher ‖ student)".to_owned()
    } else if section.beta >= 1.0 {
        "KL(student ‖ teacher)".to_owned()
    } else {
        format!("the generalized Jensen–Shannon divergence with β = {}", section.beta)
    };
    let own = match section.on_policy {
        share if share > 0.0 => {
            format!("; about {:.0} % of the steps are on the student's own answers", 100.0 * share)
        }
        _ => String::new(),
    };
    let saved = section.top_k.map_or_else(String::new, |k| {
        let tokens = if k == 1 { "token".to_owned() } else { format!("{k} tokens") };
        format!(
            " over its most probable {tokens} and all others as one; saved once, before training: at most {} ({} targets)",
            table::bytes(distill.saved_bytes()),
            table::thousands(distill.n_saved_targets),
        )
    });
    format!(
        "teacher: {teacher}, {} frozen parameters; the loss is {divergence} at temperature {}{saved}{own}",
        table::millions(distill.teacher_config.n_parameters()),
        section.temperature
    )
}
