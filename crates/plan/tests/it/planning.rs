//! Plans of stages, and errors of planning.

use plan::{Stage, Start};

use crate::support::{RECIPE, folder, plan_in, write};

#[test]
fn stages_follow_each_other() {
    let dir = folder(RECIPE);
    let plan = plan_in(dir.path(), &[], None).expect("a plan");
    let [pretrain, sft] = plan.stages.as_slice() else { panic!("two stages") };
    assert!(matches!(pretrain.kind, Stage::Pretrain(_)));
    assert_eq!(pretrain.start, Start::Fresh);
    assert!(matches!(sft.kind, Stage::Sft(_)));
    assert_eq!(sft.start, Start::Stage("pretrain".into()));
    // The model's context is the longest row, its vocabulary the tokenizer's. The second stage has the same configuration.
    assert_eq!(pretrain.config.max_positions(), 64);
    assert_eq!(pretrain.config.vocab_size(), pretrain.tokenizer.vocab_size());
    assert_eq!(pretrain.config, sft.config);
    assert_eq!(sft.tokenizer.chat_template().map(tokenizer::ChatTemplate::name), Some("chatml"));
    assert_eq!((pretrain.rows_per_step, pretrain.micro_batch), (8, 8));
    assert_eq!((sft.rows_per_step, sft.micro_batch, sft.max_steps), (4, 3, 5));
}

#[test]
fn steps_are_counted_after_packing() {
    let dir = folder(RECIPE);
    let plan = plan_in(dir.path(), &[], Some("pretrain")).expect("a plan");
    let stage = &plan.stages[0];
    let rows = stage.dataset.n_rows(0) + stage.dataset.n_rows(1);
    assert_eq!(stage.max_steps, rows.div_ceil(stage.rows_per_step as u64));
    let batches = (0..stage.max_steps).map(|step| stage.dataset.batch(step));
    let targets: usize = batches.map(|batch| batch.n_targets).sum();
    assert_eq!(stage.dataset.run_targets(), targets as u64);
    assert!(stage.dataset.counts().eval_samples > 0);
}

#[test]
fn a_tokenizer_is_trained_once() {
    struct Count(u32);
    impl plan::Watch for Count {
        fn waiting_for_tokenizer(&mut self) {}
        fn training_tokenizer(&mut self) {
            self.0 += 1;
        }
        fn tokenizing(&mut self, _stage: &str, _progress: &data::Progress) {}
    }
    let dir = folder(RECIPE);
    let loaded = recipe::load(&dir.path().join("r.toml"), &[]).expect("a recipe");
    let request = plan::Request { runs_dir: Some(dir.path().join("runs")), ..Default::default() };
    let mut count = Count(0);
    let first = plan::plan(&loaded, &request, &mut count).expect("a plan");
    let second = plan::plan(&loaded, &request, &mut count).expect("a plan");
    assert_eq!(count.0, 1);
    assert_eq!(first.stages[0].inputs, second.stages[0].inputs);
    // A different text gives a different tokenizer and different hashes of inputs.
    write(dir.path(), "rows.jsonl", &crate::support::rows().replace("number", "figure"));
    let third = plan::plan(&loaded, &request, &mut count).expect("a plan");
    assert_eq!(count.0, 2);
    assert_ne!(first.stages[0].inputs, third.stages[0].inputs);
}

#[test]
fn one_stage_of_several() {
    let dir = folder(RECIPE);
    let plan = plan_in(dir.path(), &[], Some("sft")).expect("a plan");
    assert_eq!(plan.stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>(), ["sft"]);
    let error = plan_in(dir.path(), &[], Some("ppo")).expect_err("no such stage");
    assert_eq!(error.to_string(), "no such stage: `ppo`");
    assert_eq!(error.hint().as_deref(), Some("the recipe has: pretrain, sft"));
}

#[test]
fn samples_that_lose_their_targets_stop_the_plan() {
    let dir = folder(RECIPE);
    // Prompts longer than a row leave no room for an answer.
    let long = format!("{{\"prompt\": \"{}\", \"completion\": \"No.\"}}\n", "Why? ".repeat(100));
    write(dir.path(), "chats.jsonl", &(crate::support::chats() + &long.repeat(6)));
    let error = plan_in(dir.path(), &[], None).expect_err("too short");
    assert!(error.to_string().contains("9.1 % of the samples have no target"), "{error}");
    let plan = plan_in(dir.path(), &[("checks.targets", "false")], None).expect("unchecked");
    assert_eq!(plan.stages[1].dataset.counts().without_targets, 6);
    assert_eq!(plan.stages[1].dataset.sample_issues().count(), 6);
}

