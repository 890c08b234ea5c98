//! Task files that are part of the program: `recipes/tasks`.

/// Names and texts, sorted.
const BUILTIN: &[(&str, &str)] = &[
    ("arc_challenge", include_str!("../../../recipes/tasks/arc_challenge.toml")),
    ("arc_easy", include_str!("../../../recipes/tasks/arc_easy.toml")),
    ("boolq", include_str!("../../../recipes/tasks/boolq.toml")),
    ("gsm8k", include_str!("../../../recipes/tasks/gsm8k.toml")),
    ("hellaswag", include_str!("../../../recipes/tasks/hellaswag.toml")),
    ("ifeval", include_str!("../../../recipes/tasks/ifeval.toml")),
    ("lambada_openai", include_str!("../../../recipes/tasks/lambada_openai.toml")),
    ("mmlu", include_str!("../../../recipes/tasks/mmlu.toml")),
    ("openbookqa", include_str!("../../../recipes/tasks/openbookqa.toml")),
    ("piqa", include_str!("../../../recipes/tasks/piqa.toml")),
    ("rewardbench", include_str!("../../../recipes/tasks/rewardbench.toml")),
    ("winogrande", include_str!("../../../recipes/tasks/winogrande.toml")),
];

/// Names of the built-in tasks, sorted.
pub fn builtin_names() -> Vec<&'static str> {
    BUILTIN.iter().map(|(name, _)| *name).collect()
}

/// Text of a built-in task file.
pub(crate) fn text_of(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The most similar name, if one is similar.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let names = BUILTIN.iter().map(|(known, _)| (strsim::jaro_winkler(name, known), *known));
    let best = names.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(similarity, _)| *similarity > 0.75).map(|(_, known)| known)
}
