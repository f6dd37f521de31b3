//! What a device holds, as its session asks for it.

use ipss_session::Now;

use crate::function::Exception;
use crate::pdu::{Bits, Registers, RequestPdu, ResponsePdu, Table};

/// Who asks for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The unit that is asked; 0 for a broadcast, which nobody answers.
    pub unit: u8,
    /// What the other end may do, as the transport proved it (Modbus/TCP Security: the role in its certificate).
    pub role: Role,
}

/// What the other end may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Plain Modbus knows no roles: whatever the model allows to anybody.
    #[default]
    Anybody,
    /// Only read.
    Reader,
    /// Read and write.
    Operator,
}

/// The units behind one connection.
///
/// The session has checked each request against the specification: quantities are within it and blocks end at address
/// 65,535 at the latest. What a model does not have, it refuses; functions that it does not know, it leaves out.
pub trait Model {
    /// Whether the unit is here. A unit that is not gives no answer, as behind a serial line.
    fn serves(&mut self, unit: u8) -> bool;

    /// Append coils or inputs as single octets 0 and 1, registers as two octets each. On a *no*, `out` may hold
    /// anything.
    ///
    /// # Errors
    /// The exception that is answered instead.
    fn read(
        &mut self,
        access: Access,
        table: Table,
        address: u16,
        quantity: u16,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), Exception>;

    /// Write holding registers.
    ///
    /// # Errors
    /// The exception that is answered instead; nothing must have been written then.
    fn write_registers(
        &mut self,
        access: Access,
        address: u16,
        values: Registers<'_>,
        now: Now,
    ) -> Result<(), Exception>;

    /// Write coils.
    ///
    /// # Errors
    /// The exception that is answered instead; nothing must have been written then.
    fn write_coils(&mut self, access: Access, address: u16, values: Bits<'_>, now: Now) -> Result<(), Exception>;

    /// An object of device identification: 0 vendor, 1 product code, 2 revision, 3 to 6 regular, 128 on extended.
    /// Objects 0 to 2 are needed for a device to have any.
    fn identification(&self, _unit: u8, _object: u8) -> Option<&[u8]> {
        None
    }

    /// Any other request. The answer is appended to `out` as a whole PDU ([`ResponsePdu::encode`]).
    ///
    /// # Errors
    /// The exception that is answered instead.
    fn other(
        &mut self,
        _access: Access,
        _request: &RequestPdu<'_>,
        _now: Now,
        _out: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        Err(Exception::ILLEGAL_FUNCTION)
    }
}

/// A device that is nothing but memory: for tests, and as the ground of simulated devices.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Which units answer; all if empty.
    pub units: Vec<u8>,
    /// Coils from address 0 on.
    pub coils: Vec<bool>,
    /// Discrete inputs from address 0 on.
    pub inputs: Vec<bool>,
    /// Holding registers from address 0 on.
    pub holding: Vec<u16>,
    /// Input registers from address 0 on.
    pub input: Vec<u16>,
    /// Device identification: object and octets.
    pub identification: Vec<(u8, Vec<u8>)>,
    /// How many writes were done.
    pub writes: u64,
    /// What [`RequestPdu::ReadFileRecord`] reads of: record n is register n.
    pub file: Vec<u16>,
    /// What [`RequestPdu::ReadFifoQueue`] returns.
    pub fifo: Vec<u16>,
    /// What [`RequestPdu::ReadExceptionStatus`] returns.
    pub exceptions: u8,
    /// Counters of diagnostics, sub-functions 11 to 18: for 10 and 20 to clear.
    pub counters: [u16; 8],
}

/// Sub-functions of diagnostics (Modbus Application Protocol V1.1b3, clause 6.8.1). Left out is 4, force listen only: it
/// has no answer.
const RESTART: u16 = 1;
const DIAGNOSTIC_REGISTER: u16 = 2;
const ASCII_DELIMITER: u16 = 3;
const CLEAR_COUNTERS: u16 = 10;
const FIRST_COUNTER: u16 = 11;
const CLEAR_OVERRUN: u16 = 20;

fn part<T>(values: &[T], address: u16, quantity: usize) -> Result<&[T], Exception> {
    let start = usize::from(address);
    values.get(start..start + quantity).ok_or(Exception::ILLEGAL_DATA_ADDRESS)
}

impl Model for Memory {
    fn serves(&mut self, unit: u8) -> bool {
        self.units.is_empty() || self.units.contains(&unit)
    }

