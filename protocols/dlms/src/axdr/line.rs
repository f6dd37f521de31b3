//! Profile buffers straight from octets into columns: the hot path of a fleet's load profiles.
//!
//! A buffer is an array of structures, one an entry (Blue Book, "Profile generic"). Meters compress: null-data for
//! the clock means one capture period after the entry before, null-data for another column means unchanged.

use ipss_session::{Batch, Cell, CivilDateTime, Limits, Line, ProtocolError, WallTime, batch::kind};

use super::date_time::days_in_month;
use super::reader::Reader;
use super::skip::skip;
use super::tag;
use super::walk::expand;

/// What stands where in a profile's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferShape {
    /// Columns of an entry, the clock's included.
    pub columns: u16,
    /// The column with the clock's time, counted from 0. It becomes the line's capture time and is no cell.
    pub clock_column: Option<u16>,
    /// The column with the profile's status. A cell as the others, but a bit-string or octet-string of up to eight
    /// octets in it becomes an integer, first octet highest, so that status is a number whatever the model sends.
    pub status_column: Option<u16>,
    /// Seconds between entries, for compressed clocks. 0 if entries are not periodic: a null clock is then unknown.
    pub capture_period_s: u32,
}

/// Append each entry of the buffer in `octets` (one A-XDR value, type octet first) to the batch as a line like
/// `head`; returns how many. On an error the batch is as it was.
///
/// Integers of any width and enums become [`Cell::Integer`], a long64-unsigned beyond `i64` and all other types
/// [`Cell::Raw`], the value's octets with its type octet first. A clock whose time has unspecified parts gives
/// [`WallTime::UNKNOWN`]; an unspecified deviation is taken as UTC and recorded as [`Line::NO_DEVIATION`].
///
/// # Errors
/// As [`skip`], and `bad-buffer` (no array of structures), `bad-columns` (another number of columns than the shape),
/// `bad-clock` (no date-time in the clock's column), `expansion-over-limit` (null-data that repeat long strings),
/// `trailing-octets`.
pub fn decode_buffer(
    octets: &[u8],
    shape: &BufferShape,
    head: Line,
    limits: &Limits,
    batch: &mut Batch,
) -> Result<u32, ProtocolError> {
    let mark = batch.mark();
    let result = match octets.first() {
        Some(&tag::COMPACT_ARRAY) => {
            // Rare, and its contents carry no types: expanded first, to at most a small multiple of its octets.
            let mut entries = Vec::new();
            expand(octets, limits, &mut entries).and_then(|()| Lines::new(&entries, shape, head, limits, batch).run())
        }
        _ => Lines::new(octets, shape, head, limits, batch).run(),
    };
    if result.is_err() {
        batch.rewind(mark);
    }
    result
}

/// The value of a single attribute as a cell: integers and null-data by value, everything else as its octets.
///
/// # Errors
/// As [`skip`], and `trailing-octets`.
pub fn decode_value<'a>(octets: &'a [u8], limits: &Limits) -> Result<Cell<'a>, ProtocolError> {
    if let Some((&tag, rest)) = octets.split_first() {
        if let Some((integer, [])) = integer(tag, rest) {
            return Ok(Cell::Integer(integer));
        }
    }
    let mut reader = Reader::new(octets);
    skip(&mut reader, limits)?;
    reader.finish()?;
    Ok(if octets == [tag::NULL_DATA] { Cell::Null } else { Cell::Raw(octets) })
}

/// An integer that fits a cell, and what comes after it; `None` for other types and for too few octets.
#[inline(always)]
fn integer(tag: u8, rest: &[u8]) -> Option<(i64, &[u8])> {
    Some(match tag {
        tag::DOUBLE_LONG_UNSIGNED => {
            let (octets, rest) = rest.split_first_chunk()?;
            (i64::from(u32::from_be_bytes(*octets)), rest)
        }
        tag::LONG_UNSIGNED => {
            let (octets, rest) = rest.split_first_chunk()?;
            (i64::from(u16::from_be_bytes(*octets)), rest)
        }
        tag::UNSIGNED | tag::ENUM => {
            let (octet, rest) = rest.split_first()?;
            (i64::from(*octet), rest)
        }
        tag::DOUBLE_LONG => {
            let (octets, rest) = rest.split_first_chunk()?;
            (i64::from(i32::from_be_bytes(*octets)), rest)
        }
        tag::LONG => {
            let (octets, rest) = rest.split_first_chunk()?;
            (i64::from(i16::from_be_bytes(*octets)), rest)
        }
        tag::INTEGER => {
            let (octets, rest) = rest.split_first_chunk()?;
            (i64::from(i8::from_be_bytes(*octets)), rest)
        }
        tag::LONG64 => {
            let (octets, rest) = rest.split_first_chunk()?;
            (i64::from_be_bytes(*octets), rest)
        }
        tag::LONG64_UNSIGNED => {
            let (octets, rest) = rest.split_first_chunk()?;
            (i64::try_from(u64::from_be_bytes(*octets)).ok()?, rest)
        }
        _ => return None,
    })
}