#[test]
fn a_new_model_needs_a_tokenizer() {
    let recipe =
        RECIPE.replace("train = { kind = \"byte-bpe\", vocab_size = 300 }", "load = \"none.json\"");
    let dir = folder(&recipe);
    let error = plan_in(dir.path(), &[], None).expect_err("no tokenizer");
    assert!(error.to_string().contains("none.json"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn a_dpo_stage_counts_what_its_reference_is_asked() {
    let stage = |loss: &str| {
        format!(
            "{RECIPE}
[dpo]
start = \"sft\"
data = [{{ path = \"pairs.jsonl\" }}]
sequence_length = 64
pairs_per_step = 8
epochs = 2
loss = \"{loss}\"
optimizer = {{ lr = 1e-4 }}
eval = {{ holdout = 0.25, max_rows = 3 }}
"
        )
    };
    let pairs = (0..40).fold(String::new(), |text, n| {
        text + &format!("{{\"prompt\":\"{n}?\",\"chosen\":\"yes {n}\",\"rejected\":\"no {n}\"}}\n")
    });
    let cost = |loss: &str| {
        let dir = folder(&stage(loss));
        write(dir.path(), "pairs.jsonl", &pairs);
        let plan = plan_in(dir.path(), &[], None).expect("a plan");
        let dpo = plan.stages.last().expect("a stage");
        let Stage::Dpo(of_dpo) = &dpo.kind else { panic!("{:?}", dpo.kind) };
        assert_eq!(dpo.dataset.batch_rows(), 2);
        (of_dpo.n_reference_pairs, dpo.cost.flops, dpo.dataset.counts().train_samples)
    };
    let ((n_with, with, n_train), (n_without, without, _)) = (cost("sigmoid"), cost("simpo"));
    // Each training pair once, for any number of epochs, and the validation pairs that are evaluated.
    assert_eq!((n_with, n_without), (n_train + 3, 0));
    // A forward pass is a third of a step, and there were two epochs.
    let share = (with / without - 1.0) * 6.0;
    let wanted = (n_train + 3) as f64 / n_train as f64;
    assert!((share - wanted).abs() < 0.02, "{share}, not {wanted}");
}

#[test]
fn a_kto_stage_counts_its_labels_and_what_it_evaluates() {
    let stage = format!(
        "{RECIPE}
[kto]
start = \"sft\"
data = [{{ path = \"ratings.jsonl\" }}]
sequence_length = 64
rows_per_step = 8
epochs = 2
optimizer = {{ lr = 1e-4 }}
eval = {{ holdout = 0.25, max_rows = 3 }}
"
    );
    let rows = |is_desirable: fn(usize) -> bool| {
        (0..80).fold(String::new(), |text, n| {
            let label = is_desirable(n);
            text + &format!(
                "{{\"prompt\":\"{n}?\",\"completion\":\"yes {n}\",\"label\":{label}}}\n"
            )
        })
    };
    let planned = |rows: &str, set: &[(&str, &str)]| {
        let dir = folder(&stage);
        write(dir.path(), "ratings.jsonl", rows);
        plan_in(dir.path(), set, None)
    };
    let ratings = rows(|n| n % 4 != 0);
    let plan = planned(&ratings, &[]).expect("a plan");
    let kto = plan.stages.last().expect("a stage");
    let Stage::Kto(of_kto) = &kto.kind else { panic!("{:?}", kto.kind) };
    let counts = kto.dataset.counts();
    let labels = counts.labels.expect("labels");
    assert_eq!(labels.desirable + labels.undesirable, counts.train_samples);
    // Each row once, and each row of the run and of the validation with another answer.
    let n_run = kto.dataset.n_run_rows();
    assert_eq!(n_run, 2 * counts.train_samples);
    assert_eq!(of_kto.n_kl_rows, n_run);
    assert_eq!(of_kto.n_reference_rows, counts.train_samples + 3 + n_run + 3);
    // The advice leads to the range that it names.
    let note = |plan: &plan::Plan| {
        let notes = &plan.stages.last().expect("a stage").notes;
        notes.iter().find(|note| note.contains("desirable rows")).cloned().expect("a note")
    };
    let advice = note(&plan);
    let (_, weights) = advice.split_once("set `undesirable_weight` between ").expect(&advice);
    for weight in weights.split(" and ") {
        let followed = planned(&ratings, &[("kto.undesirable_weight", weight)]).expect("a plan");
        assert!(!note(&followed).contains("recommends"), "{}", note(&followed));
    }
    let rare = planned(&rows(|n| n % 4 == 0), &[]).expect("a plan");
    assert!(note(&rare).contains("set `desirable_weight` between"), "{}", note(&rare));
    // Another loss evaluates the rows alone.
    let plan = planned(&ratings, &[("kto.loss", "apo_zero_unpaired")]).expect("a plan");
    let Stage::Kto(of_apo) = &plan.stages.last().expect("a stage").kind else { panic!() };
    assert_eq!((of_apo.n_kl_rows, of_apo.n_reference_rows), (0, counts.train_samples + 3));
    let refused = planned(&rows(|_| true), &[]).expect_err("one label");
    assert!(refused.to_string().contains("is undesirable (`label` false)"), "{refused}");
}

#[test]
fn replicas_share_rows_and_on_the_cpu_one_memory() {
    let dir = folder(RECIPE);
    let with = |set: &[(&str, &str)]| plan_in(dir.path(), set, None);
    let one = with(&[("pretrain.micro_batch", "4")]).expect("a plan");
    let two = with(&[("replicas", "2")]).expect("a plan");
    let (one, two) = (&one.stages[0], &two.stages[0]);
    assert_eq!((two.rows_per_step, two.micro_batch, two.max_steps), (8, 4, one.max_steps));
    assert_eq!((two.cost.memory, two.cost.flops), (one.cost.memory, one.cost.flops));
    // A replica has one micro-batch instead of two, so it needs no memory for sums of gradients.
    let of_two = 2 * one.cost.memory.peak(1);
    assert!(two.cost.peak_bytes > of_two && two.cost.peak_bytes < of_two + 30_000_000);

    let refused = with(&[("replicas", "5")]).expect_err("[sft] has four rows");
    assert!(refused.to_string().contains("[sft] has fewer rows in a step than replicas: `4`"));
    assert!(refused.hint().is_some_and(|hint| hint.contains("tokens_per_step")));
}

/// The size of the state depends on the optimizer's kind and on the trained parameters.
#[test]
fn optimizer_state_follows_the_kind() {
    let dir = folder(RECIPE);
    let cost = |kind: &str| {
        let set = [("pretrain.optimizer.kind", kind), ("pretrain.optimizer.groups", "[]")];
        let plan = plan_in(dir.path(), &set, Some("pretrain")).expect("a plan");
        plan.stages[0].cost.clone()
    };
    let adamw = cost("adamw");
    let n = adamw.n_trained;
    assert_eq!(adamw.memory.optimizer, 8 * n);
    assert_eq!(adamw.checkpoint_bytes, 12 * n);
    // The matrices of two blocks: queries, keys, values, outputs; gate, up, down.
    let in_blocks = 2 * (4 * 16 * 16 + 3 * 16 * 32);
    let muon = cost("muon");
    assert_eq!(muon.memory.optimizer, 8 * n - 4 * in_blocks);
    assert_eq!(muon.checkpoint_bytes, 12 * n - 4 * in_blocks);
    assert!(muon.peak_bytes <= adamw.peak_bytes);
    // 300 × 16, per block 4 × (16 + 16) and 3 × (16 + 32); five norms of 16.
    let rows_and_columns = 316 + 2 * (4 * 32 + 3 * 48) + 5 * 16;
    assert_eq!(cost("adafactor").memory.optimizer, 4 * rows_and_columns);
    // Of these tensors only the embedding is large enough.
    assert_eq!(cost("adamw8bit").memory.optimizer, 8 * (n - 4800) + 2 * (4800 + 4 * 19));
}

#[test]
fn a_group_that_matches_nothing_stops_the_plan() {
    let dir = folder(RECIPE);
    let groups = "[{ match = \"*embed*\", lr = 1e-4 }, { match = \"*.lora_B.weight\", lr = 1e-2 }]";
    let set = |lora: bool| {
        let mut set = vec![("sft.optimizer.groups", groups)];
        set.extend(lora.then_some(("sft.lora.rank", "2")));
        plan_in(dir.path(), &set, None)
    };
    let error = set(false).expect_err("no factors");
    let text = error.to_string();
    assert!(text.contains("no trained parameter matches: `*.lora_B.weight`"), "{text}");
    assert!(text.contains("--set sft.optimizer.groups"), "{text}");
    assert_eq!(
        error.hint().as_deref(),
        Some(
            "trained parameters have names such as `model.embed_tokens.weight`, \
             `model.layers.0.self_attn.q_proj.weight`, `model.layers.0.self_attn.k_proj.weight`"
        )
    );
    // With an adapter, the factors are trained and the embedding is frozen.
    let text = set(true).expect_err("no embedding").to_string();
    assert!(text.contains("no trained parameter matches: `*embed*`"), "{text}");
}

#[test]
fn unknown_keys_of_a_starting_model_are_warnings_once() {
    // Both stages start from the same directory, whose config.json has a key that no family has.
    let recipe = RECIPE.replace("[sft]\nstart = \"pretrain\"", "[sft]\nstart = \"base\"");
    let recipe = recipe.replace("[pretrain]\n", "[pretrain]\nstart = \"base\"\n");
    let (model, pretrain) = (recipe.find("[model]"), recipe.find("[pretrain]"));
    let (Some(model), Some(pretrain)) = (model, pretrain) else { panic!("sections: {recipe}") };
    let recipe = format!("{}{}", &recipe[..model], &recipe[pretrain..]);
    let dir = folder(&recipe);
    let base = dir.path().join("base");
    fsio::create_dir_all(&base).expect("a directory");
    let config = r#"{
        "model_type": "llama", "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "surprise": 7, "_private": 1
    }"#;
    write(&base, "config.json", config);
    write(&base, "model.safetensors", "not read by a plan");
    let plan = plan_in(dir.path(), &[], None).expect("a plan");
    let warnings = plan.warnings();
    let [warning] = warnings.as_slice() else { panic!("one warning: {warnings:?}") };
    assert!(warning.ends_with("unknown key `surprise` is ignored: `7`"), "{warning}");
    assert!(plan.stages.iter().all(|stage| stage.warnings == warnings));
}

#[test]
fn added_tokens_grow_the_vocabulary_of_existing_weights() {
    let dir = folder(RECIPE);
    let set = [
        ("sft.add_tokens", "[\"<think>\", \"the\"]"),
        ("sft.add_special_tokens", "[\"<|eot|>\"]"),
        ("sft.eos_token", "\"<|eot|>\""),
    ];
    let plan = plan_in(dir.path(), &set, None).expect("a plan");
    let [pretrain, sft] = plan.stages.as_slice() else { panic!("two stages") };
    let n_tokens = pretrain.tokenizer.vocab_size();
    let id = |token: &str| sft.tokenizer.token_id(token).expect("an id") as usize;
    assert_eq!((id("<think>"), id("<|eot|>")), (n_tokens, n_tokens + 1 + new_of("the", pretrain)));
    assert!(!sft.tokenizer.is_special(id("<think>") as u32));
    assert!(sft.tokenizer.is_special(id("<|eot|>") as u32));
    assert_eq!(sft.tokenizer.eos(), Some(id("<|eot|>") as u32));
    assert_eq!(sft.config.vocab_size(), sft.tokenizer.vocab_size());
    assert!(sft.grows_vocabulary && !pretrain.grows_vocabulary);
    let notes = sft.notes.join("\n");
    assert!(notes.contains(&format!("the embeddings grow from {n_tokens} to")), "{notes}");
    assert!(
        notes.contains("answers end with `<|im_end|>`, which the chat template writes"),
        "{notes}"
    );
    let error =
        plan_in(dir.path(), &[("sft.eos_token", "\"<|none|>\"")], None).expect_err("refused");
    assert!(error.to_string().contains("the tokenizer has no token `<|none|>`"), "{error}");
}

/// 1 if a token is not in the vocabulary of a stage.
fn new_of(token: &str, stage: &plan::StagePlan) -> usize {
    usize::from(stage.tokenizer.token_id(token).is_none())
}

#[test]
fn prompts_of_samples_are_encoded_as_the_stage_reads_its_data() {
    let dir = folder(RECIPE);
    let prompts = [
        ("pretrain.sample_prompts", r#"["row 3"]"#),
        ("sft.sample_prompts", r#"["How much is 3?", "and 4?"]"#),
    ];
    let plan = plan_in(dir.path(), &prompts, None).expect("a plan");
    let [pretrain, sft] = plan.stages.as_slice() else { panic!("two stages") };
    let prefix = pretrain.tokenizer.prefix_ids();
    assert_eq!(prefix.len(), 1);
    let of_document = &pretrain.sample_prompts.prompts[0];
    assert_eq!(of_document.ids[..1], prefix);
    assert_eq!(pretrain.tokenizer.decode(&of_document.ids[1..], false), "row 3");
    let of_chat = &sft.sample_prompts.prompts[0];
    assert_eq!((of_chat.text.as_str(), sft.sample_prompts.prompts.len()), ("How much is 3?", 2));
    let rendered = sft.tokenizer.decode(&of_chat.ids, false);
    let wanted = "<|im_start|>user\nHow much is 3?<|im_end|>\n<|im_start|>assistant\n";
    assert!(rendered.ends_with(wanted), "{rendered}");
    // Without any, the beginning of a document, and the first prompt of the validation set where there is one.
    let plan = plan_in(dir.path(), &[], None).expect("a plan");
    let own = |stage: usize| &plan.stages[stage].sample_prompts;
    assert_eq!((&own(0).prompts[0].ids, own(0).of_recipe), (&prefix, false));
    assert!(own(1).prompts.is_empty());
    let long = format!("[\"{}\"]", "word ".repeat(200));
    let error = plan_in(dir.path(), &[("sft.sample_prompts", &long)], None).expect_err("too long");
    assert!(error.to_string().contains("tokens, and the model's context is 64"), "{error}");
}
