//! Record framing of LevelDB's log, in which Weights & Biases stores a run: blocks of 32 KiB, and records that are split at
//! their borders, each part with a CRC-32.

const BLOCK: usize = 32 * 1024;
/// CRC-32, length and type of a part.
const HEADER: usize = 7;
/// Before the first record: a name, a magic number and a version.
pub(crate) const FILE_HEADER: [u8; 7] = *b":W&B\xe1\xbe\x00";

/// Types of parts.
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Appends a record to `out`, whose first byte is at `offset` of the file.
pub(crate) fn append_record(out: &mut Vec<u8>, offset: u64, record: &[u8]) {
    let start = out.len();
    let (mut rest, mut is_first) = (record, true);
    loop {
        let place = ((offset + (out.len() - start) as u64) % BLOCK as u64) as usize;
        let mut room = BLOCK - place;
        if room < HEADER {
            out.extend(std::iter::repeat_n(0, room));
            room = BLOCK;
        }
        let (part, after) = rest.split_at(rest.len().min(room - HEADER));
        let kind = match (is_first, after.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, true) => LAST,
            (false, false) => MIDDLE,
        };
        out.extend(crc32(kind, part).to_le_bytes());
        out.extend((part.len() as u16).to_le_bytes());
        out.push(kind);
        out.extend(part);
        (rest, is_first) = (after, false);
        if rest.is_empty() {
            return;
        }
    }
}

/// The records of a file, up to the first that is damaged or torn.
pub(crate) fn records(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut records, mut whole) = (Vec::new(), Vec::new());
    let mut place = FILE_HEADER.len();
    if file.get(..place) != Some(&FILE_HEADER) {
        return records;
    }
    while let Some(left) = file.get(place..).filter(|left| !left.is_empty()) {
        let room = BLOCK - place % BLOCK;
        if room < HEADER {
            place += room;
            continue;
        }
        let Some((kind, part)) = read_part(left).filter(|(_, part)| part.len() + HEADER <= room)
        else {
            return records;
        };
        if matches!(kind, FULL | FIRST) {
            whole.clear();
        }
        whole.extend_from_slice(part);
        if matches!(kind, FULL | LAST) {
            records.push(std::mem::take(&mut whole));
        }
        place += HEADER + part.len();
    }
    records
}

/// The part at the beginning of these bytes, with its type; `None` if it is torn or its checksum differs.
fn read_part(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (kind, rest) = rest.split_first()?;
    let part = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    (u32::from_le_bytes(*crc) == crc32(*kind, part)).then_some((*kind, part))
}

/// CRC-32 (polynomial 0x04C11DB7, reflected) of a part with its type.
fn crc32(kind: u8, part: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in std::iter::once(&kind).chain(part) {
        let index = (crc ^ u32::from(*byte)) as u8;
        crc = crc >> 8 ^ TABLE.get(usize::from(index)).copied().unwrap_or_default();
    }
    !crc
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut idx = 0;
    while idx < 256 {
        let (mut crc, mut bit) = (idx as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[idx] = crc;
        idx += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_at_the_borders_of_blocks() {
        let lengths = [1, 5, 32_700, 13, 7, 100_000, 32_768 - 14, 3, 32_761, 1];
        let wanted: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(idx, n)| vec![idx as u8 + 1; *n]).collect();
        // Written at once, and one by one.
        let mut whole = FILE_HEADER.to_vec();
        let mut file = FILE_HEADER.to_vec();
        for record in &wanted {
            let mut end = Vec::new();
            append_record(&mut end, file.len() as u64, record);
            file.extend(end);
            let start = whole.len() as u64;
            append_record(&mut whole, start, record);
        }
        assert_eq!(records(&file), wanted);
        assert!(file == whole);
        // Torn and damaged files end early.
        assert_eq!(records(&file[..file.len() - 1]).len(), wanted.len() - 1);
        file[10] ^= 1;
        assert!(records(&file).is_empty() && records(b"").is_empty() && records(b"x").is_empty());
        // The check value of CRC-32: that of the digits 1 to 9.
        assert_eq!(crc32(b'1', b"23456789"), 0xcbf4_3926);
    }
}
