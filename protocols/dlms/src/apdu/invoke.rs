//! Which request an answer belongs to (Green Book, Invoke-Id-And-Priority).

/// One octet: the invoke id in bits 0 to 3, service class in bit 6, priority in bit 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvokeIdAndPriority(pub u8);

impl InvokeIdAndPriority {
    /// A confirmed request; `id` counts modulo 16.
    pub fn confirmed(id: u8, high_priority: bool) -> Self {
        Self(id & 0x0F | 0x40 | u8::from(high_priority) << 7)
    }

    /// The invoke id, 0 to 15.
    pub fn id(self) -> u8 {
        self.0 & 0x0F
    }

    /// Whether an answer is expected.
    pub fn is_confirmed(self) -> bool {
        self.0 & 0x40 != 0
    }

    /// Whether it goes before others.
    pub fn is_high_priority(self) -> bool {
        self.0 & 0x80 != 0
    }
}
