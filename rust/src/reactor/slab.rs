//! Numbered places that never move: pages of entries, so that a growing fleet is not copied and a turn finds an
//! entry by two indexings and no hashing.

/// Entries by slot. A slot that was given up is used again; whoever keeps a slot over time keeps an epoch beside it.
pub struct Slab<T> {
    pages: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    slots: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), slots: 0 }
    }
}

impl<T> Slab<T> {
    /// Put `entry` somewhere and say where.
    pub fn insert(&mut self, entry: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.pages[slot as usize / PAGE][slot as usize % PAGE] = Some(entry);
            return slot;
        }
        let slot = self.slots;
        self.slots += 1;
        if slot as usize % PAGE == 0 {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        self.pages[slot as usize / PAGE].push(Some(entry));
        slot
    }

    /// Give the slot up.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let entry = self.pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)?.take()?;
        self.free.push(slot);
        Some(entry)
    }

    /// The entry in `slot`, if there is one.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)?.as_ref()
    }

    /// The entry in `slot`, if there is one.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)?.as_mut()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slots as usize - self.free.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All slots ever used, the highest last; some may be empty now.
    pub fn slots(&self) -> std::ops::Range<u32> {
        0..self.slots
    }
}

/// Entries in a page: at some 700 octets an entry a page is 90 KB.
const PAGE: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_given_up_is_used_again_and_others_stay() {
        let mut slab = Slab::default();
        let slots: Vec<u32> = (0..300).map(|value| slab.insert(value)).collect();

        assert_eq!(slab.remove(slots[130]), Some(130));
        assert_eq!(slab.remove(slots[130]), None);
        assert_eq!(slab.insert(7), slots[130]);

        assert_eq!(slab.len(), 300);
        assert_eq!(slab.get(slots[299]), Some(&299));
        assert_eq!(slab.get(300), None);
    }
}
