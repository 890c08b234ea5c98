//! A text's score is its own: alone, beside longer ones, and with a padding token that is also its end
//! (transformers#35352, LlamaFactory#689).

use burn::tensor::Device;
use data::Batch;
use testkit::{ByteIds, Tolerance, assert_close};

use crate::support::{scorer, scores, scores_of};

fn texts() -> Vec<Vec<u32>> {
    let end = ByteIds::END_OF_TEXT;
    // The end token also occurs inside, as in a chat of several turns.
    let chat = [ByteIds::encode("hi"), vec![end], ByteIds::encode("you"), vec![end]].concat();
    let long = [ByteIds::encode("a much longer text than that"), vec![end]].concat();
    vec![chat, long, vec![end], ByteIds::encode("no end")]
}

#[test]
fn a_score_is_the_same_alone_in_a_batch_and_with_any_padding() {
    let model = scorer(&Device::flex());
    let alone: Vec<f32> = texts()
        .iter()
        .flat_map(|text| scores(&model, std::slice::from_ref(text), ByteIds::PAD))
        .collect();
    for pad in [ByteIds::PAD, ByteIds::END_OF_TEXT, 0] {
        let together = scores(&model, &texts(), pad);
        assert_close("scores", &together, &alone, Tolerance::absolute(1e-6));
    }
    let reversed: Vec<Vec<u32>> = texts().into_iter().rev().collect();
    let mut backwards = scores(&model, &reversed, ByteIds::END_OF_TEXT);
    backwards.reverse();
    assert_close("scores", &backwards, &alone, Tolerance::absolute(1e-6));
    assert!((alone[0] - alone[2]).abs() > 1e-4, "different texts have different scores");
}

#[test]
fn leaving_shared_padding_out_changes_no_score() {
    let model = scorer(&Device::flex());
    let wide = Batch::of_texts(&texts(), ByteIds::END_OF_TEXT);
    // Without the longest text, half of each row is padding that no row needs.
    let narrow = wide.micro_batches(1).next().expect("a row");
    assert_eq!(narrow.lengths(), [7]);
    let trimmed = narrow.trimmed();
    assert_eq!((trimmed.sequence_length, trimmed.lengths()), (7, vec![7]));
    assert_eq!(trimmed.ids, texts()[0]);
    let (before, after) = (scores_of(&model, &narrow), scores_of(&model, &trimmed));
    assert_close("scores", &after, &before, Tolerance::absolute(1e-6));
}
