//! Sparse registers joined to blocks: fewer questions, under the device's limits.
//!
//! What a device refuses is learnt from its own *no*: a block with registers in it that nobody asked for is asked
//! without them, then cut in halves until the part that is refused stands alone ([`halves`]).

use crate::pdu::Table;

/// Coils or registers that stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Where.
    pub table: Table,
    /// The first, counted from 0.
    pub address: u16,
    /// How many; at least 1, and not beyond address 65,535.
    pub count: u16,
}

impl Span {
    /// Behind the last one.
    pub fn end(self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    /// What both have.
    pub fn overlap(self, other: Self) -> Option<Self> {
        let start = self.address.max(other.address);
        let end = self.end().min(other.end());
        let count = u16::try_from(end.checked_sub(u32::from(start))?).ok()?;
        (self.table == other.table && count > 0).then_some(Self { table: self.table, address: start, count })
    }

    fn cut(self, at: u32) -> [Self; 2] {
        let count = (at - u32::from(self.address)) as u16;
        [Self { count, ..self }, Self { address: at as u16, count: self.count - count, table: self.table }]
    }
}

/// What a block may be.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Registers of one question.
    pub max_registers: u16,
    /// Coils or inputs of one question.
    pub max_bits: u16,
    /// Unwanted registers (or bits, eight times as many) that may be read along to save a question.
    pub max_gap: u16,
    /// Addresses that no block may reach across, in order: it ends before them or begins at them.
    pub cuts: &'a [(Table, u16)],
}

impl Rules<'_> {
    /// The most that one question may read of a table.
    pub fn most(&self, table: Table) -> u16 {
        let most = if table.is_bits() { self.max_bits } else { self.max_registers };
        most.clamp(1, table.max_read())
    }
}

/// The blocks to ask for, so that all of `spans` (in order of table and address) are read. A span longer than the
/// limit is read in pieces; shorter ones are never torn.
pub fn blocks(spans: &[Span], rules: &Rules<'_>) -> Vec<Span> {
    let mut blocks: Vec<Span> = Vec::with_capacity(1);
    for span in spans {
        if let Some(last) = blocks.last_mut() {
            let gap = if span.table.is_bits() { rules.max_gap.saturating_mul(8) } else { rules.max_gap };
            let end = last.end().max(span.end());
            let near = u32::from(span.address) <= last.end() + u32::from(gap);
            let fits = end - u32::from(last.address) <= u32::from(rules.most(span.table));
            let across = |cut: &(Table, u16)| cut.0 == span.table && cut.1 > last.address && cut.1 <= span.address;
            if span.table == last.table && near && fits && !rules.cuts.iter().any(across) {
                last.count = (end - u32::from(last.address)) as u16;
                continue;
            }
        }
        let mut rest = *span;
        while rest.count > rules.most(rest.table) {
            let [piece, behind] = rest.cut(u32::from(rest.address) + u32::from(rules.most(rest.table)));
            blocks.push(piece);
            rest = behind;
        }
        blocks.push(rest);
    }
    blocks
}

