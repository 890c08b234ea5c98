//! Files of other writers, read by path: they are not in the repository.

use std::path::{Path, PathBuf};

use tensor_file::{StoredDtype, TensorFile};

/// A directory of the development data, if it is on this machine.
fn shared(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let data = std::env::var_os("TEMPER_DATA").unwrap_or_else(|| default.into());
    let dir = Path::new(&data).join(name);
    if !dir.is_dir() {
        #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
        {
            println!("skipped: no {}; set TEMPER_DATA to the data directory", dir.display());
        }
        return None;
    }
    Some(dir)
}

/// The verdicts of the reference implementation: `ok`, or the name of its error.
#[test]
fn odd_and_hostile_headers() {
    let Some(dir) = shared("conformance/safetensors-headers") else { return };
    let text = std::fs::read_to_string(dir.join("expected.json")).expect("verdicts");
    let verdicts: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let verdicts = verdicts.as_object().expect("an object");
    assert_eq!(verdicts.len(), 14);
    for (name, verdict) in verdicts {
        let path = dir.join(name);
        for opened in [TensorFile::open(&path), TensorFile::map(&path)] {
            match (verdict.as_str(), opened) {
                (Some("ok"), opened) => {
                    drop(opened.unwrap_or_else(|error| panic!("{name}: {error}")));
                }
                (_, opened) => assert!(opened.is_err(), "{name} was read"),
            }
        }
    }
}

#[test]
fn fixtures_of_other_writers() {
    let Some(dir) = shared("models/safetensors") else { return };
    let cases = [
        ("burn-multi_layer.safetensors", StoredDtype::F32),
        ("candle-jfk-codes.safetensors", StoredDtype::I64),
        ("tensor-1d-int32.safetensors", StoredDtype::I32),
        ("tensor-2d-float64.safetensors", StoredDtype::F64),
        ("tensor-3d-float32.safetensors", StoredDtype::F32),
        ("tensor-4d-float32.safetensors", StoredDtype::F32),
    ];
    for (name, dtype) in cases {
        let file = TensorFile::open(&dir.join(name)).expect(name);
        assert!(file.n_tensors() > 0, "{name}");
        let dtypes: Vec<_> = file.tensors().map(tensor_file::TensorView::dtype).collect();
        assert!(dtypes.contains(&Some(dtype)), "{name}: {dtypes:?}");
    }
}
