//! First commands of a newcomer: names of runs in place of paths, data files in place of recipes, overrides of one key, and paths
//! with spelling mistakes.

use crate::support::{Place, trained};

/// Chats with questions of several lengths; `tiny_recipe`'s model reads 32 tokens.
fn chats(n: usize) -> String {
    let row = |idx: usize| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"q{idx}\"}}, {{\"role\": \"assistant\", \"content\": \"a{idx}\"}}]}}\n"
        )
    };
    (0..n).map(row).collect()
}

/// A finished run and a recipe of a stage that starts from it.
fn place(stage: &str, keys: &str) -> Place {
    let place = trained();
    let row =
        |n: usize| format!("{{\"prompt\": \"{n}\", \"chosen\": \"yes\", \"rejected\": \"no\"}}\n");
    let rows: String = (0..40).map(row).collect();
    place.write("chats.jsonl", chats(40)).write("pairs.jsonl", rows);
    place.write(
        "mine.toml",
        format!("[{stage}]\nstart = \"runs/tiny/pretrain\"\nsequence_length = 32\noptimizer = {{ lr = 1e-3 }}\n{keys}"),
    );
    place
}

const SFT: &str = "data = [{ path = \"chats.jsonl\" }]\ntokens_per_step = 64\nmax_steps = 9\n\
                   schedule = { kind = \"cosine\", warmup_steps = 6 }\n";

