//! Function codes and exception codes, with their names (Modbus Application Protocol V1.1b3, clauses 6 and 7).

/// Read coils.
pub const READ_COILS: u8 = 0x01;
/// Read discrete inputs.
pub const READ_DISCRETE_INPUTS: u8 = 0x02;
/// Read holding registers.
pub const READ_HOLDING_REGISTERS: u8 = 0x03;
/// Read input registers.
pub const READ_INPUT_REGISTERS: u8 = 0x04;
/// Write single coil.
pub const WRITE_SINGLE_COIL: u8 = 0x05;
/// Write single register.
pub const WRITE_SINGLE_REGISTER: u8 = 0x06;
/// Read exception status (serial line).
pub const READ_EXCEPTION_STATUS: u8 = 0x07;
/// Diagnostics (serial line).
pub const DIAGNOSTICS: u8 = 0x08;
/// Get comm event counter (serial line).
pub const GET_COMM_EVENT_COUNTER: u8 = 0x0B;
/// Get comm event log (serial line).
pub const GET_COMM_EVENT_LOG: u8 = 0x0C;
/// Write multiple coils.
pub const WRITE_MULTIPLE_COILS: u8 = 0x0F;
/// Write multiple registers.
pub const WRITE_MULTIPLE_REGISTERS: u8 = 0x10;
/// Report server id (serial line).
pub const REPORT_SERVER_ID: u8 = 0x11;
/// Read file record.
pub const READ_FILE_RECORD: u8 = 0x14;
/// Write file record.
pub const WRITE_FILE_RECORD: u8 = 0x15;
/// Mask write register.
pub const MASK_WRITE_REGISTER: u8 = 0x16;
/// Read and write multiple registers in one transaction, the write first.
pub const READ_WRITE_MULTIPLE_REGISTERS: u8 = 0x17;
/// Read FIFO queue.
pub const READ_FIFO_QUEUE: u8 = 0x18;
/// Encapsulated interface transport.
pub const ENCAPSULATED_INTERFACE: u8 = 0x2B;
/// The bit that makes a function code that of an exception.
pub const EXCEPTION: u8 = 0x80;
/// MEI type of device identification under [`ENCAPSULATED_INTERFACE`].
pub const MEI_DEVICE_IDENTIFICATION: u8 = 0x0E;

/// The function's name in lower case with hyphens; `None` for private and reserved codes.
pub fn name(function: u8) -> Option<&'static str> {
    Some(match function {
        READ_COILS => "read-coils",
        READ_DISCRETE_INPUTS => "read-discrete-inputs",
        READ_HOLDING_REGISTERS => "read-holding-registers",
        READ_INPUT_REGISTERS => "read-input-registers",
        WRITE_SINGLE_COIL => "write-single-coil",
        WRITE_SINGLE_REGISTER => "write-single-register",
        READ_EXCEPTION_STATUS => "read-exception-status",
        DIAGNOSTICS => "diagnostics",
        GET_COMM_EVENT_COUNTER => "get-comm-event-counter",
        GET_COMM_EVENT_LOG => "get-comm-event-log",
        WRITE_MULTIPLE_COILS => "write-multiple-coils",
        WRITE_MULTIPLE_REGISTERS => "write-multiple-registers",
        REPORT_SERVER_ID => "report-server-id",
        READ_FILE_RECORD => "read-file-record",
        WRITE_FILE_RECORD => "write-file-record",
        MASK_WRITE_REGISTER => "mask-write-register",
        READ_WRITE_MULTIPLE_REGISTERS => "read-write-multiple-registers",
        READ_FIFO_QUEUE => "read-fifo-queue",
        ENCAPSULATED_INTERFACE => "encapsulated-interface-transport",
        _ => return None,
    })
}

/// Whether the request with this PDU only reads: asking it again can do no harm.
///
/// Private codes count as writes, since nobody can tell. Of the diagnostics, returning query data, the diagnostic
/// register and the counters read.
pub fn only_reads(pdu: &[u8]) -> bool {
    let Some(function) = pdu.first() else { return false };
    match *function {
        DIAGNOSTICS => matches!(pdu, [_, 0, 0 | 2 | 11..=18, ..]),
        ENCAPSULATED_INTERFACE => matches!(pdu, [_, MEI_DEVICE_IDENTIFICATION, ..]),
        READ_COILS..=READ_INPUT_REGISTERS | READ_EXCEPTION_STATUS | GET_COMM_EVENT_COUNTER => true,
        GET_COMM_EVENT_LOG | REPORT_SERVER_ID | READ_FILE_RECORD | READ_FIFO_QUEUE => true,
        _ => false,
    }
}

/// A device's own *no*, by its number. Devices use numbers that the specification does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exception(pub u8);

impl Exception {
    /// The device does not have the function.
    pub const ILLEGAL_FUNCTION: Self = Self(1);
    /// An address, or one of a block, that the device does not have.
    pub const ILLEGAL_DATA_ADDRESS: Self = Self(2);
    /// The request is malformed, as a rule in its quantity.
    pub const ILLEGAL_DATA_VALUE: Self = Self(3);
    /// The device failed while it did what was asked.
    pub const SERVER_DEVICE_FAILURE: Self = Self(4);
    /// Accepted, and being worked on: nothing is known yet of the result.
    pub const ACKNOWLEDGE: Self = Self(5);
    /// Busy: nothing was done, ask again later.
    pub const SERVER_DEVICE_BUSY: Self = Self(6);
    /// A program function that cannot be performed (an older edition's code).
    pub const NEGATIVE_ACKNOWLEDGE: Self = Self(7);
    /// Extended memory failed its consistency check.
    pub const MEMORY_PARITY_ERROR: Self = Self(8);
    /// The gateway has no path to the unit; nothing was sent on.
    pub const GATEWAY_PATH_UNAVAILABLE: Self = Self(10);
    /// The unit behind the gateway did not answer; the request may have reached it.
    pub const GATEWAY_TARGET_FAILED: Self = Self(11);

    /// The name in lower case with hyphens, if the specification has one.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "illegal-function",
            2 => "illegal-data-address",
            3 => "illegal-data-value",
            4 => "server-device-failure",
            5 => "acknowledge",
            6 => "server-device-busy",
            7 => "negative-acknowledge",
            8 => "memory-parity-error",
            10 => "gateway-path-unavailable",
            11 => "gateway-target-device-failed-to-respond",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writes_is_never_taken_for_a_read() {
        for function in 0..=255 {
            let reads = only_reads(&[function]);
            assert_eq!(reads, matches!(function, 1..=4 | 7 | 11 | 12 | 17 | 20 | 24), "{function}");
        }
        assert!(only_reads(&[DIAGNOSTICS, 0, 0, 1, 2]));
        assert!(!only_reads(&[DIAGNOSTICS, 0, 1, 0, 0]), "restart communications");
        assert!(!only_reads(&[DIAGNOSTICS, 0, 4, 0, 0]), "listen only");
        assert!(!only_reads(&[DIAGNOSTICS, 0, 10, 0, 0]), "clear counters");
        assert!(only_reads(&[ENCAPSULATED_INTERFACE, 14, 1, 0]));
        assert!(!only_reads(&[ENCAPSULATED_INTERFACE, 13, 1, 0]));
        assert!(!only_reads(&[]));
    }
}
