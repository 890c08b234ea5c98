//! Directories of weights: one file or shards, and the division into shards.

use std::collections::BTreeMap;

use arch::Dtype;
use tensor_file::{
    INDEX_FILE, TensorDir, TensorView, WEIGHTS_FILE, index_json, shard_name, split_by_bytes,
};

use crate::write;

#[test]
fn tensors_are_found_in_one_file_and_in_shards() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = (shard_name(0, 2), shard_name(1, 2));
    assert_eq!(a, "model-00001-of-00002.safetensors");
    write(&dir.path().join(&a), &[("x", &[2], &[1.0, 2.0])], Dtype::Bf16);
    write(&dir.path().join(&b), &[("y", &[1], &[3.0])], Dtype::F32);
    let index = index_json(&BTreeMap::from([("x", a), ("y", b)]), 3, 8);
    std::fs::write(dir.path().join(INDEX_FILE), index).expect("a file");
    let open = TensorDir::open(dir.path()).expect("the shards");
    assert_eq!(open.names().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(open.path(), dir.path());
    assert_eq!(open.tensor("x").and_then(TensorView::weights).expect("values"), [1.0, 2.0]);
    assert_eq!(open.tensor("y").and_then(TensorView::weights).expect("values"), [3.0]);
    assert!(open.tensor("z").expect_err("an error").to_string().ends_with("tensor missing: `z`"));

    // A whole file is used before shards.
    let whole = dir.path().join(WEIGHTS_FILE);
    write(&whole, &[("w", &[1], &[4.0])], Dtype::F16);
    let open = TensorDir::open(dir.path()).expect("the file");
    assert_eq!(open.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(open.path(), whole);
}

#[test]
fn shards_are_runs_of_at_most_so_many_bytes() {
    let split = |bytes: &[u64], max| -> Vec<(usize, usize)> {
        split_by_bytes(bytes, max).into_iter().map(|run| (run.start, run.end)).collect()
    };
    assert_eq!(split(&[4, 4, 4], 12), [(0, 3)]);
    assert_eq!(split(&[4, 4, 4], 11), [(0, 2), (2, 3)]);
    assert_eq!(split(&[4, 40, 4], 8), [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(split(&[40, 1, 1], 8), [(0, 1), (1, 3)]);
    assert_eq!(split(&[], 8), [(0, 0)]);
}
