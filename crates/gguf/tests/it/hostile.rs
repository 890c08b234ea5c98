//! Headers that lie: each is refused with a message that names the lie, before memory is reserved.

use gguf::{Array, GgufFile, GgufWriter, TensorSpec, TensorType, Value, limits};

use crate::support::file;

/// A small valid file: one key, one tensor of 64 f32 values.
fn valid(metadata: &[(String, Value)]) -> Vec<u8> {
    let spec = TensorSpec { name: "t".to_owned(), shape: vec![2, 32], ty: TensorType::F32 };
    let mut bytes = Vec::new();
    let mut writer = GgufWriter::begin(&mut bytes, metadata, vec![spec]).unwrap();
    writer.tensor("t", &[1.0; 64]).unwrap();
    writer.finish().unwrap();
    bytes
}

fn key(name: &str, value: Value) -> Vec<(String, Value)> {
    vec![(name.to_owned(), value)]
}

/// The message of opening these bytes, without the path.
fn refusal(bytes: &[u8]) -> String {
    let (_dir, path) = file(bytes);
    let Err(error) = GgufFile::open(&path) else { panic!("the file was accepted") };
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error} has no hint");
    let message = error.to_string();
    let message = message.strip_prefix(&format!("{}: ", path.display())).expect("the path");
    message.strip_prefix("not a valid GGUF file: ").unwrap_or(message).to_owned()
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Position of the first occurrence of `needle`.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).expect("the needle")
}

#[test]
fn the_valid_file_opens() {
    let (_dir, path) = file(&valid(&key("k", Value::U8(1))));
    let opened = GgufFile::open(&path).unwrap();
    assert_eq!(opened.read("t").unwrap(), vec![1.0; 64]);
}

#[test]
fn wrong_starts() {
    assert_eq!(refusal(b""), "the file ends within its header");
    assert_eq!(refusal(b"GGML\x03\0\0\0"), "it does not start with `GGUF`");
    let with_version = |version: u32| {
        let mut bytes = valid(&[]);
        put(&mut bytes, 4, &version.to_le_bytes());
        refusal(&bytes)
    };
    assert_eq!(with_version(1), "GGUF version `1` is not supported");
    assert_eq!(with_version(4), "GGUF version `4` is not supported");
    assert_eq!(with_version(3_u32.swap_bytes()), "the file is big-endian");
}

#[test]
fn counts_that_the_file_cannot_hold() {
    let with = |at: usize, count: u64| {
        let mut bytes = valid(&key("k", Value::strings(["x"])));
        put(&mut bytes, at, &count.to_le_bytes());
        refusal(&bytes)
    };
    assert_eq!(with(8, u64::MAX), format!("`{}` tensors, the limit is 1048576", u64::MAX));
    assert_eq!(with(8, 1000), "number of tensors: `1000`, more than the header can hold");
    assert_eq!(with(16, u64::MAX), format!("`{}` metadata keys, the limit is 65536", u64::MAX));
    assert_eq!(with(16, 60_000), "number of metadata keys: `60000`, more than the header can hold");
    // The key's length, then the array's length, then the element's length.
    assert_eq!(
        with(24, 1 << 60),
        format!("a metadata key has `{}` bytes, the limit is 512", 1_u64 << 60)
    );
    let n = 24 + 8 + 1 + 4 + 4;
    assert_eq!(
        with(n, u64::MAX),
        format!("length of `k`: `{}`, more than the header can hold", u64::MAX)
    );
    assert_eq!(with(n, 1 << 40), "length of `k`: `1099511627776`, more than the header can hold");
    let limit = limits::STRING_BYTES;
    assert_eq!(
        with(n + 8, 1 << 40),
        format!("an element of `k` has `1099511627776` bytes, the limit is {limit}")
    );
    assert_eq!(
        with(n + 8, limit),
        format!("an element of `k`: `{limit}`, more than the header can hold")
    );
}

