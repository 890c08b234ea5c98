//! Exports with proof: files are written, read back, compared with the model in memory, and only then get their names.

use std::path::Path;

use arch::{Dtype, ModelInfo};
use evaluate::proof::{PROOF_FILE, Proven, ProvenModel, Rounding, SourceAnswers, compare_weights};
use export::{Options, PendingGguf};
use fsio::{DirWriter, Manifest};
use gguf::FileType;
use model::CausalLm;
use serde_json::Value;
use tokenizer::Tokenizer;

use super::print_summary;
use crate::failure::{Failure, Result};
use crate::model_card::{CARD_FILE, ModelCard, name_of};
use crate::render::table;

/// Writes a Hugging Face directory with its proof.
pub(crate) fn write_directory<M: ProvenModel>(
    model: M,
    tokenizer: &Tokenizer,
    options: &Options,
    card: &ModelCard,
    to: &Path,
) -> Result<()> {
    let rounding = Rounding::Directory(options.dtype);
    let written = kernels::on_pool(|| {
        let mut dir = DirWriter::begin(to)?;
        export::write_files(&mut dir, &model, tokenizer, options)?;
        compare_weights(&model, dir.tmp_dir(), rounding)?;
        let source = SourceAnswers::of(&model, tokenizer, None)?;
        // A second copy of the weights is opened below.
        drop(model);
        let proven = source.prove::<M>(dir.tmp_dir(), rounding)?;
        commit(dir, card, proven)
    });
    report(written, to)
}

/// Writes an adapter's directory with its proof. `write` writes the adapter and its tokenizer; `base` is the model that the
/// proof is replayed on. The type of the factors is given with whether the base model was packed in training.
pub(crate) fn write_adapter<M: ProvenModel>(
    source: SourceAnswers,
    base: &Path,
    (dtype, is_packed): (Dtype, bool),
    card: &ModelCard,
    to: &Path,
    write: impl FnOnce(&mut DirWriter) -> Result<()>,
) -> Result<()> {
    let mut dir = DirWriter::begin(to)?;
    write(&mut dir)?;
    let written = kernels::on_pool(|| {
        let rounding = Rounding::Directory(dtype);
        let proven = source.prove_adapter::<M>(dir.tmp_dir(), base, rounding, is_packed)?;
        commit(dir, card, proven)
    });
    report(written, to)
}

/// Writes a GGUF file, with a Modelfile and the proof beside it.
pub(crate) fn write_gguf(
    model: CausalLm,
    tokenizer: &Tokenizer,
    file_type: FileType,
    to: &Path,
) -> Result<()> {
    let proof_path = to.with_extension("proof.json");
    if proof_path.exists() {
        return Err(Failure::input(
            format!("`{}` already exists", proof_path.display()),
            if to.exists() {
                "choose a new name; export overwrites nothing"
            } else {
                "it is the proof of a file that is not there: remove it, or choose a new name"
            },
        ));
    }
    let rounding = Rounding::Gguf(file_type);
    let (written, proven) = kernels::on_pool(|| {
        let mut file = PendingGguf::write(&model, tokenizer, file_type, to)?;
        let path = file.written()?.to_owned();
        compare_weights(&model, &path, rounding)?;
        let n_positions = ModelInfo::read(&path)?.config.max_positions();
        let source = SourceAnswers::of(&model, tokenizer, Some(n_positions))?;
        let source = source.with_logits(&model, rounding);
        drop(model);
        let proven = source.prove::<CausalLm>(&path, rounding)?;
        let proof = (proof_path, proven.proof.to_bytes());
        Ok::<_, Failure>((file.commit(Some(proof))?, proven))
    })?;
    print_summary(&format!("{}: {file_type}, {}\n", to.display(), table::bytes(written.n_bytes)));
    print_summary(&format!("{}: for `ollama create`\n", written.modelfile.display()));
    print_proof(&proven);
    Ok(())
}

fn commit(mut dir: DirWriter, card: &ModelCard, proven: Proven) -> Result<(Manifest, Proven)> {
    dir.write(PROOF_FILE, proven.proof.to_bytes())?;
    dir.write(CARD_FILE, card.text(&name_of(dir.final_dir()), &proven.proof))?;
    Ok((dir.commit(Value::Null)?, proven))
}

fn report(written: Result<(Manifest, Proven)>, to: &Path) -> Result<()> {
    let (manifest, proven) = written?;
    let size = manifest.files.values().map(|file| file.bytes).sum();
    let n_files = manifest.files.len();
    print_summary(&format!("{}: {n_files} files, {}\n", to.display(), table::bytes(size)));
    print_proof(&proven);
    Ok(())
}

/// The distance of the written model from its source.
fn print_proof(proven: &Proven) {
    let n = proven.proof.prompts.len();
    let values = match proven.proof.output {
        evaluate::proof::Output::Logits => "logits",
        evaluate::proof::Output::Scores => "scores",
    };
    if proven.moved.is_nan() {
        print_summary(&format!("read back: answers to {n} prompts are stored\n"));
        return;
    }
    if let Some(found) = proven.proof.from_source {
        print_summary(&format!(
            "read back: on {n} prompts logits within {:.1e} of the source, KL divergence {:.1e} nats per token ({})\n",
            found.largest_logit_difference, found.kl_nats_per_token, proven.proof.weights
        ));
        return;
    }
    print_summary(&format!(
        "read back: {values} on {n} prompts within {:.1e} of the source ({})\n",
        proven.moved, proven.proof.weights
    ));
}