    fn read(
        &mut self,
        _: Access,
        table: Table,
        address: u16,
        quantity: u16,
        _: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        let quantity = usize::from(quantity);
        match table {
            Table::Coils => out.extend(part(&self.coils, address, quantity)?.iter().map(|bit| u8::from(*bit))),
            Table::DiscreteInputs => {
                out.extend(part(&self.inputs, address, quantity)?.iter().map(|bit| u8::from(*bit)))
            }
            Table::Holding | Table::Input => {
                let registers = if table == Table::Holding { &self.holding } else { &self.input };
                for register in part(registers, address, quantity)? {
                    out.extend_from_slice(&register.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    fn write_registers(&mut self, _: Access, address: u16, values: Registers<'_>, _: Now) -> Result<(), Exception> {
        part(&self.holding, address, values.len())?;
        for (place, value) in self.holding[usize::from(address)..].iter_mut().zip(values.iter()) {
            *place = value;
        }
        self.writes += 1;
        Ok(())
    }

    fn write_coils(&mut self, _: Access, address: u16, values: Bits<'_>, _: Now) -> Result<(), Exception> {
        part(&self.coils, address, values.len())?;
        for (place, value) in self.coils[usize::from(address)..].iter_mut().zip(values.iter()) {
            *place = value;
        }
        self.writes += 1;
        Ok(())
    }

    fn identification(&self, _: u8, object: u8) -> Option<&[u8]> {
        self.identification.iter().find(|(id, _)| *id == object).map(|(_, octets)| &octets[..])
    }

    fn other(&mut self, _: Access, request: &RequestPdu<'_>, _: Now, out: &mut Vec<u8>) -> Result<(), Exception> {
        let octets = |registers: &[u16]| registers.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>();
        match *request {
            RequestPdu::ReadExceptionStatus => ResponsePdu::ExceptionStatus(self.exceptions).encode(out),
            RequestPdu::Diagnostics { sub_function, data } if data.len() == 2 => {
                let counter = sub_function.checked_sub(FIRST_COUNTER).map(usize::from);
                let counted = counter.and_then(|place| self.counters.get(place)).map(|count| count.to_be_bytes());
                let data = match (sub_function, &counted) {
                    (_, Some(counted)) => &counted[..],
                    (CLEAR_COUNTERS | CLEAR_OVERRUN | RESTART | ASCII_DELIMITER, None) => data,
                    (DIAGNOSTIC_REGISTER, None) => &[0, 0],
                    _ => return Err(Exception::ILLEGAL_FUNCTION),
                };
                match sub_function {
                    CLEAR_COUNTERS | RESTART => self.counters = [0; 8],
                    CLEAR_OVERRUN => self.counters[7] = 0,
                    _ => {}
                }
                ResponsePdu::Diagnostics { sub_function, data }.encode(out);
            }
            RequestPdu::CommEventCounter => {
                ResponsePdu::CommEventCounter { status: 0, events: self.writes as u16 }.encode(out);
            }
            RequestPdu::CommEventLog => {
                let events = self.writes as u16;
                ResponsePdu::CommEventLog { status: 0, events, messages: 0, log: &[] }.encode(out);
            }
            RequestPdu::ReportServerId => ResponsePdu::ServerId(b"ipss\xFF").encode(out),
            RequestPdu::ReadFifoQueue { .. } => {
                let values = octets(&self.fifo[..self.fifo.len().min(31)]);
                ResponsePdu::FifoQueue(Registers::new(&values)).encode(out);
            }
            RequestPdu::ReadFileRecord(groups) => {
                let mut records = Vec::new();
                for group in groups.iter() {
                    let values = octets(part(&self.file, group.record, usize::from(group.length))?);
                    crate::pdu::FileRecords::pack(Registers::new(&values), &mut records);
                }
                if records.len() > 245 {
                    return Err(Exception::ILLEGAL_DATA_VALUE);
                }
                out.extend_from_slice(&[request.function(), records.len() as u8]);
                out.extend_from_slice(&records);
            }
            RequestPdu::WriteFileRecord(groups) => {
                for group in groups.iter() {
                    part(&self.file, group.record, group.values.len())?;
                }
                for group in groups.iter() {
                    for (place, value) in self.file[usize::from(group.record)..].iter_mut().zip(group.values.iter()) {
                        *place = value;
                    }
                }
                self.writes += 1;
                ResponsePdu::WriteFileRecord(groups).encode(out);
            }
            _ => return Err(Exception::ILLEGAL_FUNCTION),
        }
        Ok(())
    }
}