#[test]
fn a_run_is_named_wherever_a_model_is() {
    let place = place("sft", SFT);
    let run = place.temper(&["run", "mine.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for model in ["mine", "runs/mine", "tiny", "runs/tiny/pretrain"] {
        let args = ["generate", model, "--prompt", "a", "--max-new-tokens", "1"];
        let outcome = place.temper(&args);
        assert_eq!(outcome.code, Some(0), "{model}: {}", outcome.stderr);
    }
    insta::assert_snapshot!(place.error(&["generate", "runs/mime", "--prompt", "a"]), @r"
    exit 2
    error: no model at `runs/mime`
      hint: did you mean `runs/mine`?
    ");
    insta::assert_snapshot!(place.error(&["run", "mine"]), @r"
    exit 2
    error: `mine` is a run, not a recipe
      hint: to continue it: temper resume mine
    ");
    insta::assert_snapshot!(place.error(&["run", "mime.toml"]), @r"
    exit 2
    error: mime.toml: cannot read: No such file or directory (os error 2)
      hint: did you mean `mine.toml`?
    ");
    insta::assert_snapshot!(place.error(&["resume", "mime"]), @r"
    exit 2
    error: no such run: `mime`
      hint: did you mean `runs/mine`?
    ");
}

#[test]
fn a_key_without_its_section_belongs_to_the_only_stage_that_has_it() {
    let place = place("sft", SFT);
    let run = place.temper(&["run", "mine.toml", "--set", "max_steps=4"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("warmup_steps of [sft] is 2 in place of 6"), "{}", run.stderr);
    let recipe = std::fs::read_to_string(place.path().join("runs/mine/recipe.toml")).expect("it");
    assert!(recipe.contains("max_steps = 4") && recipe.contains("warmup_steps = 2"), "{recipe}");
    // A resumed run has the same values.
    let resumed = place.temper(&["resume", "mine"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    // A warm-up that is set is not changed.
    let set = ["--set", "max_steps=4", "--set", "schedule.warmup_steps=5"];
    let error = place.error(&[&["plan", "mine.toml"][..], &set].concat());
    assert!(error.contains("must keep warm-up and decay within 4 steps"), "{error}");
}

#[test]
fn a_missing_path_is_named_with_its_line() {
    let place = place("sft", SFT);
    let recipe = std::fs::read_to_string(place.path().join("mine.toml")).expect("the recipe");
    place.write("other.toml", recipe.replace("runs/tiny/pretrain", "runs/tny/pretrain"));
    insta::assert_snapshot!(place.error(&["plan", "other.toml"]), @r#"
    exit 2
    error: no model at `runs/tny/pretrain`
      --> other.toml:2:9
       |
     2 | start = "runs/tny/pretrain"
       |         ^^^^^^^^^^^^^^^^^^^
      hint: did you mean `runs/tiny/pretrain`?
    "#);
    place.write("other.toml", recipe.replace("chats.jsonl", "chat.jsonl"));
    insta::assert_snapshot!(place.error(&["plan", "other.toml"]), @r#"
    exit 2
    error: no such file or directory: `chat.jsonl`
      --> other.toml:5:18
       |
     5 | data = [{ path = "chat.jsonl" }]
       |                  ^^^^^^^^^^^^
      hint: did you mean `chats.jsonl`?
    "#);
    place.write("other.toml", format!("{recipe}chat_template = \"none.jinja\"\n"));
    let error = place.error(&["plan", "other.toml"]);
    assert!(error.contains("--> other.toml:9:17"), "{error}");
}

#[test]
fn a_plan_refuses_models_of_the_wrong_kind() {
    let pairs = "data = [{ path = \"pairs.jsonl\" }]\npairs_per_step = 8\nmax_steps = 2\n";
    let place = place("reward", pairs);
    let run = place.temper(&["run", "mine.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let recipe = std::fs::read_to_string(place.path().join("mine.toml")).expect("the recipe");
    place.write(
        "dpo.toml",
        recipe.replace("[reward]", "[dpo]").replace("runs/tiny/pretrain", "runs/mine/reward"),
    );
    insta::assert_snapshot!(place.error(&["plan", "dpo.toml"]), @r#"
    exit 2
    error: a reward model cannot be the start of [dpo]: `runs/mine/reward`
      --> dpo.toml:2:9
       |
     2 | start = "runs/mine/reward"
       |         ^^^^^^^^^^^^^^^^^^ it has a score in place of the output layer
      hint: start from the language model that it was trained from
    "#);
    place.write(
        "ppo.toml",
        "[ppo]\npolicy = { start = \"runs/tiny/pretrain\" }\nreward = \"runs/tiny/pretrain\"\n\
         prompts = [{ path = \"pairs.jsonl\" }]\nmax_prompt_tokens = 20\nmax_new_tokens = 4\n\
         episodes_per_step = 4\nmax_steps = 1\noptimizer = { lr = 1e-3 }\n",
    );
    insta::assert_snapshot!(place.error(&["plan", "ppo.toml"]), @r#"
    exit 2
    error: not a reward model: `runs/tiny/pretrain`
      --> ppo.toml:3:10
       |
     3 | reward = "runs/tiny/pretrain"
       |          ^^^^^^^^^^^^^^^^^^^^ a language model, without a score
      hint: name a stage [reward], or a classifier with one label
    "#);
}

#[test]
fn a_start_that_has_not_finished_is_named() {
    let place = place("sft", SFT);
    fsio::rename(
        place.path().join("runs/tiny/pretrain/model"),
        place.path().join("runs/tiny/pretrain/away"),
    )
    .expect("renamed");
    let finished = place.path().join("runs/tiny/pretrain/finished.json");
    fsio::remove_file(finished).expect("removed");
    let plan = place.temper(&["plan", "mine.toml", "--no-probe"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    let said = format!("{}{}", plan.stdout, plan.stderr);
    assert!(said.contains("`runs/tiny/pretrain` has not finished its training"), "{said}");
}

#[test]
fn a_data_file_is_described() {
    let place = place("sft", SFT);
    let outcome = place.temper(&["data", "inspect", "chats.jsonl"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stdout, @r#"
    chats.jsonl: 40 rows in 1 file
      [sft], [distill]: messages from `messages`
      [ppo], [grpo]: messages from `messages`
    {
      "messages": [
        {
          "role": "user",
          "content": "q0"
        },
        {
          "role": "assistant",
          "content": "a0"
        }
      ]
    }
    next    temper init sft --model MODEL --data chats.jsonl
    "#);
    let described = |name: &str, row: &str| {
        place.write(name, row);
        place.temper(&["data", "inspect", name]).stdout
    };
    // A file without a label is none for [kto], and a row of labelled answers is suggested for it.
    let answers = described("answers.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n");
    assert!(answers.starts_with("answers.jsonl: 1 row in 1 file\n"), "{answers}");
    assert!(!answers.contains("[kto]") && answers.contains("init sft"), "{answers}");
    let row = "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}\n";
    assert!(described("ratings.jsonl", row).contains("init kto"));
    let tree = "{\"id\": \"1\", \"prompt\": {\"text\": \"a\", \"role\": \"prompter\", \"replies\": [\
                {\"text\": \"b\", \"role\": \"assistant\", \"replies\": []}]}}\n";
    assert!(described("trees.jsonl", tree).contains("init sft"));
    let call = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"tool_calls\": \
                [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {}}}]}]}\n";
    assert!(!described("calls.jsonl", call).contains("not read"));
    // A text file is one document, as training reads it, however long its lines are.
    place.write("book.txt", format!("{}\n\nThe end.\n", "word ".repeat(1_000_000)));
    let book = place.temper(&["data", "inspect", "book.txt"]);
    assert_eq!(book.code, Some(0), "{}", book.stderr);
    assert!(book.stdout.starts_with("book.txt: 1 document in 1 file\n  [pretrain]: "));
    assert!(book.stdout.contains("word word …") && book.stdout.len() < 1000, "{}", book.stdout);
    for blank in [" \n\t\n".to_owned(), " \n\t\n".repeat(1000)] {
        place.write("blank.txt", &blank);
        let refused = place.temper(&["data", "inspect", "blank.txt"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        assert!(refused.stderr.contains("blank.txt: file is empty"), "{}", refused.stderr);
    }
    place.write("odd.jsonl", "{\"a\": 1, \"b\": 2}\n");
    let error = place.error(&["data", "inspect", "odd.jsonl"]);
    assert!(error.contains("odd.jsonl:1: cannot tell how to read"), "{error}");
}

#[test]
fn the_loss_of_chats_is_that_of_the_answers() {
    let place = place("sft", SFT);
    let outcome = place.temper(&["run", "mine.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let outcome = place.temper(&["eval", "mine", "--file", "chats.jsonl"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("\"of\":\"answers of chats\""), "{}", outcome.stdout);
    // Chats whose questions are changed have the same number of targets, and another loss.
    place.write("others.jsonl", chats(40).replace("\"q", "\"Q"));
    let others = place.temper(&["eval", "mine", "--file", "others.jsonl"]);
    let targets = |text: &str| text.split("\"targets\":").nth(1).map(str::to_owned);
    assert_eq!(targets(&outcome.stdout), targets(&others.stdout));
    assert_ne!(outcome.stdout, others.stdout);
    let error = place.error(&["eval", "mine", "--file", "chats.jsonl", "--stream"]);
    assert!(error.contains("do not apply to chats"), "{error}");
}

#[test]
fn a_plan_that_needs_too_much_memory_is_refused() {
    let place = place("sft", SFT);
    place.write(
        "big.toml",
        "[tokenizer]\ntrain = { kind = \"byte-bpe\", vocab_size = 300 }\n[model]\nfamily = \"llama\"\n\
         hidden_size = 16384\nnum_hidden_layers = 100\nnum_attention_heads = 128\nintermediate_size = 65536\n\
         max_position_embeddings = 4096\n[pretrain]\ndata = [{ path = \"text.txt\" }]\nsequence_length = 64\n\
         tokens_per_step = 64\nmax_steps = 3\noptimizer = { lr = 1e-3 }\n",
    );
    let refused = place.temper(&["plan", "big.toml", "--no-probe"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stdout.contains("pretrain: memory: weights"), "{}", refused.stdout);
    for part in ["error: [pretrain] needs ", " of memory, and ", "`--force` starts it anyway"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let forced = place.temper(&["plan", "big.toml", "--no-probe", "--force"]);
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
    assert!(forced.stdout.contains("ready: temper run big.toml --force"), "{}", forced.stdout);
    let run = place.temper(&["run", "big.toml"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(!place.path().join("runs/big/pretrain").exists());
}

/// A source whose weight leaves it without a row in the run is named by `plan`.
#[test]
fn a_source_without_a_row_in_the_run_is_named() {
    let place = crate::support::Place::new();
    let data = "{ path = \"text.txt\" }, { path = \"few.jsonl\", weight = 1e-5 }";
    place
        .write("text.txt", "The quick brown fox jumps over the lazy dog.\n".repeat(40))
        .write("few.jsonl", "{\"text\": \"Nobody reads this.\"}\n")
        .write("tiny.toml", crate::support::tiny_recipe(data, ""));
    let plan = place.temper(&["plan", "tiny.toml", "--no-probe"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    let text = plan.stdout + &plan.stderr;
    assert!(
        text.contains("no row of `few.jsonl` is trained on: with its weight, 0.00001"),
        "{text}"
    );
}
