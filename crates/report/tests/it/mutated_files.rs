//! Files of a run with random changes: the page is always written, and no text of theirs becomes markup.

use std::path::{Path, PathBuf};

use report::{RunData, page};

use crate::support::Copy;

/// Changes of each file.
const N_CHANGES: usize = 12;

/// Numbers that look random (Knuth's MMIX generator), the same in every run of the test.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Pieces that a reader could stumble over.
const PIECES: [&[u8]; 10] = [
    b"<script>",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"18446744073709551615",
    b"null",
    b"[[[[[[[[",
    b"\xff\x00",
    b"\n",
    b"\"step\":0,",
];

fn changed(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(bytes.len());
        match numbers.below(4) {
            0 => bytes.truncate(at),
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
            2 => {
                let end = (at + 1 + numbers.below(12)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            _ => {
                let piece = PIECES.get(numbers.below(PIECES.len())).copied().unwrap_or_default();
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), out);
        } else {
            out.push(entry.path());
        }
    }
}

#[test]
fn every_change_of_a_file_leaves_a_page() {
    let copy = Copy::new();
    let mut paths = Vec::new();
    files(&copy.path(), &mut paths);
    paths.sort();
    assert!(paths.len() > 10, "the fixture was not found");
    let mut numbers = Numbers(7);
    for path in paths {
        let original = std::fs::read(&path).expect("a file");
        for _ in 0..N_CHANGES {
            fsio::write_atomic(&path, changed(&original, &mut numbers)).expect("written");
            let run = RunData::read(&copy.path()).expect("the other files remain");
            let page = page(&run);
            assert!(page.ends_with("</html>\n") && !page.contains("<script"), "{}", path.display());
        }
        fsio::write_atomic(&path, &original).expect("written");
    }
}
