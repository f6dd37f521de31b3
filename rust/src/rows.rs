//! A line as a row of the store: cells in msgpack, entry hash, checksum. `python/ipss_headend/store/records.py` defines
//! it; the vector in the tests is the same there.

use blake2::digest::consts::U8;
use blake2::{Blake2b, Digest};
use ipss_session::batch::kind;
use ipss_session::{Batch, Line, WallTime};

/// Goes through the lines' values in order.
pub struct Walk<'a> {
    batch: &'a Batch,
    line: usize,
    value: usize,
    raw: usize,
}

impl<'a> Walk<'a> {
    /// At the first line.
    pub fn new(batch: &'a Batch) -> Self {
        Self { batch, line: 0, value: 0, raw: 0 }
    }

    /// The next line's values, and the number of its first raw one.
    pub fn next_line(&mut self) -> (std::ops::Range<usize>, usize) {
        let end = self.batch.line_ends[self.line] as usize;
        let values = self.value..end;
        let raw = self.raw;
        self.raw += self.batch.kinds[values.clone()].iter().filter(|kind| **kind == kind::RAW).count();
        self.line += 1;
        self.value = end;
        (values, raw)
    }

    /// Append the next line's values as a msgpack array.
    pub fn pack_next(&mut self, out: &mut Vec<u8>) {
        let (values, mut raw) = self.next_line();
        match values.len() {
            count @ 0..=15 => out.push(0x90 | count as u8),
            count @ 16..=0xFFFF => {
                out.push(0xDC);
                out.extend_from_slice(&(count as u16).to_be_bytes());
            }
            count => {
                out.push(0xDD);
                out.extend_from_slice(&(count as u32).to_be_bytes());
            }
        }
        for value in values {
            match self.batch.kinds[value] {
                kind::INTEGER => pack_integer(self.batch.integers[value], out),
                kind::RAW => {
                    pack_octets(raw_octets(self.batch, raw), out);
                    raw += 1;
                }
                _ => out.push(0xC0),
            }
        }
    }
}

/// The octets of raw value `index` of the batch.
pub fn raw_octets(batch: &Batch, index: usize) -> &[u8] {
    let start = if index == 0 { 0 } else { batch.raw_ends[index - 1] as usize };
    &batch.raw[start..batch.raw_ends[index] as usize]
}

