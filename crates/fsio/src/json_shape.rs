//! The shape of a JSON text, read before it is parsed: a parsed text can take a hundred times its bytes.

/// Depth and memory of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonShape {
    /// Maximum nesting depth of brackets outside of strings.
    pub depth: usize,
    /// Bytes that values, lists, objects and keys take, roughly, without their texts.
    pub memory: usize,
}

/// Reads the shape of a JSON text without parsing it.
pub fn json_shape(bytes: &[u8]) -> JsonShape {
    const VALUE: usize = 32;
    const CONTAINER: usize = 64;
    const KEY: usize = 64;
    let (mut depth, mut deepest, mut memory) = (0_usize, 0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
                memory += CONTAINER;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => memory += VALUE,
            b':' => memory += KEY,
            _ => {}
        }
    }
    JsonShape { depth: deepest, memory }
}