#[test]
fn values_of_unknown_or_wrong_types() {
    let mut bytes = valid(&key("k", Value::Bool(true)));
    let at = 24 + 8 + 1;
    put(&mut bytes, at + 4, &[2]);
    assert_eq!(refusal(&bytes), "`k` is neither true nor false: `2`");
    put(&mut bytes, at, &13_u32.to_le_bytes());
    assert_eq!(refusal(&bytes), "`k` has the unknown value type `13`");
    let mut bytes = valid(&key("k", Value::Array(Array::U8(vec![1]))));
    put(&mut bytes, at + 4, &9_u32.to_le_bytes());
    assert_eq!(refusal(&bytes), "`k` is an array of the unsupported value type `9`");
    let mut bytes = valid(&key("k", Value::string("xy")));
    put(&mut bytes, at + 12, b"\xff\xfe");
    assert_eq!(refusal(&bytes), "value of `k` is not valid UTF-8");
    let twice = [key("k", Value::U8(1)), key("k", Value::U8(2))].concat();
    assert_eq!(refusal(&valid(&twice)), "metadata key `k` occurs twice");
    let split = refusal(&valid(&key("split.count", Value::U16(3))));
    assert_eq!(split, "the model is split into `3` files");
    let alignment = |n: u32| refusal(&valid(&key("general.alignment", Value::U32(n))));
    assert_eq!(alignment(0), "`general.alignment` must be a power of two up to 1048576: `0`");
    assert_eq!(alignment(48), "`general.alignment` must be a power of two up to 1048576: `48`");
}

#[test]
fn tensors_that_lie() {
    // The name `t` and its length, then axes, two sizes, type and offset.
    let row = |edit: &dyn Fn(&mut [u8])| {
        let mut bytes = valid(&[]);
        let at = find(&bytes, b"\x01\0\0\0\0\0\0\0t") + 9;
        edit(&mut bytes[at..]);
        refusal(&bytes)
    };
    let axes = |n: u32| row(&|b| put(b, 0, &n.to_le_bytes()));
    assert_eq!(axes(0), "tensor `t` has `0` axes; 1 to 4 are supported");
    assert_eq!(axes(9), "tensor `t` has `9` axes; 1 to 4 are supported");
    let size = |n: u64| row(&|b| put(b, 4, &n.to_le_bytes()));
    assert_eq!(size(0), "tensor `t` has the impossible sizes `[0, 2]`");
    assert_eq!(
        size(1 << 62),
        format!("tensor `t` has the impossible sizes `[{}, 2]`", 1_u64 << 62)
    );
    assert_eq!(size(1 << 38), "the data of tensor `t` reaches past the end");
    let ty = |n: u32| row(&|b| put(b, 20, &n.to_le_bytes()));
    assert_eq!(ty(16), "tensor `t` is stored as `IQ2_XXS`");
    assert_eq!(ty(77), "tensor `t` is stored as `type 77`");
    assert_eq!(ty(12), "rows of tensor `t` are not whole blocks of Q4_K: `32` elements");
    let offset = |n: u64| row(&|b| put(b, 24, &n.to_le_bytes()));
    assert_eq!(offset(16), "tensor `t` starts at `16`, which is no multiple of 32");
    assert_eq!(offset(32), "the data of tensor `t` reaches past the end");
    assert_eq!(offset(u64::MAX - 31), "the data of tensor `t` reaches past the end");
}

#[test]
fn tensors_that_share_a_name_or_data() {
    let spec =
        |name: &str| TensorSpec { name: name.to_owned(), shape: vec![32], ty: TensorType::F32 };
    let two = |second: &str| {
        let mut bytes = Vec::new();
        let mut writer =
            GgufWriter::begin(&mut bytes, &[], vec![spec("one"), spec(second)]).unwrap();
        writer.tensor("one", &[0.0; 32]).unwrap();
        writer.tensor(second, &[0.0; 32]).unwrap();
        writer.finish().unwrap();
        bytes
    };
    assert_eq!(refusal(&two("one")), "tensor `one` occurs twice");
    let mut bytes = two("two");
    let at = find(&bytes, b"two") + 3 + 4 + 8 + 4;
    put(&mut bytes, at, &64_u64.to_le_bytes());
    assert_eq!(refusal(&bytes), "tensors `one` and `two` overlap");
}

#[test]
fn a_file_that_ends_early() {
    let bytes = valid(&key("k", Value::string("text")));
    for n in 0..bytes.len() {
        refusal(&bytes[..n]);
    }
}

#[test]
fn weights_that_are_not_finite() {
    let mut bytes = valid(&[]);
    let n = bytes.len();
    put(&mut bytes, n - 4, &f32::NAN.to_le_bytes());
    let (_dir, path) = file(&bytes);
    let error = GgufFile::open(&path).unwrap().read("t").unwrap_err();
    assert!(error.to_string().ends_with("tensor `t` contains `NaN` at index 63"), "{error}");
}
