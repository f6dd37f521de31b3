//! The members of one request or response.

use ipss_session::json::Json;

use crate::pdu::{Bits, IdentificationObjects, Registers, RequestPdu, ResponsePdu};

pub(super) fn request(request: &RequestPdu<'_>, out: &mut Json<'_>) {
    match *request {
        RequestPdu::Read { address, quantity, .. } => {
            out.member_integer("address", address);
            out.member_integer("quantity", quantity);
        }
        RequestPdu::WriteSingleCoil { address, on } => coil(address, on, out),
        RequestPdu::WriteSingleRegister { address, value } => register(address, value, out),
        RequestPdu::ReadExceptionStatus
        | RequestPdu::CommEventCounter
        | RequestPdu::CommEventLog
        | RequestPdu::ReportServerId => {}
        RequestPdu::Diagnostics { sub_function, data } => diagnostics(sub_function, data, out),
        RequestPdu::WriteMultipleCoils { address, values } => {
            out.member_integer("address", address);
            out.member_integer("quantity", values.len() as u64);
            coils(values, out);
        }
        RequestPdu::WriteMultipleRegisters { address, values } => {
            out.member_integer("address", address);
            out.member_integer("quantity", values.len() as u64);
            registers(values, out);
        }
        RequestPdu::ReadFileRecord(groups) => {
            out.key("records");
            out.begin('[');
            for group in groups.iter() {
                out.begin('{');
                out.member_integer("file", group.file);
                out.member_integer("record", group.record);
                out.member_integer("quantity", group.length);
                out.end();
            }
            out.end();
        }
        RequestPdu::WriteFileRecord(groups) => written(groups, out),
        RequestPdu::MaskWriteRegister { address, and, or } => mask(address, and, or, out),
        RequestPdu::ReadWriteMultipleRegisters { read_address, read_quantity, write_address, values } => {
            out.member_integer("read_address", read_address);
            out.member_integer("read_quantity", read_quantity);
            out.member_integer("write_address", write_address);
            out.member_integer("write_quantity", values.len() as u64);
            registers(values, out);
        }
        RequestPdu::ReadFifoQueue { address } => out.member_integer("address", address),
        RequestPdu::ReadDeviceIdentification { code, object } => {
            out.member_integer("mei_type", crate::function::MEI_DEVICE_IDENTIFICATION);
            out.member_integer("read_code", code);
            out.member_integer("object_id", object);
        }
        RequestPdu::Other { data, .. } => out.member_hex("data", data),
    }
}

/// `bits`: how many coils or inputs were asked for, if that is known; the rest of the last octet is padding.
pub(super) fn response(response: &ResponsePdu<'_>, bits: Option<u16>, out: &mut Json<'_>) {
    match *response {
        ResponsePdu::Bits { values, .. } => {
            let count = bits.map_or(values.len(), usize::from);
            coils(Bits::new(values.octets(), count), out);
        }
        ResponsePdu::Registers { values, .. }
        | ResponsePdu::ReadWriteMultipleRegisters(values)
        | ResponsePdu::FifoQueue(values) => registers(values, out),
        ResponsePdu::WriteSingleCoil { address, on } => coil(address, on, out),
        ResponsePdu::WriteSingleRegister { address, value } => register(address, value, out),
        ResponsePdu::ExceptionStatus(status) => out.member_integer("status", status),
        ResponsePdu::Diagnostics { sub_function, data } => diagnostics(sub_function, data, out),
        ResponsePdu::CommEventCounter { status, events } => {
            out.member_integer("status", status);
            out.member_integer("event_count", events);
        }
        ResponsePdu::CommEventLog { status, events, messages, log } => {
            out.member_integer("status", status);
            out.member_integer("event_count", events);
            out.member_integer("message_count", messages);
            out.member_hex("events", log);
        }
        ResponsePdu::WriteMultipleCoils { address, quantity }
        | ResponsePdu::WriteMultipleRegisters { address, quantity } => {
            out.member_integer("address", address);
            out.member_integer("quantity", quantity);
        }
        ResponsePdu::ServerId(octets) => out.member_hex("server_id", octets),
        ResponsePdu::FileRecords(records) => {
            out.key("records");
            out.begin('[');
            for record in records.iter() {
                out.begin('{');
                registers(record, out);
                out.end();
            }
            out.end();
        }
        ResponsePdu::WriteFileRecord(groups) => written(groups, out),
        ResponsePdu::MaskWriteRegister { address, and, or } => mask(address, and, or, out),
        ResponsePdu::DeviceIdentification(identification) => {
            out.member_integer("mei_type", crate::function::MEI_DEVICE_IDENTIFICATION);
            out.member_integer("read_code", identification.code);
            out.member_integer("conformity", identification.conformity);
            out.member_boolean("more_follows", identification.more_follows);
            out.member_integer("next_object_id", identification.next_object);
            out.key("objects");
            out.begin('[');
            for (id, value) in identification.objects.iter() {
                out.begin('{');
                out.member_integer("id", id);
                out.key("name");
                match IdentificationObjects::name(id) {
                    Some(name) => out.string(name),
                    None => out.null(),
                }
                out.key("value");
                out.text(value);
                out.end();
            }
            out.end();
        }
        ResponsePdu::Exception { code, .. } => {
            out.member_integer("exception_code", code.0);
            out.key("exception");
            match code.name() {
                Some(name) => out.string(name),
                None => out.null(),
            }
        }
        ResponsePdu::Other { data, .. } => out.member_hex("data", data),
    }
}

fn coil(address: u16, on: bool, out: &mut Json<'_>) {
    out.member_integer("address", address);
    coils(Bits::new(&[u8::from(on)], 1), out);
}

fn register(address: u16, value: u16, out: &mut Json<'_>) {
    out.member_integer("address", address);
    registers(Registers::new(&value.to_be_bytes()), out);
}

fn coils(values: Bits<'_>, out: &mut Json<'_>) {
    out.key("coils");
    out.begin('[');
    values.iter().for_each(|bit| out.integer(u8::from(bit)));
    out.end();
}

fn registers(values: Registers<'_>, out: &mut Json<'_>) {
    out.key("registers");
    out.begin('[');
    values.iter().for_each(|value| out.integer(value));
    out.end();
}

fn diagnostics(sub_function: u16, data: &[u8], out: &mut Json<'_>) {
    out.member_integer("sub_function", sub_function);
    out.member_hex("data", data);
}

fn mask(address: u16, and: u16, or: u16, out: &mut Json<'_>) {
    out.member_integer("address", address);
    out.member_integer("and_mask", and);
    out.member_integer("or_mask", or);
}

fn written(groups: crate::pdu::FileWrites<'_>, out: &mut Json<'_>) {
    out.key("records");
    out.begin('[');
    for group in groups.iter() {
        out.begin('{');
        out.member_integer("file", group.file);
        out.member_integer("record", group.record);
        registers(group.values, out);
        out.end();
    }
    out.end();
}
