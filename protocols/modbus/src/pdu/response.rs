//! What is answered (Modbus Application Protocol V1.1b3, clauses 6 and 7).

use ipss_session::ProtocolError;

use super::request::{COIL_ON, coil, counted, exactly, truncated};
use super::{Bits, FileRecords, FileWrites, Identification, MAX_PDU, Registers, Table, malformed, u16_at};
use crate::function::*;

/// One response. It says less than its request: not which registers these are, nor how many bits of the last octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the specification's, address by address")]
pub enum ResponsePdu<'a> {
    /// Functions 1 and 2; padded to whole octets.
    Bits { table: Table, values: Bits<'a> },
    /// Functions 3 and 4.
    Registers { table: Table, values: Registers<'a> },
    /// Function 5.
    WriteSingleCoil { address: u16, on: bool },
    /// Function 6.
    WriteSingleRegister { address: u16, value: u16 },
    /// Function 7.
    ExceptionStatus(u8),
    /// Function 8.
    Diagnostics { sub_function: u16, data: &'a [u8] },
    /// Function 11. `status` is FFFF while a program function is at work.
    CommEventCounter { status: u16, events: u16 },
    /// Function 12; the newest of `log` first.
    CommEventLog { status: u16, events: u16, messages: u16, log: &'a [u8] },
    /// Function 15.
    WriteMultipleCoils { address: u16, quantity: u16 },
    /// Function 16.
    WriteMultipleRegisters { address: u16, quantity: u16 },
    /// Function 17: the device's own octets, the run indicator (00 off, FF on) among them.
    ServerId(&'a [u8]),
    /// Function 20.
    FileRecords(FileRecords<'a>),
    /// Function 21.
    WriteFileRecord(FileWrites<'a>),
    /// Function 22.
    MaskWriteRegister { address: u16, and: u16, or: u16 },
    /// Function 23.
    ReadWriteMultipleRegisters(Registers<'a>),
    /// Function 24.
    FifoQueue(Registers<'a>),
    /// Function 43, MEI type 14.
    DeviceIdentification(Identification<'a>),
    /// The device's own *no*. `function` without its high bit; 0 from devices that answer with function 80.
    Exception { function: u8, code: Exception },
    /// Anything else as it came.
    Other { function: u8, data: &'a [u8] },
}

impl<'a> ResponsePdu<'a> {
    /// From a whole PDU.
    ///
    /// # Errors
    /// Remote, `modbus`: `empty`, `truncated`, `surplus`, `bad-length`, `bad-value`, `too-long`.
    pub fn decode(pdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let Some((function, data)) = pdu.split_first() else { return Err(malformed(0, "empty", "a PDU of no octets")) };
        if pdu.len() > MAX_PDU {
            return Err(malformed(0, "too-long", format!("a PDU of {} octets; at most {MAX_PDU}", pdu.len())));
        }
        let fields = |count: usize| -> Result<[u16; 3], ProtocolError> {
            exactly(pdu, 1 + count * 2)?;
            Ok([1, 3, 5].map(|at| u16_at(pdu, at).unwrap_or_default()))
        };
        Ok(match *function {
            READ_COILS | READ_DISCRETE_INPUTS => {
                let octets = counted(pdu, 1)?;
                if octets.is_empty() {
                    return Err(malformed(1, "bad-length", "no octets of bits"));
                }
                let table = Table::of_function(*function).unwrap_or(Table::Coils);
                Self::Bits { table, values: Bits::new(octets, octets.len() * 8) }
            }
            READ_HOLDING_REGISTERS | READ_INPUT_REGISTERS => {
                let table = Table::of_function(*function).unwrap_or(Table::Holding);
                Self::Registers { table, values: registers(counted(pdu, 1)?, 1)? }
            }
            WRITE_SINGLE_COIL => {
                let [address, value, _] = fields(2)?;
                Self::WriteSingleCoil { address, on: coil(value)? }
            }
            WRITE_SINGLE_REGISTER => {
                let [address, value, _] = fields(2)?;
                Self::WriteSingleRegister { address, value }
            }
            READ_EXCEPTION_STATUS => {
                exactly(pdu, 2)?;
                Self::ExceptionStatus(pdu[1])
            }
            DIAGNOSTICS => {
                let sub_function = u16_at(pdu, 1).ok_or_else(|| truncated(pdu))?;
                if sub_function != 0 {
                    exactly(pdu, 5)?;
                }
                Self::Diagnostics { sub_function, data: &pdu[3..] }
            }
            GET_COMM_EVENT_COUNTER => {
                let [status, events, _] = fields(2)?;
                Self::CommEventCounter { status, events }
            }
            GET_COMM_EVENT_LOG => {
                let octets = counted(pdu, 1)?;
                let Some(log) = octets.get(6..) else { return Err(malformed(1, "bad-length", "no room for counts")) };
                let [status, events, messages] = [0, 2, 4].map(|at| u16_at(octets, at).unwrap_or_default());
                Self::CommEventLog { status, events, messages, log }
            }
            WRITE_MULTIPLE_COILS => {
                let [address, quantity, _] = fields(2)?;
                Self::WriteMultipleCoils { address, quantity }
            }
            WRITE_MULTIPLE_REGISTERS => {
                let [address, quantity, _] = fields(2)?;
                Self::WriteMultipleRegisters { address, quantity }
            }
            REPORT_SERVER_ID => Self::ServerId(counted(pdu, 1)?),
            READ_FILE_RECORD => Self::FileRecords(FileRecords::decode(counted(pdu, 1)?)?),
            WRITE_FILE_RECORD => Self::WriteFileRecord(FileWrites::decode(counted(pdu, 1)?)?),
            MASK_WRITE_REGISTER => {
                let [address, and, or] = fields(3)?;
                Self::MaskWriteRegister { address, and, or }
            }
            READ_WRITE_MULTIPLE_REGISTERS => Self::ReadWriteMultipleRegisters(registers(counted(pdu, 1)?, 1)?),
            READ_FIFO_QUEUE => {
                let [count, registers] =
                    [1, 3].map(|at| u16_at(pdu, at)).map(|field| field.map(usize::from).unwrap_or(usize::MAX));
                if registers == usize::MAX {
                    return Err(truncated(pdu));
                }
                if registers > 31 || count != 2 + registers * 2 {
                    let message = format!("{count} octets for {registers} registers; at most 31");
                    return Err(malformed(1, "bad-length", message));
                }
                exactly(pdu, 3 + count)?;
                Self::FifoQueue(Registers::new(&pdu[5..]))
            }
            ENCAPSULATED_INTERFACE if data.first() == Some(&MEI_DEVICE_IDENTIFICATION) => {
                Self::DeviceIdentification(Identification::decode(pdu)?)
            }
            EXCEPTION.. => {
                exactly(pdu, 2)?;
                Self::Exception { function: function & !EXCEPTION, code: Exception(pdu[1]) }
            }
            ENCAPSULATED_INTERFACE if data.is_empty() => return Err(truncated(pdu)),
            function => Self::Other { function, data },
        })
    }

    /// Append the PDU. What does not fit a PDU is cut: a device's answers are made to fit before.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mark = out.len();
        out.push(self.function());
        let mut put = |fields: &[u16]| {
            for field in fields {
                out.extend_from_slice(&field.to_be_bytes());
            }
        };
        match *self {
            Self::Bits { values, .. } => put_counted(values.octets(), out),
            Self::Registers { values, .. } | Self::ReadWriteMultipleRegisters(values) => {
                put_counted(values.octets(), out);
            }
            Self::WriteSingleCoil { address, on } => put(&[address, if on { COIL_ON } else { 0 }]),
            Self::WriteSingleRegister { address, value } => put(&[address, value]),
            Self::ExceptionStatus(status) => out.push(status),
            Self::Diagnostics { sub_function, data } => {
                put(&[sub_function]);
                out.extend_from_slice(data);
            }
            Self::CommEventCounter { status, events } => put(&[status, events]),
            Self::CommEventLog { status, events, messages, log } => {
                out.push((6 + log.len()).min(MAX_PDU - 2) as u8);
                for field in [status, events, messages] {
                    out.extend_from_slice(&field.to_be_bytes());
                }
                out.extend_from_slice(log);
            }
            Self::WriteMultipleCoils { address, quantity } | Self::WriteMultipleRegisters { address, quantity } => {
                put(&[address, quantity]);
            }
            Self::ServerId(octets) => put_counted(octets, out),
            Self::FileRecords(records) => put_counted(records.octets(), out),
            Self::WriteFileRecord(groups) => put_counted(groups.octets(), out),
            Self::MaskWriteRegister { address, and, or } => put(&[address, and, or]),
            Self::FifoQueue(values) => {
                put(&[2 + values.octets().len() as u16, values.len() as u16]);
                out.extend_from_slice(values.octets());
            }
            Self::DeviceIdentification(identification) => {
                out.truncate(mark);
                identification.encode(out);
            }
            Self::Exception { code, .. } => out.push(code.0),
            Self::Other { data, .. } => out.extend_from_slice(data),
        }
        out.truncate(mark + MAX_PDU);
    }

    /// The function code, with its high bit for an exception.
    pub fn function(&self) -> u8 {
        match *self {
            Self::Bits { table, .. } | Self::Registers { table, .. } => table.function(),
            Self::WriteSingleCoil { .. } => WRITE_SINGLE_COIL,
            Self::WriteSingleRegister { .. } => WRITE_SINGLE_REGISTER,
            Self::ExceptionStatus(_) => READ_EXCEPTION_STATUS,
            Self::Diagnostics { .. } => DIAGNOSTICS,
            Self::CommEventCounter { .. } => GET_COMM_EVENT_COUNTER,
            Self::CommEventLog { .. } => GET_COMM_EVENT_LOG,
            Self::WriteMultipleCoils { .. } => WRITE_MULTIPLE_COILS,
            Self::WriteMultipleRegisters { .. } => WRITE_MULTIPLE_REGISTERS,
            Self::ServerId(_) => REPORT_SERVER_ID,
            Self::FileRecords(_) => READ_FILE_RECORD,
            Self::WriteFileRecord(_) => WRITE_FILE_RECORD,
            Self::MaskWriteRegister { .. } => MASK_WRITE_REGISTER,
            Self::ReadWriteMultipleRegisters(_) => READ_WRITE_MULTIPLE_REGISTERS,
            Self::FifoQueue(_) => READ_FIFO_QUEUE,
            Self::DeviceIdentification(_) => ENCAPSULATED_INTERFACE,
            Self::Exception { function, .. } => function | EXCEPTION,
            Self::Other { function, .. } => function,
        }
    }
}

fn put_counted(octets: &[u8], out: &mut Vec<u8>) {
    let octets = &octets[..octets.len().min(MAX_PDU - 2)];
    out.push(octets.len() as u8);
    out.extend_from_slice(octets);
}

fn registers(octets: &[u8], offset: usize) -> Result<Registers<'_>, ProtocolError> {
    if octets.is_empty() || octets.len() % 2 != 0 {
        let message = format!("{} octets of registers; an even number, not 0, is allowed", octets.len());
        return Err(malformed(offset, "bad-length", message));
    }
    Ok(Registers::new(octets))
}
