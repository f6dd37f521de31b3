//! Reading a device's chain of models, as questions and answers: what to read next, and what came.

use super::chain::{BASES, Block, Chain, End, HEADER, MARKER};

/// Registers to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The first.
    pub address: u16,
    /// How many.
    pub count: u16,
}

/// What discovery has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Read this and tell what came.
    Ask(Read),
    /// All models are known: the address of `SunS`, and the blocks, whose offsets count from it.
    Found(u16, Vec<Block>),
    /// The device answers, but not with `SunS` where it may stand.
    NotSunSpec,
}

/// Finds `SunS` and follows the chain behind it.
///
/// It reads whole models, since some devices answer a part of one by exception 2 or short; what a device refuses is
/// asked again in halves.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// Addresses still to look at.
    candidates: Vec<u16>,
    base: Option<u16>,
    image: Vec<u16>,
    /// How many registers the chain needs to go on.
    wanted: usize,
    /// How many to ask for at once.
    step: u16,
    most: u16,
    finished: bool,
}

impl Discovery {
    /// Look at the three bases, then one register beside each, asking for at most `most` registers (1 to 125) at once.
    pub fn new(most: u16) -> Self {
        let mut candidates: Vec<u16> = BASES.to_vec();
        for base in BASES {
            candidates.extend([Some(base + 1), base.checked_sub(1)].into_iter().flatten());
        }
        candidates.reverse();
        let most = most.clamp(1, 125);
        Self { candidates, base: None, image: Vec::new(), wanted: 0, step: most, most, finished: false }
    }

    /// What to do now.
    pub fn progress(&self) -> Progress {
        let Some(base) = self.base else {
            return match self.candidates.last() {
                Some(address) => Progress::Ask(Read { address: *address, count: MARKER.len() as u16 }),
                None => Progress::NotSunSpec,
            };
        };
        let next = usize::from(base) + self.image.len();
        let missing = self.wanted.saturating_sub(self.image.len());
        // Addresses end at 65535, and a chain with them.
        let room = (1 << 16_usize) - next.min(1 << 16);
        let count = missing.min(room).min(usize::from(self.step)) as u16;
        match u16::try_from(next) {
            Ok(address) if !self.finished && count > 0 => Progress::Ask(Read { address, count }),
            _ => Progress::Found(base, Chain::new(&self.image, MARKER.len()).collect()),
        }
    }

    /// What the read gave: registers, or nothing if the device refused it.
    pub fn answered(&mut self, registers: Option<&[u16]>) {
        if self.base.is_none() {
            match (self.candidates.pop(), registers) {
                (Some(address), Some(registers)) if registers == MARKER => {
                    self.base = Some(address);
                    self.image.extend_from_slice(registers);
                    self.wanted = MARKER.len() + HEADER;
                }
                _ => {}
            }
            return;
        }
        match registers {
            Some([]) | None if self.step > 1 => self.step = self.step.div_ceil(2).min(self.step - 1),
            // Not even one register: the chain ends here, as some do without an end model.
            Some([]) | None => self.finished = true,
            Some(registers) => {
                let Progress::Ask(read) = self.progress() else { return };
                self.image.extend_from_slice(&registers[..registers.len().min(usize::from(read.count))]);
                self.step = self.most;
                self.want();
            }
        }
    }

    /// The image so far, `SunS` in front.
    pub fn image(&self) -> &[u16] {
        &self.image
    }

    fn want(&mut self) {
        if self.image.len() < self.wanted {
            return;
        }
        let mut chain = Chain::new(&self.image, MARKER.len());
        let mut end = MARKER.len();
        for block in chain.by_ref() {
            end = block.offset + block.span;
        }
        match chain.end() {
            Some(End::Proper | End::Zero) => self.finished = true,
            // The model, and the header behind it.
            _ => self.wanted = end + HEADER,
        }
    }
}
