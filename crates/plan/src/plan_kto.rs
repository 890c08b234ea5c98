//! The plan of a KTO stage beyond its data: the number of texts to evaluate, and the balance of labels.

use data::{Dataset, LabelCounts};
use recipe::Loaded;

use crate::cost::n_reference;
use crate::stage::KtoPlan;
use crate::{Error, Result};

/// Range of the ratio of the weighted numbers of desirable and undesirable rows that the paper recommends (Ethayarajh et al.
/// 2024, equation 8).
const BALANCE: [f64; 2] = [1.0, 4.0 / 3.0];

/// Counts the texts that the stage evaluates, and returns notes on its labels.
///
/// # Errors
/// All rows have the same label.
pub(crate) fn complete(
    loaded: &Loaded,
    name: &str,
    kto: &mut KtoPlan,
    dataset: &Dataset,
) -> Result<Vec<String>> {
    let LabelCounts { desirable, undesirable } = dataset.counts().labels.unwrap_or_default();
    let missing = match (desirable, undesirable) {
        (0, _) => Some("desirable (`label` true)"),
        (_, 0) => Some("undesirable (`label` false)"),
        (_, _) => None,
    };
    if let Some(missing) = missing {
        let n = desirable + undesirable;
        return Err(Error::Recipe(loaded.spans.error(
            &format!("{name}.data"),
            format!("none of the {n} training rows is {missing}"),
            "KTO compares rows of both labels",
            Some("add rows of the other label, or fine-tune with [sft]".to_owned()),
        )));
    }
    let n_rows = n_reference(dataset, kto.section.train.eval.as_ref());
    let reads_kl = kto.section.loss.reads_kl();
    if reads_kl {
        let n_validation = n_rows - dataset.n_run_rows().min(dataset.counts().train_samples);
        // Each step combines other rows, also those of a later epoch.
        kto.n_kl_rows = dataset.n_run_rows();
        kto.n_reference_rows = n_rows + dataset.n_run_rows() + n_validation;
    } else {
        kto.n_reference_rows = n_rows;
    }
    Ok(vec![balance(kto, desirable, undesirable)])
}

/// The numbers of rows by label, with advice on weights where the labels are out of balance.
fn balance(kto: &KtoPlan, desirable: u64, undesirable: u64) -> String {
    let (of_desirable, of_undesirable) =
        (kto.section.desirable_weight, kto.section.undesirable_weight);
    let ratio = of_desirable * desirable as f64 / (of_undesirable * undesirable as f64);
    let mut note = format!(
        "{desirable} desirable rows × weight {of_desirable} and {undesirable} undesirable rows × weight \
         {of_undesirable}: ratio {ratio:.2}"
    );
    let [low, high] = BALANCE;
    if ratio < low || ratio > high {
        let (key, from, to) = if ratio < low {
            let weight =
                |ratio: f64| ratio * of_undesirable * undesirable as f64 / desirable as f64;
            ("desirable_weight", weight(low), weight(high))
        } else {
            let weight =
                |ratio: f64| of_desirable * desirable as f64 / (ratio * undesirable as f64);
            ("undesirable_weight", weight(high), weight(low))
        };
        // Rounded inwards, so that advice that was followed is not repeated.
        let (from, to) = ((100.0 * from).ceil() / 100.0, (100.0 * to).floor() / 100.0);
        note += &format!(
            "; the KTO paper recommends 1 to 1.33: set `{key}` between {from:.2} and {to:.2}"
        );
    }
    note
}
