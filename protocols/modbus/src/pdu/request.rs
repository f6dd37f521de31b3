//! What is asked (Modbus Application Protocol V1.1b3, clause 6).

use ipss_session::ProtocolError;

use super::{
    Bits, FileReads, FileWrites, MAX_PDU, MAX_READ_WRITE_REGISTERS, MAX_WRITE_BITS, MAX_WRITE_REGISTERS, Registers,
    Table, malformed, u16_at,
};
use crate::function::*;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the specification's, address by address")]
pub enum RequestPdu<'a> {
    /// Functions 1 to 4.
    Read { table: Table, address: u16, quantity: u16 },
    /// Function 5.
    WriteSingleCoil { address: u16, on: bool },
    /// Function 6.
    WriteSingleRegister { address: u16, value: u16 },
    /// Function 7.
    ReadExceptionStatus,
    /// Function 8; `data` comes back from sub-function 0, else it has two octets.
    Diagnostics { sub_function: u16, data: &'a [u8] },
    /// Function 11.
    CommEventCounter,
    /// Function 12.
    CommEventLog,
    /// Function 15.
    WriteMultipleCoils { address: u16, values: Bits<'a> },
    /// Function 16.
    WriteMultipleRegisters { address: u16, values: Registers<'a> },
    /// Function 17.
    ReportServerId,
    /// Function 20.
    ReadFileRecord(FileReads<'a>),
    /// Function 21.
    WriteFileRecord(FileWrites<'a>),
    /// Function 22: register = (register and `and`) or (`or` and not `and`).
    MaskWriteRegister { address: u16, and: u16, or: u16 },
    /// Function 23: the write first, then the read.
    ReadWriteMultipleRegisters { read_address: u16, read_quantity: u16, write_address: u16, values: Registers<'a> },
    /// Function 24.
    ReadFifoQueue { address: u16 },
    /// Function 43, MEI type 14. `code` 1 basic, 2 regular, 3 extended, 4 one object; `object` where to begin.
    ReadDeviceIdentification { code: u8, object: u8 },
    /// Anything else as it came: private functions, other MEI types.
    Other { function: u8, data: &'a [u8] },
}

impl<'a> RequestPdu<'a> {
    /// From a whole PDU.
    ///
    /// # Errors
    /// Remote, `modbus`: `empty`, `truncated`, `surplus`, `bad-quantity`, `bad-length`, `bad-value`, `too-long`.
    pub fn decode(pdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let Some((function, data)) = pdu.split_first() else { return Err(malformed(0, "empty", "a PDU of no octets")) };
        if pdu.len() > MAX_PDU {
            return Err(malformed(0, "too-long", format!("a PDU of {} octets; at most {MAX_PDU}", pdu.len())));
        }
        let fields = |count: usize| -> Result<[u16; 4], ProtocolError> {
            exactly(pdu, 1 + count * 2)?;
            Ok([1, 3, 5, 7].map(|at| u16_at(pdu, at).unwrap_or_default()))
        };
        Ok(match *function {
            READ_COILS..=READ_INPUT_REGISTERS => {
                let [address, quantity, ..] = fields(2)?;
                let table = Table::of_function(*function).unwrap_or(Table::Holding);
                quantity_within(quantity, table.max_read(), 3)?;
                Self::Read { table, address, quantity }
            }
            WRITE_SINGLE_COIL => {
                let [address, value, ..] = fields(2)?;
                Self::WriteSingleCoil { address, on: coil(value)? }
            }
            WRITE_SINGLE_REGISTER => {
                let [address, value, ..] = fields(2)?;
                Self::WriteSingleRegister { address, value }
            }
            READ_EXCEPTION_STATUS => exactly(pdu, 1).map(|()| Self::ReadExceptionStatus)?,
            DIAGNOSTICS => {
                let sub_function = u16_at(pdu, 1).ok_or_else(|| truncated(pdu))?;
                if sub_function != 0 {
                    exactly(pdu, 5)?;
                }
                Self::Diagnostics { sub_function, data: &pdu[3..] }
            }
            GET_COMM_EVENT_COUNTER => exactly(pdu, 1).map(|()| Self::CommEventCounter)?,
            GET_COMM_EVENT_LOG => exactly(pdu, 1).map(|()| Self::CommEventLog)?,
            WRITE_MULTIPLE_COILS => {
                let (address, quantity, octets) = write_multiple(pdu, MAX_WRITE_BITS)?;
                if octets.len() != usize::from(quantity).div_ceil(8) {
                    return Err(bad_count(5, octets.len(), quantity));
                }
                Self::WriteMultipleCoils { address, values: Bits::new(octets, quantity.into()) }
            }
            WRITE_MULTIPLE_REGISTERS => {
                let (address, quantity, octets) = write_multiple(pdu, MAX_WRITE_REGISTERS)?;
                if octets.len() != usize::from(quantity) * 2 {
                    return Err(bad_count(5, octets.len(), quantity));
                }
                Self::WriteMultipleRegisters { address, values: Registers::new(octets) }
            }
            REPORT_SERVER_ID => exactly(pdu, 1).map(|()| Self::ReportServerId)?,
            READ_FILE_RECORD => Self::ReadFileRecord(FileReads::decode(counted(pdu, 1)?)?),
            WRITE_FILE_RECORD => Self::WriteFileRecord(FileWrites::decode(counted(pdu, 1)?)?),
            MASK_WRITE_REGISTER => {
                let [address, and, or, _] = fields(3)?;
                Self::MaskWriteRegister { address, and, or }
            }
            READ_WRITE_MULTIPLE_REGISTERS => {
                let octets = counted(pdu, 9)?;
                let [read_address, read_quantity, write_address, write_quantity] =
                    [1, 3, 5, 7].map(|at| u16_at(pdu, at).unwrap_or_default());
                quantity_within(read_quantity, Table::Holding.max_read(), 3)?;
                quantity_within(write_quantity, MAX_READ_WRITE_REGISTERS, 7)?;
                if octets.len() != usize::from(write_quantity) * 2 {
                    return Err(bad_count(9, octets.len(), write_quantity));
                }
                let values = Registers::new(octets);
                Self::ReadWriteMultipleRegisters { read_address, read_quantity, write_address, values }
            }
            READ_FIFO_QUEUE => {
                let [address, ..] = fields(1)?;
                Self::ReadFifoQueue { address }
            }
            ENCAPSULATED_INTERFACE if data.first() == Some(&MEI_DEVICE_IDENTIFICATION) => {
                exactly(pdu, 4)?;
                Self::ReadDeviceIdentification { code: pdu[2], object: pdu[3] }
            }
            ENCAPSULATED_INTERFACE if data.is_empty() => return Err(truncated(pdu)),
            function => Self::Other { function, data },
        })
    }

    /// Append the PDU.
    ///
    /// # Errors
    /// Local, `modbus`: `bad-quantity`, `too-long`: the specification forbids it; nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let mark = out.len();
        let quantity = match *self {
            Self::Read { table, quantity, .. } => Some((usize::from(quantity), table.max_read())),
            Self::WriteMultipleCoils { values, .. } => Some((values.len(), MAX_WRITE_BITS)),
            Self::WriteMultipleRegisters { values, .. } => Some((values.len(), MAX_WRITE_REGISTERS)),
            Self::ReadWriteMultipleRegisters { read_quantity, values, .. } => {
                check_local(values.len(), MAX_READ_WRITE_REGISTERS)?;
                Some((usize::from(read_quantity), Table::Holding.max_read()))
            }
            _ => None,
        };
        if let Some((quantity, most)) = quantity {
            check_local(quantity, most)?;
        }
        out.push(self.function());
        let mut put = |fields: &[u16]| {
            for field in fields {
                out.extend_from_slice(&field.to_be_bytes());
            }
        };
        match *self {
            Self::Read { address, quantity, .. } => put(&[address, quantity]),
            Self::WriteSingleCoil { address, on } => put(&[address, if on { COIL_ON } else { 0 }]),
            Self::WriteSingleRegister { address, value } => put(&[address, value]),
            Self::ReadExceptionStatus | Self::CommEventCounter | Self::CommEventLog | Self::ReportServerId => {}
            Self::Diagnostics { sub_function, data } => {
                put(&[sub_function]);
                out.extend_from_slice(data);
            }
            Self::WriteMultipleCoils { address, values } => {
                put(&[address, values.len() as u16]);
                let octets = values.len().div_ceil(8);
                out.push(octets as u8);
                out.extend_from_slice(&values.octets()[..octets]);
            }
            Self::WriteMultipleRegisters { address, values } => {
                put(&[address, values.len() as u16]);
                out.push(values.octets().len() as u8);
                out.extend_from_slice(values.octets());
            }
            Self::ReadFileRecord(groups) => {
                out.push(groups.octets().len().min(255) as u8);
                out.extend_from_slice(groups.octets());
            }
            Self::WriteFileRecord(groups) => {
                out.push(groups.octets().len().min(255) as u8);
                out.extend_from_slice(groups.octets());
            }
            Self::MaskWriteRegister { address, and, or } => put(&[address, and, or]),
            Self::ReadWriteMultipleRegisters { read_address, read_quantity, write_address, values } => {
                put(&[read_address, read_quantity, write_address, values.len() as u16]);
                out.push(values.octets().len() as u8);
                out.extend_from_slice(values.octets());
            }
            Self::ReadFifoQueue { address } => put(&[address]),
            Self::ReadDeviceIdentification { code, object } => {
                out.extend_from_slice(&[MEI_DEVICE_IDENTIFICATION, code, object]);
            }
            Self::Other { data, .. } => out.extend_from_slice(data),
        }
        let length = out.len() - mark;
        if length > MAX_PDU {
            out.truncate(mark);
            let message = format!("a PDU of {length} octets; at most {MAX_PDU} fit");
            return Err(ProtocolError::local("modbus", "too-long", message));
        }
        Ok(())
    }

    /// The function code.
    pub fn function(&self) -> u8 {
        match *self {
            Self::Read { table, .. } => table.function(),
            Self::WriteSingleCoil { .. } => WRITE_SINGLE_COIL,
            Self::WriteSingleRegister { .. } => WRITE_SINGLE_REGISTER,
            Self::ReadExceptionStatus => READ_EXCEPTION_STATUS,
            Self::Diagnostics { .. } => DIAGNOSTICS,
            Self::CommEventCounter => GET_COMM_EVENT_COUNTER,
            Self::CommEventLog => GET_COMM_EVENT_LOG,
            Self::WriteMultipleCoils { .. } => WRITE_MULTIPLE_COILS,
            Self::WriteMultipleRegisters { .. } => WRITE_MULTIPLE_REGISTERS,
            Self::ReportServerId => REPORT_SERVER_ID,
            Self::ReadFileRecord(_) => READ_FILE_RECORD,
            Self::WriteFileRecord(_) => WRITE_FILE_RECORD,
            Self::MaskWriteRegister { .. } => MASK_WRITE_REGISTER,
            Self::ReadWriteMultipleRegisters { .. } => READ_WRITE_MULTIPLE_REGISTERS,
            Self::ReadFifoQueue { .. } => READ_FIFO_QUEUE,
            Self::ReadDeviceIdentification { .. } => ENCAPSULATED_INTERFACE,
            Self::Other { function, .. } => function,
        }
    }
}

pub(super) fn exactly(pdu: &[u8], length: usize) -> Result<(), ProtocolError> {
    match pdu.len() {
        found if found == length => Ok(()),
        found if found < length => Err(truncated(pdu)),
        found => Err(malformed(length, "surplus", format!("{} octets too many", found - length))),
    }
}

pub(super) fn truncated(pdu: &[u8]) -> ProtocolError {
    malformed(pdu.len(), "truncated", format!("a PDU of {} octets that is not whole", pdu.len()))
}

/// The octets behind the byte count at `at`, which must be all that there are.
pub(super) fn counted(pdu: &[u8], at: usize) -> Result<&[u8], ProtocolError> {
    let count = usize::from(*pdu.get(at).ok_or_else(|| truncated(pdu))?);
    exactly(pdu, at + 1 + count)?;
    Ok(&pdu[at + 1..])
}

fn write_multiple(pdu: &[u8], most: u16) -> Result<(u16, u16, &[u8]), ProtocolError> {
    let octets = counted(pdu, 5)?;
    let [address, quantity] = [1, 3].map(|at| u16_at(pdu, at).unwrap_or_default());
    quantity_within(quantity, most, 3)?;
    Ok((address, quantity, octets))
}

fn quantity_within(quantity: u16, most: u16, offset: usize) -> Result<(), ProtocolError> {
    if (1..=most).contains(&quantity) {
        return Ok(());
    }
    Err(malformed(offset, "bad-quantity", format!("a quantity of {quantity}; 1 to {most} are allowed")))
}

fn check_local(quantity: usize, most: u16) -> Result<(), ProtocolError> {
    if (1..=usize::from(most)).contains(&quantity) {
        return Ok(());
    }
    let message = format!("a quantity of {quantity}; 1 to {most} are allowed");
    Err(ProtocolError::local("modbus", "bad-quantity", message))
}

pub(super) fn coil(value: u16) -> Result<bool, ProtocolError> {
    match value {
        COIL_ON => Ok(true),
        0 => Ok(false),
        other => Err(malformed(3, "bad-value", format!("{other:04X} for a coil; FF00 and 0000 are allowed"))),
    }
}

fn bad_count(offset: usize, octets: usize, quantity: u16) -> ProtocolError {
    malformed(offset, "bad-length", format!("{octets} octets for a quantity of {quantity}"))
}

/// A coil that is on (clause 6.5).
pub(super) const COIL_ON: u16 = 0xFF00;