/// An integer in its shortest msgpack form: the entry hash is over these octets.
fn pack_integer(integer: i64, out: &mut Vec<u8>) {
    match integer {
        0..=0x7F => out.push(integer as u8),
        0x80..=0xFF => out.extend_from_slice(&[0xCC, integer as u8]),
        0x100..=0xFFFF => {
            out.push(0xCD);
            out.extend_from_slice(&(integer as u16).to_be_bytes());
        }
        0x1_0000..=0xFFFF_FFFF => {
            out.push(0xCE);
            out.extend_from_slice(&(integer as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xCF);
            out.extend_from_slice(&(integer as u64).to_be_bytes());
        }
        -0x20..=-1 => out.push(integer as u8),
        -0x80..=-0x21 => out.extend_from_slice(&[0xD0, integer as u8]),
        -0x8000..=-0x81 => {
            out.push(0xD1);
            out.extend_from_slice(&(integer as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xD2);
            out.extend_from_slice(&(integer as i32).to_be_bytes());
        }
        _ => {
            out.push(0xD3);
            out.extend_from_slice(&integer.to_be_bytes());
        }
    }
}

fn pack_octets(octets: &[u8], out: &mut Vec<u8>) {
    match octets.len() {
        length @ 0..=0xFF => out.extend_from_slice(&[0xC4, length as u8]),
        length @ 0x100..=0xFFFF => {
            out.push(0xC5);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xC6);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(octets);
}

/// What a row says beside its line and its cells.
pub struct Head {
    /// Microseconds of UTC; the time of receipt if the meter gave none.
    pub capture_time: i64,
    /// Tells two lines of one moment apart.
    pub hash: i64,
    /// What to know before using it.
    pub quality: u32,
    /// Over all of the row.
    pub crc: u32,
}

/// The head of the row for a line with these cells, received then.
pub fn head(line: &Line, received_us: i64, cells: &[u8]) -> Head {
    let mut quality = 0;
    let mut capture_time = line.capture_time.0;
    if line.capture_time == WallTime::UNKNOWN {
        capture_time = received_us;
        quality |= quality::RECEIPT_TIME;
    }
    if line.clock_status != 0xFF && line.clock_status & 3 != 0 {
        quality |= quality::CLOCK_DOUBTFUL;
    }
    if !(quality::PAST_US..=received_us.saturating_add(quality::FUTURE_US)).contains(&capture_time) {
        quality |= quality::CLOCK_WRONG;
    }
    let mut digest = Blake2b::<U8>::new();
    digest.update(cells);
    digest.update(line.deviation.to_le_bytes());
    digest.update([line.clock_status]);
    let hash = i64::from_le_bytes(digest.finalize().into());
    let mut octets = [0; 39];
    octets[0..4].copy_from_slice(&line.meter.to_le_bytes());
    octets[4..8].copy_from_slice(&line.layout.to_le_bytes());
    octets[8..16].copy_from_slice(&capture_time.to_le_bytes());
    octets[16..24].copy_from_slice(&hash.to_le_bytes());
    octets[24..26].copy_from_slice(&line.deviation.to_le_bytes());
    octets[26] = line.clock_status;
    octets[27..35].copy_from_slice(&received_us.to_le_bytes());
    octets[35..39].copy_from_slice(&quality.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&octets);
    crc.update(cells);
    Head { capture_time, hash, quality, crc: crc.finalize() }
}

/// The quality bits of a row, as `ipss_headend.store.records.Quality` defines them.
mod quality {
    pub const RECEIPT_TIME: u32 = 1;
    pub const CLOCK_DOUBTFUL: u32 = 2;
    pub const CLOCK_WRONG: u32 = 4;
    /// A capture time more than a day ahead of its receipt is a wrong clock.
    pub const FUTURE_US: i64 = 86_400 * 1_000_000;
    /// So is one before 2000-01-01.
    pub const PAST_US: i64 = 946_684_800 * 1_000_000;
}

#[cfg(test)]
mod tests {
    use ipss_session::Cell;

    use super::*;

    fn line() -> Line {
        Line {
            meter: 7,
            request: 1,
            item: 0,
            layout: 3,
            capture_time: WallTime(1_767_225_600_000_000),
            deviation: -60,
            clock_status: 0,
        }
    }

    #[test]
    fn a_row_is_the_vector_of_the_stores_own_definition() {
        let mut batch = Batch::default();
        batch.push_line(line(), [Cell::Integer(12_345), Cell::Integer(-1), Cell::Null, Cell::Raw(&[9, 1, 0xFF])]);
        let mut cells = Vec::new();

        Walk::new(&batch).pack_next(&mut cells);
        let head = head(&batch.lines[0], 1_767_225_601_000_000, &cells);

        assert_eq!(cells, [0x94, 0xCD, 0x30, 0x39, 0xFF, 0xC0, 0xC4, 3, 9, 1, 0xFF]);
        assert_eq!(head.hash, 5_840_642_323_851_797_198);
        assert_eq!((head.crc, head.quality), (559_487_936, 0));
    }

    #[test]
    fn every_row_is_the_vector_that_the_store_is_tested_with() {
        let text = include_str!("../../tests/unit/store/row_vectors.json");
        let vectors: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 18);
        for vector in &vectors {
            let (given, row) = (&vector["line"], &vector["row"]);
            let line = Line {
                meter: given["meter"].as_u64().unwrap() as u32,
                layout: given["layout"].as_u64().unwrap() as u32,
                capture_time: WallTime(given["capture_time_us"].as_i64().unwrap()),
                deviation: given["deviation_min"].as_i64().unwrap() as i16,
                clock_status: given["clock_status"].as_u64().unwrap() as u8,
                ..line()
            };
            let octets: Vec<Vec<u8>> = given["cells"]
                .as_array()
                .unwrap()
                .iter()
                .map(|cell| unhex(cell["raw"].as_str().unwrap_or("")))
                .collect();
            let cells = given["cells"].as_array().unwrap().iter().zip(&octets).map(|(cell, raw)| match cell.as_i64() {
                Some(integer) => Cell::Integer(integer),
                None if cell.is_null() => Cell::Null,
                None => Cell::Raw(raw),
            });
            let mut batch = Batch::default();
            batch.push_line(line, cells);
            let mut packed = Vec::new();

            Walk::new(&batch).pack_next(&mut packed);
            let head = head(&line, vector["received_us"].as_i64().unwrap(), &packed);

            let name = &vector["name"];
            assert_eq!(packed, unhex(row[8].as_str().unwrap()), "{name}");
            assert_eq!(Some(head.capture_time), row[2].as_i64(), "{name}");
            assert_eq!(Some(head.hash), row[3].as_i64(), "{name}");
            assert_eq!(Some(u64::from(head.quality)), row[7].as_u64(), "{name}");
            assert_eq!(Some(u64::from(head.crc)), row[9].as_u64(), "{name}");
        }
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn integers_take_the_shortest_form() {
        let lengths = [
            (0, 1),
            (127, 1),
            (128, 2),
            (255, 2),
            (256, 3),
            (65_535, 3),
            (65_536, 5),
            (4_294_967_295, 5),
            (4_294_967_296, 9),
            (i64::MAX, 9),
            (-1, 1),
            (-32, 1),
            (-33, 2),
            (-128, 2),
            (-129, 3),
            (-32_768, 3),
            (-32_769, 5),
            (-2_147_483_648, 5),
            (-2_147_483_649, 9),
            (i64::MIN, 9),
        ];
        for (integer, length) in lengths {
            let mut out = Vec::new();
            pack_integer(integer, &mut out);
            assert_eq!(out.len(), length, "{integer}");
        }
    }
}
