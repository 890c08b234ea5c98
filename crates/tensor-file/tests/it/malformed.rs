//! Malformed headers are refused, each with its message, before any tensor is read.

use tensor_file::{TensorFile, TensorView};

use crate::temporary;

fn error_of(bytes: &[u8]) -> String {
    let (_dir, path) = temporary("x.safetensors");
    std::fs::write(&path, bytes).expect("a file");
    let error = TensorFile::open(&path).expect_err("an error");
    assert!(error.hint().is_some(), "{error}");
    error.to_string().replace(&path.display().to_string(), "FILE")
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn malformed_headers_are_refused() {
    let tensor = |start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":[{start},{end}]}}"#)
    };
    for (header, data, message) in [
        ("[]".to_owned(), 0, "invalid type: sequence, expected an object of tensors"),
        (format!(r#"{{"a":{0},"a":{0}}}"#, tensor(0, 4)), 4, "tensor `a` is listed twice"),
        (
            format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 4), tensor(2, 6)),
            6,
            "does not start where another ends",
        ),
        (
            format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 4), tensor(8, 12)),
            12,
            "does not start where another ends",
        ),
        (format!(r#"{{"a":{}}}"#, tensor(4, 0)), 4, "tensor `a` ends before it starts"),
        (format!(r#"{{"a":{}}}"#, tensor(0, 8)), 8, "tensor `a` has 8 bytes for shape [1] of F32"),
        (
            format!(r#"{{"a":{}}}"#, tensor(u64::MAX - 4, u64::MAX)),
            4,
            "bytes before tensor `a` does",
        ),
        (
            r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,4]}}"#.to_owned(),
            4,
            "tensor `a` has 4 bytes for shape [1] of I64",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#
                .to_owned(),
            0,
            "tensor `a` is larger than any memory",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.to_owned(),
            4,
            "the header is not valid",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#.to_owned(),
            4,
            "unknown field `x`",
        ),
        ("[".repeat(100_000), 0, "the header is not valid"),
        (r#"{"a":"#.repeat(50_000), 0, "the header is not valid"),
        (r#"{"__metadata__":"#.repeat(50_000), 0, "the header is not valid"),
    ] {
        let error = error_of(&with_header(&header, &vec![0; data]));
        assert!(error.contains(message), "{error}");
    }
}

/// A tensor in a dtype that is not known matters only if it is read.
#[test]
fn unknown_dtypes_do_not_stop_the_others() {
    let header = r#"{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},
        "b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let (_dir, path) = temporary("x.safetensors");
    std::fs::write(&path, with_header(header, &[0; 8])).expect("a file");
    let file = TensorFile::open(&path).expect("the file");
    assert_eq!(file.tensor("b").and_then(TensorView::weights).expect("values"), [0.0]);
    let a = file.tensor("a").expect("a tensor");
    assert_eq!((a.dtype(), a.stored_as(), a.n_bytes()), (None, "F8_E4M3", 4));
    let error = a.weights().expect_err("an error").to_string();
    assert!(error.ends_with("tensor `a` is stored as `F8_E4M3`, not F32, BF16 or F16"), "{error}");
}

#[test]
fn truncated_and_extended_files_are_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let bytes = with_header(header, &[0; 8]);
    for length in 0..bytes.len() {
        assert!(error_of(&bytes[..length]).starts_with("FILE: "), "{length}");
    }
    assert_eq!(error_of(&bytes[..7]), "FILE: too short to be a safetensors file");
    assert_eq!(error_of(&bytes[..20]), "FILE: the file ends within its header");
    assert_eq!(
        error_of(&bytes[..bytes.len() - 1]),
        "FILE: the file ends 1 bytes before tensor `a` does"
    );
    assert_eq!(
        error_of(&[&bytes[..], &[0]].concat()),
        "FILE: 1 bytes at the end belong to no tensor"
    );
}

#[test]
fn a_header_longer_than_the_limit_is_not_read() {
    for length in [u64::MAX, 1 << 25, (16 << 20) + 1] {
        assert_eq!(
            error_of(&length.to_le_bytes()),
            format!("FILE: the header is longer than 16777216 bytes: `{length}`")
        );
    }
    assert_eq!(error_of(&(16_u64 << 20).to_le_bytes()), "FILE: the file ends within its header");
}
