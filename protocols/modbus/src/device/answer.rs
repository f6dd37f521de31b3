//! One request's answer.

use ipss_session::Now;

use super::{Access, Model};
use crate::function::{EXCEPTION, Exception, MEI_DEVICE_IDENTIFICATION};
use crate::pdu::{Bits, Identification, MAX_PDU, Registers, RequestPdu, ResponsePdu, Table};

/// Append the answer to the request in `pdu` as a PDU.
pub(super) fn answer<M: Model>(model: &mut M, access: Access, pdu: &[u8], now: Now, out: &mut Vec<u8>) {
    let mark = out.len();
    let function = pdu.first().copied().unwrap_or_default() & !EXCEPTION;
    let result = match RequestPdu::decode(pdu) {
        Ok(request) => done(model, access, &request, now, out),
        // The specification has the function refused before the quantity is.
        Err(_) if RequestPdu::decode(&[function]).is_ok_and(|one| matches!(one, RequestPdu::Other { .. })) => {
            Err(Exception::ILLEGAL_FUNCTION)
        }
        Err(_) => Err(Exception::ILLEGAL_DATA_VALUE),
    };
    let length = out.len() - mark;
    let code = match result {
        Ok(()) if (1..=MAX_PDU).contains(&length) => return,
        Ok(()) => Exception::SERVER_DEVICE_FAILURE,
        Err(code) => code,
    };
    out.truncate(mark);
    ResponsePdu::Exception { function, code }.encode(out);
}

fn done<M: Model>(
    model: &mut M,
    access: Access,
    request: &RequestPdu<'_>,
    now: Now,
    out: &mut Vec<u8>,
) -> Result<(), Exception> {
    match *request {
        RequestPdu::Read { table, address, quantity } => read(model, access, table, address, quantity, now, out)?,
        RequestPdu::WriteSingleCoil { address, on } => {
            model.write_coils(access, address, Bits::new(&[u8::from(on)], 1), now)?;
            ResponsePdu::WriteSingleCoil { address, on }.encode(out);
        }
        RequestPdu::WriteSingleRegister { address, value } => {
            model.write_registers(access, address, Registers::new(&value.to_be_bytes()), now)?;
            ResponsePdu::WriteSingleRegister { address, value }.encode(out);
        }
        RequestPdu::WriteMultipleCoils { address, values } => {
            within(address, values.len())?;
            model.write_coils(access, address, values, now)?;
            ResponsePdu::WriteMultipleCoils { address, quantity: values.len() as u16 }.encode(out);
        }
        RequestPdu::WriteMultipleRegisters { address, values } => {
            within(address, values.len())?;
            model.write_registers(access, address, values, now)?;
            ResponsePdu::WriteMultipleRegisters { address, quantity: values.len() as u16 }.encode(out);
        }
        RequestPdu::MaskWriteRegister { address, and, or } => {
            let mut octets = Vec::with_capacity(2);
            model.read(access, Table::Holding, address, 1, now, &mut octets)?;
            let old = Registers::new(&octets).at(0).ok_or(Exception::SERVER_DEVICE_FAILURE)?;
            let new = old & and | or & !and;
            model.write_registers(access, address, Registers::new(&new.to_be_bytes()), now)?;
            ResponsePdu::MaskWriteRegister { address, and, or }.encode(out);
        }
        RequestPdu::ReadWriteMultipleRegisters { read_address, read_quantity, write_address, values } => {
            within(write_address, values.len())?;
            within(read_address, read_quantity.into())?;
            // Whether the read will do is known before anything is written.
            model.read(access, Table::Holding, read_address, read_quantity, now, &mut Vec::new())?;
            model.write_registers(access, write_address, values, now)?;
            let mut octets = Vec::with_capacity(usize::from(read_quantity) * 2);
            model.read(access, Table::Holding, read_address, read_quantity, now, &mut octets)?;
            ResponsePdu::ReadWriteMultipleRegisters(Registers::new(&octets)).encode(out);
        }
        RequestPdu::Diagnostics { sub_function: 0, data } => {
            ResponsePdu::Diagnostics { sub_function: 0, data }.encode(out);
        }
        RequestPdu::ReadDeviceIdentification { code, object } => identify(model, access.unit, code, object, out)?,
        _ => model.other(access, request, now, out)?,
    }
    Ok(())
}

fn read<M: Model>(
    model: &mut M,
    access: Access,
    table: Table,
    address: u16,
    quantity: u16,
    now: Now,
    out: &mut Vec<u8>,
) -> Result<(), Exception> {
    within(address, quantity.into())?;
    out.extend_from_slice(&[table.function(), table.octets(quantity) as u8]);
    let start = out.len();
    model.read(access, table, address, quantity, now, out)?;
    if table.is_bits() {
        let bits = out.split_off(start);
        Bits::pack(bits.iter().map(|bit| *bit != 0), out);
    }
    if out.len() - start == table.octets(quantity) { Ok(()) } else { Err(Exception::SERVER_DEVICE_FAILURE) }
}

fn within(address: u16, quantity: usize) -> Result<(), Exception> {
    if usize::from(address) + quantity <= 65_536 { Ok(()) } else { Err(Exception::ILLEGAL_DATA_ADDRESS) }
}

/// Clause 6.21: as many objects as fit, and where to go on.
fn identify<M: Model>(model: &M, unit: u8, code: u8, object: u8, out: &mut Vec<u8>) -> Result<(), Exception> {
    let has = |id: u8| model.identification(unit, id).is_some();
    if !has(0) {
        return Err(Exception::ILLEGAL_FUNCTION);
    }
    let level = if (128..=255).any(has) {
        3
    } else if (3..=6).any(has) {
        2
    } else {
        1
    };
    let last = match code {
        1 => 2,
        2 => 127,
        3 => 255,
        4 if has(object) => object,
        4 => return Err(Exception::ILLEGAL_DATA_ADDRESS),
        _ => return Err(Exception::ILLEGAL_DATA_VALUE),
    };
    // A beginning that is not there begins anew.
    let first = if code != 4 && (object > last || !has(object)) { 0 } else { object };
    let room = MAX_PDU - 7;
    let (mut objects, mut next) = (Vec::new(), None);
    for id in (first..=last).filter(|id| has(*id)) {
        let Some(octets) = model.identification(unit, id) else { continue };
        let octets = &octets[..octets.len().min(room - 2)];
        if objects.len() + 2 + octets.len() > room {
            next = Some(id);
            break;
        }
        objects.extend_from_slice(&[id, octets.len() as u8]);
        objects.extend_from_slice(octets);
    }
    let answer = Identification {
        code,
        conformity: 0x80 | level,
        more_follows: next.is_some(),
        next_object: next.unwrap_or(0),
        objects: Identification::objects(&objects),
    };
    debug_assert_eq!(MEI_DEVICE_IDENTIFICATION, 14);
    ResponsePdu::DeviceIdentification(answer).encode(out);
    Ok(())
}
