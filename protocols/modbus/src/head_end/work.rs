//! What may be asked of a device: plans, made once and shared by all devices that are asked the same.

use std::sync::Arc;

use ipss_session::{MeterId, ProtocolError};

use crate::function;
use crate::group::Span;
use crate::pdu::{RequestPdu, Table};
use crate::value::Decode;

/// A plan, and whom it asks.
#[derive(Clone, Debug)]
pub struct Work {
    /// Whose rows they are: of several units behind one gateway, each is a meter of its own.
    pub meter: MeterId,
    /// The unit.
    pub unit: u8,
    /// What to ask, in order.
    pub plan: Arc<Plan>,
}

/// Questions in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The questions.
    pub items: Box<[Item]>,
}

impl Plan {
    /// Whether asking it again can do no harm: it only reads.
    pub fn is_repeatable(&self) -> bool {
        self.items.iter().all(Item::is_repeatable)
    }
}

/// One question, or several that make up one line. Its place in the plan is the `item` of its rows.
#[derive(Clone, Debug)]
pub enum Item {
    /// Coils and registers that make up one line.
    Read(Read),
    /// Any other request. A write that was done gives an empty line. Any other answer gives a line of layout 0 with one
    /// raw cell: the response behind its function code. The device's own *no* is a refusal.
    ///
    /// To unit 0, where that is a broadcast, nobody answers: the empty line says that it was sent.
    Ask(Ask),
}

impl Item {
    /// A request that is no plain read.
    ///
    /// # Errors
    /// Local, `modbus`: the specification forbids it ([`RequestPdu::encode`]).
    pub fn ask(request: &RequestPdu<'_>) -> Result<Self, ProtocolError> {
        let mut pdu = Vec::new();
        request.encode(&mut pdu)?;
        Ok(Self::Ask(Ask { pdu: pdu.into() }))
    }

    fn is_repeatable(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::Ask(ask) => ask.only_reads(),
        }
    }
}

/// A request as its PDU. Made by [`Item::ask`].
#[derive(Clone, Debug)]
pub struct Ask {
    pub(super) pdu: Box<[u8]>,
}

impl Ask {
    /// Whether asking it again can do no harm.
    pub fn only_reads(&self) -> bool {
        function::only_reads(&self.pdu)
    }

    /// The PDU.
    pub fn pdu(&self) -> &[u8] {
        &self.pdu
    }
}

/// Coils and registers for one line. What stands near each other is read in one question, as far as the device's
/// limits allow; what is refused leaves null cells and a refusal a block.
#[derive(Clone, Debug)]
pub struct Read {
    pub(super) layout: u32,
    /// In order of table and address.
    pub(super) spans: Box<[Span]>,
    /// For each span, where its octets begin: two a register, one a coil.
    pub(super) starts: Box<[usize]>,
    pub(super) cells: Box<[Place]>,
    /// Octets of all spans.
    pub(super) octets: usize,
}

/// A cell of a [`Read`]'s line: part of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which span, by its place in the list that was given.
    pub span: u16,
    /// The first of its registers or coils, counted from the span's.
    pub offset: u16,
    /// How many.
    pub count: u16,
    /// How the value stands in them.
    pub decode: Decode,
}

/// A cell: which coils or registers, where their octets are, how the value stands in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub part: Span,
    pub start: usize,
    pub octets: usize,
    pub decode: Decode,
}

impl Read {
    /// A line of `layout` with these cells. A span is read by one question wherever it fits one, so that what belongs
    /// together (a value and its scale factor) is of one moment; spans may stand in any order.
    ///
    /// # Errors
    /// Local, `modbus`: `bad-span`, `bad-point`: empty, or beyond the end of the table, the span, or [`MAX_OCTETS`].
    pub fn new(layout: u32, spans: &[Span], points: &[Point]) -> Result<Self, ProtocolError> {
        let bad = |code, message| Err(ProtocolError::local("modbus", code, message));
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_unstable_by_key(|index| spans[*index]);
        let mut starts = vec![0; spans.len()];
        let mut octets = 0_usize;
        for index in &order {
            let span = spans[*index];
            if span.count == 0 || span.end() > 65_536 {
                return bad("bad-span", format!("{} from {}: {}", span.count, span.address, span.table.name()));
            }
            starts[*index] = octets;
            octets += usize::from(span.count) * width(span.table);
        }
        if spans.is_empty() || points.is_empty() {
            return bad("bad-span", "nothing to read".into());
        }
        if octets > MAX_OCTETS {
            return bad("bad-span", format!("{octets} octets of registers and coils; at most {MAX_OCTETS}"));
        }
        let mut cells = Vec::with_capacity(points.len());
        for point in points {
            let span = spans.get(usize::from(point.span));
            let within = |span: &&Span| {
                point.count > 0 && u32::from(point.offset) + u32::from(point.count) <= u32::from(span.count)
            };
            let Some(span) = span.filter(within) else {
                return bad("bad-point", format!("{point:?} is not within its span"));
            };
            let part = Span { address: span.address + point.offset, count: point.count, ..*span };
            let start = starts[usize::from(point.span)] + usize::from(point.offset) * width(span.table);
            let octets = usize::from(point.count) * width(span.table);
            cells.push(Place { part, start, octets, decode: point.decode });
        }
        Ok(Self {
            layout,
            spans: order.iter().map(|index| spans[*index]).collect(),
            starts: order.iter().map(|index| starts[*index]).collect(),
            cells: cells.into(),
            octets,
        })
    }

    /// A line of `layout` with a cell for each of these: table, address, how many, how the value stands in them.
    ///
    /// # Errors
    /// As [`Read::new`].
    pub fn points(layout: u32, points: &[(Table, u16, u16, Decode)]) -> Result<Self, ProtocolError> {
        let spans: Vec<Span> = points
            .iter()
            .map(|(table, address, count, _)| Span { table: *table, address: *address, count: *count })
            .collect();
        let points: Vec<Point> = points
            .iter()
            .enumerate()
            .map(|(place, (_, _, count, decode))| Point {
                span: place as u16,
                offset: 0,
                count: *count,
                decode: *decode,
            })
            .collect();
        Self::new(layout, &spans, &points)
    }

    /// The line's layout, chosen by the asker.
    pub fn layout(&self) -> u32 {
        self.layout
    }
}

/// Octets that one coil or register takes in a line's buffer.
pub(super) fn width(table: Table) -> usize {
    if table.is_bits() { 1 } else { 2 }
}

/// Octets of all registers and coils of one line: two of each table's 65,536 would be more than any device has.
pub const MAX_OCTETS: usize = 1 << 18;
