//! Replicas: sums in the order of ranks, no deadlock when a peer exits, the same updates as on one device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::Share;
use model::CausalLm;
use nn::TokenBatch;
use plan::{Plan, Request, Unwatched};
use serde_json::Value;
use train::{
    Collective, Context, Error, EvalRow, Event, Gradients, InProcess, Outcome, ParameterNames,
    Progress, Recorder, RunDir, SingleReplica, StageState, StepPlace, StepReport, StopFlag,
    apply_update, compare_replicas, finish_stage, on_replicas, start_or_resume, write_checkpoint,
};

use super::toy::{Pair, bits, device, optimizer, place, settings, tiny_model};

/// Runs `run` on a thread for each replica and gives what each returned, by rank.
fn on_threads<R: Send>(world_size: usize, run: impl Fn(InProcess) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = InProcess::replicas(world_size)
            .into_iter()
            .map(|replica| scope.spawn(move || run(replica)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a replica")).collect()
    })
}

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
}

fn values(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

#[test]
fn sums_are_those_of_all_replicas_in_the_order_of_ranks() {
    // 1e8 + 1 − 1e8 is 0 in f32, and 1 in another order; with f64 the same takes 1e17.
    let parts: [f32; 4] = [1e8, 1.0, -1e8, 0.25];
    for world_size in 1..=4 {
        let wanted =
            parts[..world_size].iter().copied().reduce(|sum, part| sum + part).expect("a part");
        // Whoever comes first: each replica in turn is the late one.
        for late in 0..world_size {
            let found = on_threads(world_size, |replica| {
                let rank = replica.rank();
                if rank == late {
                    thread::sleep(Duration::from_millis(20));
                }
                let mine = vec![tensor(&[parts[rank], rank as f32]), tensor(&[2.0; 3])];
                let tensors = replica.all_reduce(mine).expect("sums");
                let number = replica.sum(f64::from(parts[rank]) * 1e9).expect("a sum");
                let broadcast = replica.broadcast(vec![rank as f64 + 7.0]).expect("a number");
                (tensors, number, broadcast)
            });
            for (tensors, number, broadcast) in found {
                let ranks: f32 = (0..world_size).map(|rank| rank as f32).sum();
                assert_eq!(
                    values(&tensors[0]),
                    [wanted, ranks],
                    "{world_size} replicas, {late} late"
                );
                assert_eq!(values(&tensors[1]), [2.0 * world_size as f32; 3]);
                let wanted = parts[..world_size].iter().map(|part| f64::from(*part) * 1e9);
                assert_eq!(number, wanted.reduce(|sum, part| sum + part).expect("a part"));
                assert_eq!(broadcast, [7.0]);
            }
        }
    }
}

#[test]
fn many_meetings_follow_one_another() {
    let sums = on_threads(3, |replica| {
        (0..2_000).map(|n| replica.sum(f64::from(n)).expect("a sum")).collect::<Vec<_>>()
    });
    for sums in sums {
        assert!(sums.iter().enumerate().all(|(n, sum)| *sum == 3.0 * n as f64));
    }
}

#[test]
fn nobody_waits_for_a_replica_that_has_gone() {
    let begun = Instant::now();
    for gone in 0..3 {
        let found = on_threads(3, |replica| {
            replica.barrier().expect("all are here");
            if replica.rank() == gone {
                return Ok(());
            }
            replica.all_reduce(vec![tensor(&[1.0])])?;
            Ok(())
        });
        for (rank, found) in found.into_iter().enumerate() {
            match found {
                Ok(()) => assert_eq!(rank, gone),
                Err(Error::ReplicaLost { rank: waited }) => assert_eq!(waited, rank),
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_replica_without_gradients_adds_zeros() {
    let names = ParameterNames::from_names(vec!["matrix".into(), "vector".into()]);
    let found = on_threads(3, |replica| {
        let model = Pair::new();
        let mut gradients = Gradients::new(&names);
        if replica.rank() != 1 {
            let loss = model.linear_loss(&[1.0; 6], &[0.5, 1.0, 2.0, 4.0]);
            gradients.accumulate(&model, || loss.backward());
        }
        gradients.all_reduce(&replica, &device()).expect("sums");
        ["matrix", "vector"].map(|name| values(gradients.get(name).expect(name)))
    });
    for [matrix, vector] in found {
        assert_eq!(matrix, [2.0; 6]);
        assert_eq!(vector, [1.0, 2.0, 4.0, 8.0]);
    }
}

#[test]
fn weights_that_differ_are_found() {
    let names = ParameterNames::of(&Pair::new());
    let found = on_threads(2, |replica| {
        let mut model = Pair::new();
        if replica.rank() == 1 {
            let mut gradients = Gradients::new(&names);
            let loss = model.linear_loss(&[1.0; 6], &[1.0; 4]);
            gradients.accumulate(&model, || loss.backward());
            let norm = gradients.norm(1, place(1)).expect("finite");
            model = optimizer(settings(0.0, 0.0), &model).step(model, gradients, norm, 1e-6);
        }
        let same = compare_replicas(&replica, &Pair::new(), 1).is_ok();
        let unseen = compare_replicas(&replica, &model, 3).is_ok();
        (same, unseen, compare_replicas(&replica, &model, 4))
    });
    for (same, unseen, differ) in found {
        assert!(same && unseen);
        let error = differ.expect_err("they differ");
        let text = error.to_string();
        assert_eq!(text, "step 4: the weights of replica `1` differ from those of replica `0`");
        assert!(error.hint().is_some());
    }
    assert!(compare_replicas(&SingleReplica, &tiny_model(1), 4).is_ok());
}

const RECIPE: &str = r#"
seed = 5
[tokenizer]
train = { kind = "byte-bpe", vocab_size = 280 }
[model]
family = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 56
[pretrain]
data = [{ path = "rows.jsonl" }]
sequence_length = 32
tokens_per_step = 256
max_steps = 20
optimizer = { lr = 1e-3, weight_decay = 0.1 }
eval = { holdout = 0.1, every_steps = 5 }
save_every_steps = 6
save_every_minutes = 0.0
log_every_steps = 1
"#;

/// A directory with the recipe, its data and the runs.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with(RECIPE)
    }

    fn with(recipe: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fsio::write_atomic(dir.path().join("r.toml"), recipe).expect("a recipe");
        let row = |n: u32| format!("{{\"text\":\"row {n} of a text on {n}, and {}\"}}\n", n * n);
        let rows: String = (0..90).map(row).collect();
        fsio::write_atomic(dir.path().join("rows.jsonl"), rows).expect("rows");
        Self { dir }
    }

    fn plan(&self, name: &str, replicas: usize) -> Plan {
        let set = [("replicas".to_owned(), replicas.to_string())];
        let loaded = recipe::load(&self.dir.path().join("r.toml"), &set).expect("a recipe");
        let runs_dir = Some(self.dir.path().join("runs"));
        let request = Request { name: Some(name.to_owned()), runs_dir, ..Request::default() };
        plan::plan(&loaded, &request, &mut Unwatched).expect("a plan")
    }

    /// Runs or resumes with so many replicas; `stop_at` asks to stop at a step.
    fn run(&self, name: &str, replicas: usize, stop_at: Option<u64>) -> Outcome {
        self.try_run(name, replicas, stop_at, &|_, _| Ok(())).expect("the stage runs")
    }

    fn try_run(
        &self,
        name: &str,
        replicas: usize,
        stop_at: Option<u64>,
        disturb: &Disturb,
    ) -> train::Result<Outcome> {
        let plan = self.plan(name, replicas);
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let warnings = run_dir.adopt_recipe(&plan.recipe_toml, &plan.recipe)?;
        let mut progress =
            Stopping { stop_at, stop: StopFlag::manual(), seen: Recorder::default() };
        for message in warnings {
            progress.event(&Event::Warning { message });
        }
        let stop = progress.stop.clone();
        let devices = vec![device(); replicas];
        let context = Context {
            plan: &plan,
            stage: plan.stages.first().expect("a stage"),
            run_dir: &run_dir,
            device: &devices[0],
            progress: &mut progress,
            stop,
            replicas: &SingleReplica,
        };
        on_replicas(context, &devices, |context| pretrain(context, disturb))
    }

    fn file(&self, name: &str, file: &str) -> Vec<u8> {
        let path = self.dir.path().join("runs").join(name).join("pretrain").join(file);
        std::fs::read(path).expect(file)
    }

    /// The steps' rows of the log.
    fn rows(&self, name: &str) -> Vec<Value> {
        let log = String::from_utf8(self.file(name, "metrics.jsonl")).expect("UTF-8");
        let rows = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        rows.filter(|row| row.get("loss").is_some()).collect()
    }

    /// Largest relative difference between the losses and norms of two runs.
    fn gap(&self, one: &str, other: &str) -> f64 {
        let (one, other) = (self.rows(one), self.rows(other));
        assert_eq!((one.len(), other.len()), (20, 20));
        let figure = |row: &Value, key: &str| row[key].as_f64().expect("a number");
        let gap = |(a, b): (&Value, &Value)| {
            assert_eq!((&a["step"], &a["tokens"]), (&b["step"], &b["tokens"]));
            let gap = |key: &str| (figure(a, key) / figure(b, key) - 1.0).abs();
            gap("loss").max(gap("grad_norm") / 10.0)
        };
        one.iter().zip(&other).map(gap).fold(0.0, f64::max)
    }
}

/// Asks to stop at a step.
struct Stopping {
    stop_at: Option<u64>,
    stop: StopFlag,
    seen: Recorder,
}

impl Progress for Stopping {
    fn event(&mut self, event: &Event) {
        if let Event::Step { row, .. } = event
            && self.stop_at.is_some_and(|step| row.step >= step)
        {
            self.stop.request();
        }
        self.seen.event(event);
    }
}

/// Something that happens to a replica: its rank and the number of the step.
type Disturb = dyn Fn(usize, u64) -> train::Result<()> + Sync;

/// The loop of a stage as the stage crates have it.
fn pretrain(context: Context<'_>, disturb: &Disturb) -> train::Result<Outcome> {
    let (stage, device, replicas) = (context.stage, context.device, context.replicas);
    let StageState { mut run, mut model, mut learner, save_format, dropout } =
        start_or_resume(context)?;
    while run.has_next_step() {
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let place = StepPlace { step: step + 1, samples: &batch.samples };
        let mut sums = learner.begin_step(batch.n_targets as u64, place)?;
        disturb(replicas.rank(), step)?;
        for (idx, micro) in batch.micro_batches_of(replicas.share(), 1, stage.micro_batch) {
            dropout.draw(step, idx);
            let loss = loss_of(&model, &micro, device);
            sums.loss += loss.value();
            sums.gradients.accumulate(&model, || loss.sum.backward());
        }
        let report;
        (model, report) = apply_update(model, &mut learner, sums, stage.keys.optimizer.lr)?;
        run.log_step(StepReport { tokens: 256, ..report })?;
        if run.eval_due() {
            // Worse each time.
            let (step, eval_loss) = (run.step(), Some(run.step() as f64));
            run.log_eval(EvalRow { step, eval_loss, n_targets: 1, extra: BTreeMap::new() })?;
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &model, &learner))?;
    }
    finish_stage(run, model, &save_format, &learner)
}

fn loss_of(model: &CausalLm, batch: &data::Batch, device: &Device) -> loss::LossSum {
    let (b, t) = (batch.rows, batch.sequence_length);
    let tokens = TokenBatch::new(&batch.ids, &batch.positions, &batch.segments, b, t, device);
    let targets_n = Tensor::<1, Int>::from_data(batch.targets.as_slice(), device);
    let hidden_nd = model.forward(&tokens).hidden_nd();
    loss::cross_entropy(hidden_nd, model.head_weight(), targets_n, batch.n_targets as u64)
}

const MODEL: &str = "model/model.safetensors";

#[test]
fn the_same_steps_on_any_number_of_replicas() {
    let place = Place::new();
    for replicas in 1..=4 {
        place.run(&format!("on-{replicas}"), replicas, None);
    }
    for replicas in 2..=4 {
        let gap = place.gap("on-1", &format!("on-{replicas}"));
        assert!(gap < 1e-5, "{replicas} replicas: {gap}");
    }
    // The same number gives the same bits.
    place.run("again", 3, None);
    assert!(place.file("again", MODEL) == place.file("on-3", MODEL));
}

#[test]
fn a_run_goes_on_with_another_number_of_replicas() {
    let place = Place::new();
    place.run("whole", 1, None);
    for (name, first, second) in [("2-1", 2, 1), ("1-3", 1, 3), ("3-2", 3, 2)] {
        // All stop at the step that the leader was told of, with a checkpoint.
        assert_eq!(place.run(name, first, Some(9)), Outcome::Stopped { step: 9 });
        let Outcome::Finished(finished) = place.run(name, second, None) else { panic!("cut") };
        assert_eq!(finished.steps, 20);
        let gap = place.gap("whole", name);
        assert!(gap < 1e-5, "{name}: {gap}");
    }
    // On as many as before it is the run that was never cut.
    place.run("uncut", 2, None);
    place.run("cut", 2, Some(8));
    place.run("cut", 2, None);
    assert!(place.file("cut", MODEL) == place.file("uncut", MODEL));
    let optimizer = "checkpoints/step-000020/optimizer.safetensors";
    assert!(place.file("cut", optimizer) == place.file("uncut", optimizer));
}

/// Only the leader evaluates; all replicas end where it stops early, with the weights of the best evaluation.
#[test]
fn all_stop_early_together_with_the_best_weights() {
    let patient = "every_steps = 4, early_stopping = { patience = 2 }";
    let place = Place::with(&RECIPE.replace("every_steps = 5", patient));
    for replicas in [1, 3] {
        let name = format!("on-{replicas}");
        let Outcome::Finished(finished) = place.run(&name, replicas, None) else { panic!("cut") };
        assert_eq!((finished.steps, finished.exported_step), (12, 4), "{name}");
        assert_eq!(finished.result["step"], 4, "{name}");
        assert_exported(&place, &name, 4);
        assert!(
            place.file(&name, MODEL)
                != place.file(&name, "checkpoints/step-000012/model.safetensors")
        );
    }
}

/// `eval.export_best` does the same in a stage that runs to its last step.
#[test]
fn the_best_weights_are_exported_without_early_stopping() {
    let place =
        Place::with(&RECIPE.replace("every_steps = 5", "every_steps = 5, export_best = true"));
    for (name, stop_at) in [("whole", None), ("cut", Some(12))] {
        if stop_at.is_some() {
            place.run(name, 1, stop_at);
        }
        let Outcome::Finished(finished) = place.run(name, 1, None) else { panic!("cut") };
        assert_eq!((finished.steps, finished.exported_step), (20, 5), "{name}");
        assert_exported(&place, name, 5);
    }
    assert!(place.file("cut", MODEL) == place.file("whole", MODEL));
    // By default the last weights are exported.
    let place = Place::new();
    let Outcome::Finished(finished) = place.run("last", 1, None) else { panic!("cut") };
    assert_eq!((finished.steps, finished.exported_step), (20, 20));
    assert_exported(&place, "last", 20);
}

/// `model/` has the weights of the checkpoint of a step.
fn assert_exported(place: &Place, name: &str, step: u64) {
    let dir = place.dir.path().join("runs").join(name).join("pretrain");
    let weights = |dir: &Path| bits(&model::load_causal_lm(dir, &device()).expect("a model"));
    let checkpoint = dir.join("checkpoints").join(train::checkpoint_name(step));
    assert!(weights(&dir.join("model")) == weights(&checkpoint), "{name}: step {step}");
}

/// The error that is told is that of the replica that failed, not that of one that waited for it.
#[test]
fn a_failing_replica_ends_all() {
    let place = Place::new();
    let begun = Instant::now();
    for (name, failing) in [("leader", 0), ("other", 2)] {
        let fail = move |rank: usize, step: u64| -> train::Result<()> {
            if rank != failing || step != 3 {
                return Ok(());
            }
            Err(Error::DrySave { path: name.into(), parameter: "a.weight".into() })
        };
        let error = place.try_run(name, 3, None, &fail).expect_err("it fails");
        assert!(matches!(error, Error::DrySave { .. }), "{error}");
        assert_eq!(place.rows(name).len(), 3);
    }
    assert!(begun.elapsed() < Duration::from_mins(1));
}

/// A loss that is not finite is every replica's: none makes the step.
#[test]
fn a_loss_that_is_not_finite_is_the_loss_of_all() {
    let found = on_threads(3, |replica| {
        let mine = if replica.rank() == 1 { f64::NAN } else { 2.0 };
        replica.sum(mine).expect("a sum").is_nan()
    });
    assert_eq!(found, [true; 3]);
}

#[test]
fn a_replica_that_panics_ends_all() {
    let place = Place::new();
    let panicking = |rank: usize, step: u64| -> train::Result<()> {
        assert!(rank != 1 || step != 2, "replica 1 panics, as it should here");
        Ok(())
    };
    let run = || place.try_run("panics", 2, None, &panicking);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    assert!(caught.is_err());
}

#[test]
fn shares_are_all_rows_once_and_pairs_stay_whole() {
    let place = Place::new();
    let plan = place.plan("shares", 1);
    let batch = plan.stages[0].dataset.batch(0);
    let seen = Mutex::new(Vec::new());
    for world_size in 1..=4 {
        for (unit, rows) in [(1, 3), (1, 8), (2, 2), (2, 4)] {
            let (mut ids, mut numbers) = (Vec::new(), Vec::new());
            for rank in 0..world_size {
                for (number, micro) in
                    batch.micro_batches_of(Share { rank, world_size }, unit, rows)
                {
                    assert!(micro.rows <= rows && micro.rows % unit == 0);
                    ids.extend(micro.ids);
                    numbers.push(number);
                }
            }
            assert_eq!(ids, batch.ids, "{world_size} shares in units of {unit}");
            assert!(numbers.iter().copied().eq(0..numbers.len()), "{numbers:?}");
            seen.lock().expect("a lock").push(numbers.len());
        }
    }
    let whole: Vec<usize> =
        batch.micro_batches_of(Share::WHOLE, 1, 3).map(|(_, micro)| micro.rows).collect();
    assert_eq!(whole, batch.micro_batches(3).map(|micro| micro.rows).collect::<Vec<_>>());
}
