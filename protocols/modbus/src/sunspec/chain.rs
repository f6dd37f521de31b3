//! The chain of models behind `SunS`: number, length, registers, again and again until the end model.
//!
//! Devices bend the rules, and a chain that is followed blindly then reads garbage. Where the next header makes no
//! sense, the few known ways of counting wrong are tried, and what was found is told.

use super::model::{Count, Model, model};

/// Where a device may begin, in the order in which to look (SunSpec Device Information Model Specification, "Base
/// addresses"): most begin at 40000.
pub const BASES: [u16; 3] = [40_000, 0, 50_000];
/// `SunS`, the two registers in front of the first model.
pub const MARKER: [u16; 2] = [0x5375, 0x6E53];

/// One model of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The model's number.
    pub id: u16,
    /// Its first register (its number), counted from the image's first.
    pub offset: usize,
    /// Its length as the device says.
    pub declared: u16,
    /// Registers from its number to the next header.
    pub span: usize,
    /// What was bent.
    pub oddity: Option<Oddity>,
}

impl Block {
    /// Its registers in the image, number and length in front; fewer than `span` if the image ends before.
    pub fn registers<'a>(&self, image: &'a [u16]) -> &'a [u16] {
        image.get(self.offset..(self.offset + self.span).min(image.len())).unwrap_or_default()
    }
}

/// A rule that a device bends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The length counts the two registers of the header.
    LengthCountsHeader,
    /// There is one register more than the length says (a common model of 66 that says 65).
    OneMore,
    /// There is one register less than the length says (a common model of 65 that says 66).
    OneLess,
}

impl std::fmt::Display for Oddity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LengthCountsHeader => "its length counts the header's two registers",
            Self::OneMore => "it has one register more than its length says",
            Self::OneLess => "it has one register less than its length says",
        })
    }
}

/// How a chain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By the end model 0xFFFF.
    Proper,
    /// By a model 0 where the end model should stand.
    Zero,
    /// The image ends where a header should stand.
    Missing,
    /// The image ends inside a model, or before a header is whole.
    Cut,
}

/// A walk along the chain.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    image: &'a [u16],
    at: usize,
    end: Option<End>,
}

impl<'a> Chain<'a> {
    /// A chain whose first header stands at `first`.
    pub fn new(image: &'a [u16], first: usize) -> Self {
        Self { image, at: first, end: None }
    }

    /// How it ended; `None` while it goes on.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether a header that we know stands at `at`, or the end.
    fn known(&self, at: usize) -> bool {
        match (self.image.get(at), self.image.get(at + 1)) {
            // Points that are not implemented are full of 0xFFFF: the end model has length 0.
            (Some(0xFFFF), length) => length == Some(&0),
            (Some(id), Some(length)) => model(*id).is_some_and(|model| fits(model, *length)),
            _ => false,
        }
    }

    /// Whether the chain may well go on at `at`, perhaps by a model that we do not know.
    fn plausible(&self, at: usize) -> bool {
        self.known(at)
            || at == self.image.len()
            || match (self.image.get(at), self.image.get(at + 1)) {
                (Some(0 | 0xFFFF), length) => length.is_none_or(|length| *length == 0),
                (Some(_), Some(length)) => {
                    let next = at + HEADER + usize::from(*length);
                    next == self.image.len() || self.known(next)
                }
                _ => false,
            }
    }
}

impl Iterator for Chain<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.end.is_some() {
            return None;
        }
        let (id, length) = match (self.image.get(self.at), self.image.get(self.at + 1)) {
            (Some(0xFFFF), _) => {
                self.end = Some(End::Proper);
                return None;
            }
            (Some(0), None | Some(0)) => {
                self.end = Some(End::Zero);
                return None;
            }
            (None, _) => {
                self.end = Some(End::Missing);
                return None;
            }
            (Some(_), None) => {
                self.end = Some(End::Cut);
                return None;
            }
            (Some(id), Some(length)) => (*id, *length),
        };
        let declared = usize::from(length) + HEADER;
        let ways = [
            (declared.checked_sub(HEADER).filter(|span| *span > HEADER), Some(Oddity::LengthCountsHeader)),
            (Some(declared + 1), Some(Oddity::OneMore)),
            (declared.checked_sub(1).filter(|span| *span > HEADER), Some(Oddity::OneLess)),
        ];
        let (span, oddity) = ways
            .into_iter()
            .filter(|_| !self.plausible(self.at + declared))
            .find_map(|(span, oddity)| Some((span.filter(|span| self.known(self.at + span))?, oddity)))
            // Nothing fits better than what the device says.
            .unwrap_or((declared, None));
        let block = Block { id, offset: self.at, declared: length, span, oddity };
        self.at += span;
        if self.at > self.image.len() {
            self.end = Some(End::Cut);
        }
        Some(block)
    }
}

/// Where the first header stands in an image, and how many registers from where it should: an image begins with
/// `SunS`, or holds it at one of the three bases; some devices are off by one.
pub fn first_header(image: &[u16], base_address: u16) -> Option<(usize, i8)> {
    let marked = |at: usize| image.get(at..at + MARKER.len()) == Some(&MARKER);
    let bases = BASES.iter().filter_map(|base| base.checked_sub(base_address)).map(usize::from);
    let places: Vec<usize> = std::iter::once(0).chain(bases).collect();
    [0_i8, 1, -1].into_iter().find_map(|shift| {
        let shifted = places.iter().filter_map(|at| at.checked_add_signed(shift.into()));
        shifted.into_iter().find(|at| marked(*at)).map(|at| (at + MARKER.len(), shift))
    })
}

/// Whether a model can have this length: what stands in front of its repeating groups is there, give or take the
/// registers of the ways to count wrong.
fn fits(model: &Model, length: u16) -> bool {
    let length = usize::from(length);
    let fixed = usize::from(model.group.length).saturating_sub(HEADER);
    let repeats = model.group.groups.iter().any(|group| group.count != Count::Single);
    let inner: usize = model.group.groups.iter().map(|group| usize::from(group.length)).sum();
    length + 1 >= fixed && (repeats || length <= fixed + inner + HEADER)
}

/// Registers of a model's number and length.
pub(super) const HEADER: usize = 2;
