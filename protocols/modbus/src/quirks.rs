//! What is wrong with a device, by name. The table of them, with their sources and tests: `QUIRKS.md`.

/// Departures from the specification that have to be known to be lived with. Those that can be told from the octets
/// are handled for all devices and have no switch. All off: [`Quirks::default`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quirks {
    /// How far the length in the MBAP header is to be believed (row 56).
    pub mbap_length: MbapLength,
    /// Answers come with other transaction ids than their requests (row 57). Answers are then told apart as on a
    /// serial line: one request at a time, by unit, function and length.
    pub transaction_id_not_echoed: bool,
    /// Answers come with other unit ids than their requests (row 58). One request at a time where nothing else tells
    /// answers apart.
    pub unit_id_not_echoed: bool,
    /// Byte counts in answers have 16 bits (row 62).
    pub wide_byte_count: bool,
    /// Registers may have 32 bits: an answer may have four octets a register (row 62).
    pub wide_registers: bool,
    /// The line repeats our own octets before the answer (RS-485 adapters that hear themselves).
    pub echo: bool,
    /// Unit 0 over TCP or UDP is a broadcast through a gateway, not the device at the address itself.
    pub unit_zero_broadcasts: bool,
}

/// What the length in an MBAP header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MbapLength {
    /// The truth.
    #[default]
    Exact,
    /// Nothing: the PDU's own octets tell where it ends (lengths one or more too large or too small).
    FromPdu,
    /// The truth, but there may be surplus octets behind the PDU.
    Surplus,
}