/// One buffer on its way into the batch.
struct Lines<'a, 'b> {
    /// The whole value, for offsets.
    octets: &'a [u8],
    /// What is still to come.
    rest: &'a [u8],
    shape: &'b BufferShape,
    limits: &'b Limits,
    batch: &'b mut Batch,
    /// The line before, or the one in work: its clock is what null-data means.
    line: Line,
    clock_seen: bool,
    /// The last date's year, month and day, and its midnight: entries share dates.
    date: (u64, i64),
    /// Cells of a line.
    cells: usize,
    /// Lines finished.
    count: usize,
    /// For each cell of the line before, where its raw octets are in the batch; empty until there is any.
    raw: Vec<(u32, u32)>,
    /// Raw octets that null-data may still repeat.
    repeats_left: usize,
}

impl<'a, 'b> Lines<'a, 'b> {
    fn new(octets: &'a [u8], shape: &'b BufferShape, head: Line, limits: &'b Limits, batch: &'b mut Batch) -> Self {
        let clock = shape.clock_column.is_some_and(|column| column < shape.columns);
        Self {
            octets,
            rest: octets,
            shape,
            limits,
            batch,
            line: head,
            clock_seen: false,
            date: (NO_DATE, 0),
            cells: usize::from(shape.columns) - usize::from(clock),
            count: 0,
            raw: Vec::new(),
            repeats_left: octets.len().saturating_mul(4).saturating_add(REPEATS_AT_LEAST),
        }
    }

    fn run(mut self) -> Result<u32, ProtocolError> {
        let count = match *self.rest {
            [tag::ARRAY, count @ 0..0x80, ref rest @ ..] => {
                self.rest = rest;
                usize::from(count)
            }
            [tag::ARRAY, ..] => self.long_count()?,
            [tag::NULL_DATA] => return Ok(0), // an empty buffer, as some meters put it
            [] => return Err(self.truncated()),
            [other, ..] => return Err(self.bad_buffer(other)),
        };
        if count > self.limits.elements {
            return Err(self.error("elements-over-limit", format!("{count} entries; at most {}", self.limits.elements)));
        }
        self.batch.lines.reserve(count.min(LINES_ON_TRUST));
        self.batch.line_ends.reserve(count.min(LINES_ON_TRUST));
        let values = count.saturating_mul(self.cells).min(VALUES_ON_TRUST);
        self.batch.kinds.reserve(values);
        self.batch.integers.reserve(values);
        for _ in 0..count {
            self.entry()?;
        }
        match self.rest {
            [] => Ok(count as u32),
            rest => Err(self.error("trailing-octets", format!("{} octets after the buffer", rest.len()))),
        }
    }

    #[inline]
    fn entry(&mut self) -> Result<(), ProtocolError> {
        let columns = usize::from(self.shape.columns);
        match *self.rest {
            [tag::STRUCTURE, count @ 0..0x80, ref rest @ ..] if usize::from(count) == columns => self.rest = rest,
            _ => self.unusual_structure()?,
        }
        let clock = self.shape.clock_column.map_or(columns, |column| usize::from(column).min(columns));
        for _ in 0..clock {
            self.cell()?;
        }
        if clock < columns {
            self.clock()?;
            for _ in clock + 1..columns {
                self.cell()?;
            }
        }
        self.batch.close_line(self.line);
        self.count += 1;
        Ok(())
    }

    #[inline(always)]
    fn cell(&mut self) -> Result<(), ProtocolError> {
        if let Some((&tag, rest)) = self.rest.split_first() {
            if let Some((integer, rest)) = integer(tag, rest) {
                self.batch.push_cell(Cell::Integer(integer));
                self.rest = rest;
                return Ok(());
            }
        }
        self.other_cell()
    }

    #[inline]
    fn clock(&mut self) -> Result<(), ProtocolError> {
        let date_time = match *self.rest {
            [tag::OCTET_STRING, 12, ref rest @ ..] | [tag::DATE_TIME, ref rest @ ..] => rest.split_first_chunk::<12>(),
            _ => return self.unusual_clock(),
        };
        let Some((octets, rest)) = date_time else { return Err(self.truncated()) };
        self.rest = rest;
        self.clock_value(octets);
        Ok(())
    }