/// Two parts of a block that was refused, cut between two of `spans` as near to the middle as can be; `None` if it
/// holds only one of them.
pub fn halves(block: Span, spans: &[Span]) -> Option<[Span; 2]> {
    let middle = u32::from(block.address) + u32::from(block.count) / 2;
    let torn =
        |at: u32| spans.iter().any(|span| span.table == block.table && u32::from(span.address) < at && at < span.end());
    let inside = |span: &&Span| {
        span.table == block.table && span.address > block.address && u32::from(span.address) < block.end()
    };
    let starts = spans.iter().filter(inside).map(|span| u32::from(span.address)).filter(|at| !torn(*at));
    let at = starts.min_by_key(|at| at.abs_diff(middle))?;
    Some(block.cut(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holding(address: u16, count: u16) -> Span {
        Span { table: Table::Holding, address, count }
    }

    const RULES: Rules<'static> = Rules { max_registers: 125, max_bits: 2000, max_gap: 8, cuts: &[] };

    #[test]
    fn near_spans_join_and_far_ones_do_not() {
        let spans = [holding(0, 2), holding(4, 2), holding(14, 1), holding(24, 1), holding(65_535, 1)];
        assert_eq!(blocks(&spans, &RULES), [holding(0, 15), holding(24, 1), holding(65_535, 1)]);
        let none = Rules { max_gap: 0, ..RULES };
        assert_eq!(blocks(&[holding(0, 2), holding(2, 2), holding(5, 1)], &none), [holding(0, 4), holding(5, 1)]);
    }

    #[test]
    fn tables_cuts_and_limits_part_blocks() {
        let input = Span { table: Table::Input, address: 2, count: 1 };
        assert_eq!(blocks(&[holding(0, 2), input], &RULES), [holding(0, 2), input]);
        let cuts = [(Table::Holding, 2)];
        let cut = Rules { cuts: &cuts, ..RULES };
        assert_eq!(blocks(&[holding(0, 2), holding(2, 2)], &cut), [holding(0, 2), holding(2, 2)]);
        let small = Rules { max_registers: 3, ..RULES };
        assert_eq!(blocks(&[holding(0, 2), holding(2, 2)], &small), [holding(0, 2), holding(2, 2)]);
        assert_eq!(blocks(&[holding(0, 7)], &small), [holding(0, 3), holding(3, 3), holding(6, 1)]);
    }

    #[test]
    fn halves_never_tear_a_span() {
        let spans = [holding(0, 4), holding(4, 2), holding(8, 8)];
        assert_eq!(halves(holding(0, 16), &spans), Some([holding(0, 8), holding(8, 8)]));
        assert_eq!(halves(holding(0, 8), &spans), Some([holding(0, 4), holding(4, 4)]));
        assert_eq!(halves(holding(8, 8), &spans), None);
    }

    proptest! {
        /// Every wanted register is in a block, once; no block is longer than allowed, reaches across a cut, or tears
        /// a span that fits.
        #[test]
        fn blocks_hold_all_that_is_wanted(
            wanted in prop::collection::vec((0_u16..600, 1_u16..40), 1..60),
            most in 1_u16..130, max_gap in 0_u16..20, cuts in prop::collection::vec(0_u16..640, 0..4),
        ) {
            let mut spans: Vec<Span> = wanted.iter().map(|(address, count)| holding(*address, *count)).collect();
            spans.sort_unstable();
            let mut cuts: Vec<(Table, u16)> = cuts.into_iter().map(|cut| (Table::Holding, cut)).collect();
            cuts.sort_unstable();
            let rules = Rules { max_registers: most, max_gap, cuts: &cuts, ..RULES };
            let made = blocks(&spans, &rules);
            for block in &made {
                prop_assert!(block.count >= 1 && block.count <= most.min(125));
            }
            for span in &spans {
                let read: u32 = made.iter().filter_map(|block| block.overlap(*span)).map(|part| u32::from(part.count)).sum();
                prop_assert!(read >= u32::from(span.count));
                if spans.iter().all(|span| span.count <= most) {
                    prop_assert!(made.iter().any(|block| block.overlap(*span) == Some(*span)));
                }
            }
        }

        #[test]
        fn halves_are_the_whole(wanted in prop::collection::vec((0_u16..300, 1_u16..20), 1..30)) {
            let mut spans: Vec<Span> = wanted.iter().map(|(address, count)| holding(*address, *count)).collect();
            spans.sort_unstable();
            for block in blocks(&spans, &RULES) {
                if let Some([first, second]) = halves(block, &spans) {
                    prop_assert!(first.count > 0 && second.count > 0);
                    prop_assert_eq!((first.address, first.end(), second.end()), (block.address, u32::from(second.address), block.end()));
                }
            }
        }
    }
}
