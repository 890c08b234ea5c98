//! A GGUF file is a MODEL: it is exported, sampled from, evaluated, and trained on, like the directory that it stands for.

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Place, tiny_recipe};

const TEXT: &str = "The quick brown fox jumps over the lazy dog, again and again.\n";

/// A directory with a trained model in runs/tiny/pretrain, and the same model as model.gguf.
fn exported() -> Place {
    exported_from(tiny_recipe("{ path = \"text.txt\" }", ""))
}

/// As [`exported`], of another recipe.
fn exported_from(recipe: String) -> Place {
    let place = Place::new();
    place.write("text.txt", TEXT.repeat(40)).write("tiny.toml", recipe);
    for args in [
        &["run", "tiny.toml"][..],
        &["export", "runs/tiny/pretrain", "--to", "model.gguf", "--gguf", "f32"],
    ] {
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    place
}

/// The tokens of a greedy continuation.
fn tokens(place: &Place, model: &str) -> Value {
    let outcome = place.temper(&[
        "generate",
        model,
        "--prompt",
        "The quick",
        "--greedy",
        "--max-new-tokens",
        "8",
    ]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let line: Value = serde_json::from_str(&outcome.stdout).expect("a line of JSON");
    line["tokens"].clone()
}

#[test]
fn a_file_is_a_model() {
    let place = exported();
    assert_eq!(tokens(&place, "model.gguf"), tokens(&place, "runs/tiny/pretrain"));
    assert!(place.path().join("Modelfile").is_file());

    // Back to a directory, with the same weights.
    let outcome = place.temper(&["export", "model.gguf", "--to", "back"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let weights = |dir: &str| std::fs::read(place.path().join(dir).join("model.safetensors"));
    let run = weights("runs/tiny/pretrain/model").expect("the run's weights");
    assert!(weights("back").expect("exported weights") == run);

    // A stage starts from the file, and an adapter's base is the file.
    let start = "[sft]\nstart = \"model.gguf\"\nlora = { rank = 2 }\n\
                 data = [{ path = \"chats.jsonl\" }]\nchat_template = \"plain\"\n\
                 sequence_length = 32\ntokens_per_step = 64\nmax_steps = 2\n\
                 optimizer = { lr = 1e-1 }\n";
    place.write("chats.jsonl", "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(8));
    place.write("more.toml", start);
    let outcome = place.temper(&["run", "more.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(tokens(&place, "runs/more/sft").is_array());
    let outcome =
        place.temper(&["export", "runs/more/sft", "--to", "q/merged.gguf", "--gguf", "q8_0"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(tokens(&place, "q/merged.gguf").is_array());

    // The adapter belongs to these weights only.
    let mut bytes = std::fs::read(place.path().join("model.gguf")).expect("the file");
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    place.write("model.gguf", bytes);
    assert_snapshot!(place.error(&["generate", "runs/more/sft", "--prompt", "x"]));
}

/// Weights that stay quantised in memory give the tokens and log-probabilities of the same weights in f32, which a directory has.
#[test]
fn quantised_weights_have_the_results_of_their_values() {
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "");
    // Rows of whole blocks.
    let recipe = recipe.replace("_size = 16", "_size = 64").replace("_size = 32", "_size = 64");
    let place = exported_from(recipe);
    for kind in ["q8_0", "q4_0"] {
        let (file, dir) = (format!("{kind}/model.gguf"), format!("back-{kind}"));
        for args in [
            ["export", "runs/tiny/pretrain", "--to", &file, "--gguf", kind],
            ["export", &file, "--to", &dir, "--dtype", "f32"],
        ] {
            let outcome = place.temper(&args);
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        }
        assert_eq!(tokens(&place, &file), tokens(&place, &dir), "{kind}");

        let device = kernels::device("cpu").expect("every machine has one");
        let path = |name: &str| place.path().join(name);
        let models = [
            model::load_causal_lm_in_blocks(&path(&file), &device),
            model::load_causal_lm(&path(&file), &device),
            model::load_causal_lm(&path(&dir), &device),
        ];
        let settings = generate::Settings { n: 3, max_new_tokens: 8, ..Default::default() };
        let prompts: Vec<Vec<u32>> = (1..5).map(|n| (n..3 * n).collect()).collect();
        let [in_blocks, widened, directory] = models.map(|model| {
            let model = model.expect("a model");
            generate::generate(&model, &prompts, &settings, 5, |_| ()).expect("completions")
        });
        for (got, want) in in_blocks.iter().zip(&widened) {
            let bits = |logprobs: &[f32]| logprobs.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
            assert_eq!(got.tokens, want.tokens, "{kind}");
            assert_eq!(bits(&got.logprobs), bits(&want.logprobs), "{kind}");
        }
        assert!(widened.len() == 12 && widened == directory, "{kind}");
    }
}

/// Exports in one directory keep each other's Modelfile: the second one is named after its model.
#[test]
fn files_in_one_directory_have_a_modelfile_each() {
    let place = exported();
    let export = |name: &str, kind: &str| {
        place.temper(&["export", "runs/tiny/pretrain", "--to", name, "--gguf", kind])
    };
    let from = |name: &str| {
        let text = std::fs::read_to_string(place.path().join(name)).expect(name);
        text.lines().next().expect("a line").to_owned()
    };
    let second = export("small.gguf", "q8_0");
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert!(second.stdout.contains("small.Modelfile: for `ollama create`"), "{}", second.stdout);
    assert_eq!(from("Modelfile"), "FROM ./model.gguf");
    assert_eq!(from("small.Modelfile"), "FROM ./small.gguf");
    // A Modelfile that somebody wrote is kept too, and one of the model's own name is never overwritten.
    place.write("own/Modelfile", "FROM llama3\n").write("own/x.Modelfile", "FROM mine\n");
    let refused = export("own/x.gguf", "f32");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("x.Modelfile: already exists"), "{}", refused.stderr);
    assert!(!place.path().join("own/x.gguf").exists());
    assert_eq!(
        (from("own/Modelfile"), from("own/x.Modelfile")),
        ("FROM llama3".into(), "FROM mine".into())
    );
}

#[test]
fn names_and_types_that_do_not_fit() {
    let place = exported();
    assert_snapshot!(
        "a_file_without_a_type",
        place.error(&["export", "runs/tiny/pretrain", "--to", "other.gguf"])
    );
    assert_snapshot!(
        "a_type_without_a_file",
        place.error(&["export", "runs/tiny/pretrain", "--to", "other", "--gguf", "q8_0"])
    );
    place
        .write("cut.gguf", &std::fs::read(place.path().join("model.gguf")).expect("a file")[..900]);
    assert_snapshot!(
        "a_file_that_ends_early",
        place.error(&["generate", "cut.gguf", "--prompt", "x"])
    );
    place.write("text.gguf", "not a model");
    assert_snapshot!("no_such_format", place.error(&["generate", "text.gguf", "--prompt", "x"]));
}