    /// The same moment as [`super::DateTime::to_wall`] finds, with the date's part remembered.
    #[inline]
    fn clock_value(&mut self, octets: &[u8; 12]) {
        let [
            year_high,
            year_low,
            month,
            day,
            _,
            hour,
            minute,
            second,
            hundredths,
            deviation_high,
            deviation_low,
            status,
        ] = *octets;
        let deviation = i16::from_be_bytes([deviation_high, deviation_low]);
        self.line.deviation = deviation;
        self.line.clock_status = status;
        self.clock_seen = true;
        let date = u64::from(u32::from_be_bytes([year_high, year_low, month, day]));
        if date != self.date.0 {
            let year = u16::from_be_bytes([year_high, year_low]);
            let known = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(i32::from(year), month);
            if !known || year == 0xFFFF {
                self.line.capture_time = WallTime::UNKNOWN;
                return;
            }
            let midnight = CivilDateTime { year: i32::from(year), month, day, hour: 0, minute: 0, second: 0 };
            self.date = (date, midnight.to_wall().0);
        }
        if hour > 23 || minute > 59 || second > 59 {
            self.line.capture_time = WallTime::UNKNOWN;
            return;
        }
        let behind = if deviation == Line::NO_DEVIATION { 0 } else { i64::from(deviation) * 60 };
        let seconds = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second) + behind;
        let hundredths = if hundredths < 100 { i64::from(hundredths) } else { 0 };
        self.line.capture_time = WallTime(self.date.1 + seconds * WallTime::SECOND + hundredths * 10_000);
    }

    /// Null-data (one period after the entry before), or a length in a longer form.
    #[cold]
    fn unusual_clock(&mut self) -> Result<(), ProtocolError> {
        match *self.rest {
            [tag::NULL_DATA, ref rest @ ..] => {
                self.rest = rest;
                let period = i64::from(self.shape.capture_period_s) * WallTime::SECOND;
                let known = self.clock_seen && period > 0 && self.line.capture_time != WallTime::UNKNOWN;
                self.line.capture_time =
                    if known { WallTime(self.line.capture_time.0.saturating_add(period)) } else { WallTime::UNKNOWN };
                if !self.clock_seen {
                    self.line.deviation = Line::NO_DEVIATION;
                    self.line.clock_status = 0xFF;
                }
                Ok(())
            }
            [tag::OCTET_STRING, ref rest @ ..] => {
                let mut reader = Reader::new(rest);
                let octets = reader.octet_string().map_err(|error| self.moved(error, rest))?;
                let octets: &[u8; 12] = octets
                    .try_into()
                    .map_err(|_| self.error("bad-clock", format!("{} octets are no date-time", octets.len())))?;
                self.rest = reader.rest();
                self.clock_value(octets);
                Ok(())
            }
            [] => Err(self.truncated()),
            [other, ..] => Err(self.error("bad-clock", format!("type {other:02X} in the clock's column"))),
        }
    }

    /// Null-data, what is no integer, and what is broken.
    #[inline(never)]
    fn other_cell(&mut self) -> Result<(), ProtocolError> {
        let place = self.place();
        let Some(&tag) = self.rest.first() else { return Err(self.truncated()) };
        match tag {
            tag::NULL_DATA => {
                self.rest = &self.rest[1..];
                self.unchanged(place)
            }
            tag::DELTA_INTEGER..=tag::DELTA_DOUBLE_LONG_UNSIGNED => self.delta(place, tag),
            _ => {
                let mut reader = Reader::new(self.rest);
                skip(&mut reader, self.limits).map_err(|error| self.moved(error, self.rest))?;
                let value = reader.since(0);
                self.rest = reader.rest();
                match self.status_number(value) {
                    Some(status) => self.batch.push_cell(Cell::Integer(status)),
                    None => self.push_raw(place, value),
                }
                Ok(())
            }
        }
    }

    /// Which cell of its line comes next.
    fn place(&self) -> usize {
        self.batch.kinds.len() - self.batch.line_ends.last().map_or(0, |end| *end as usize)
    }

    /// Where the same cell of the line before is, if there is a line before.
    fn before(&self) -> Option<usize> {
        if self.count == 0 { None } else { Some(self.batch.kinds.len() - self.cells) }
    }

    fn unchanged(&mut self, place: usize) -> Result<(), ProtocolError> {
        let before = self.before();
        match before.map(|before| (self.batch.kinds[before], self.batch.integers[before])) {
            Some((kind::INTEGER, integer)) => self.batch.push_cell(Cell::Integer(integer)),
            Some((kind::RAW, _)) => {
                let (start, end) = self.raw[place]; // noted when the raw cell was pushed
                let (start, end) = (start as usize, end as usize);
                match self.repeats_left.checked_sub(end - start) {
                    Some(left) => self.repeats_left = left,
                    None => return Err(self.error("expansion-over-limit", "null-data repeat too many octets")),
                }
                self.batch.raw.extend_from_within(start..end);
                self.batch.raw_ends.push(self.batch.raw.len() as u32);
                self.batch.kinds.push(kind::RAW);
                self.batch.integers.push(0);
            }
            _ => self.batch.push_cell(Cell::Null),
        }
        Ok(())
    }

    /// A difference to the value before (Blue Book, "Common data types", delta types).
    fn delta(&mut self, place: usize, tag: u8) -> Result<(), ProtocolError> {
        let full =
            [tag::INTEGER, tag::LONG, tag::DOUBLE_LONG, tag::UNSIGNED, tag::LONG_UNSIGNED, tag::DOUBLE_LONG_UNSIGNED];
        let full = full[usize::from(tag - tag::DELTA_INTEGER)]; // six delta types, in the same order
        let Some((difference, rest)) = integer(full, &self.rest[1..]) else { return Err(self.truncated()) };
        let value = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        let sum = self
            .before()
            .filter(|before| self.batch.kinds[*before] == kind::INTEGER)
            .and_then(|before| self.batch.integers[before].checked_add(difference));
        match sum {
            Some(sum) => self.batch.push_cell(Cell::Integer(sum)),
            None => self.push_raw(place, value),
        }
        Ok(())
    }

    fn push_raw(&mut self, place: usize, value: &[u8]) {
        if self.raw.is_empty() {
            self.raw = vec![(0, 0); self.cells];
        }
        let start = self.batch.raw.len() as u32;
        self.batch.push_cell(Cell::Raw(value));
        self.raw[place] = (start, self.batch.raw.len() as u32);
    }

    fn status_number(&self, value: &[u8]) -> Option<i64> {
        let column = self.shape.status_column?;
        let before_clock = self.shape.clock_column.is_none_or(|clock| column < clock);
        let cell = usize::from(column) - usize::from(!before_clock);
        if self.place() != cell {
            return None;
        }
        let mut reader = Reader::new(value);
        let octets = match reader.u8().ok()? {
            tag::BIT_STRING => {
                reader.length().ok()?;
                reader.rest()
            }
            tag::OCTET_STRING => reader.octet_string().ok()?,
            _ => return None,
        };
        if octets.len() > 8 {
            return None;
        }
        i64::try_from(octets.iter().fold(0_u64, |number, octet| number << 8 | u64::from(*octet))).ok()
    }

    /// A structure whose count is in a longer form, or none, or of another number of columns.
    #[cold]
    fn unusual_structure(&mut self) -> Result<(), ProtocolError> {
        let (count, rest) = match *self.rest {
            [tag::STRUCTURE, ref rest @ ..] => {
                let mut reader = Reader::new(rest);
                let count = reader.length().map_err(|error| self.moved(error, rest))?;
                (count, reader.rest())
            }
            [] => return Err(self.truncated()),
            [other, ..] => return Err(self.bad_buffer(other)),
        };
        if count != usize::from(self.shape.columns) {
            let message = format!("an entry of {count} columns; the profile has {}", self.shape.columns);
            return Err(self.error("bad-columns", message));
        }
        self.rest = rest;
        Ok(())
    }

    #[cold]
    fn long_count(&mut self) -> Result<usize, ProtocolError> {
        let rest = &self.rest[1..];
        let mut reader = Reader::new(rest);
        let count = reader.length().map_err(|error| self.moved(error, rest))?;
        self.rest = reader.rest();
        Ok(count)
    }

    /// An error of a reader over `rest`, at its place in the whole value.
    #[cold]
    fn moved(&self, mut error: ProtocolError, rest: &[u8]) -> ProtocolError {
        error.offset += self.octets.len() - rest.len();
        error
    }

    #[cold]
    fn truncated(&self) -> ProtocolError {
        self.error("truncated", "the buffer ends inside an entry")
    }

    #[cold]
    fn bad_buffer(&self, tag: u8) -> ProtocolError {
        self.error("bad-buffer", format!("type {tag:02X}; a buffer is an array of structures"))
    }

    #[cold]
    fn error(&self, code: &'static str, message: impl Into<String>) -> ProtocolError {
        ProtocolError::remote("data", self.octets.len() - self.rest.len(), code, message)
    }
}

/// Not the four octets of any date.
const NO_DATE: u64 = u64::MAX;
/// Lines to reserve room for before any has arrived: a day of quarter-hours and some.
const LINES_ON_TRUST: usize = 256;
/// Values to reserve room for before any has arrived.
const VALUES_ON_TRUST: usize = 2_048;
/// Octets that null-data may repeat in even the shortest buffer; more are allowed in proportion.
const REPEATS_AT_LEAST: usize = 16 * 1_024;

#[cfg(test)]
mod tests;
