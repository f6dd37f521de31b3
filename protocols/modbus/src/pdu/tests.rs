//! The specification's own examples (Modbus Application Protocol V1.1b3, clause 6), octet by octet.

use super::*;
use crate::function::Exception;

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Both ways, and cut off at every octet it is an error.
fn request(hex: &str, means: RequestPdu<'_>) {
    let octets = unhex(hex);
    assert_eq!(RequestPdu::decode(&octets), Ok(means), "{hex}");
    let mut out = vec![9];
    means.encode(&mut out).unwrap();
    assert_eq!(out[1..], octets, "{hex}");
    assert_eq!(request_extent(&octets), Extent::Known(octets.len()), "{hex}");
    for end in 0..octets.len() {
        assert!(RequestPdu::decode(&octets[..end]).is_err(), "{hex} cut at {end}");
        let extent = request_extent(&octets[..end]);
        assert!(matches!(extent, Extent::More | Extent::Known(_)), "{hex} cut at {end}: {extent:?}");
    }
    let longer = [&octets[..], &[0]].concat();
    assert!(RequestPdu::decode(&longer).is_err(), "{hex} with an octet too many");
}

fn response(hex: &str, means: ResponsePdu<'_>) {
    let octets = unhex(hex);
    assert_eq!(ResponsePdu::decode(&octets), Ok(means), "{hex}");
    let mut out = vec![9];
    means.encode(&mut out);
    assert_eq!(out[1..], octets, "{hex}");
    assert_eq!(response_extent(&octets, false), Extent::Known(octets.len()), "{hex}");
    for end in 0..octets.len() {
        assert!(ResponsePdu::decode(&octets[..end]).is_err(), "{hex} cut at {end}");
    }
    let longer = [&octets[..], &[0]].concat();
    assert!(ResponsePdu::decode(&longer).is_err(), "{hex} with an octet too many");
}

fn exception(hex: &str, function: u8, code: u8) {
    response(hex, ResponsePdu::Exception { function, code: Exception(code) });
}

#[test]
fn clause_6_1_read_coils() {
    request("01 00 13 00 13", RequestPdu::Read { table: Table::Coils, address: 19, quantity: 19 });
    let octets = [0xCD, 0x6B, 0x05];
    let values = Bits::new(&octets, 24);
    response("01 03 CD 6B 05", ResponsePdu::Bits { table: Table::Coils, values });
    let asked: Vec<bool> = values.iter().take(8).collect();
    assert_eq!(asked, [true, false, true, true, false, false, true, true], "coils 27 to 20 are 1100 1101");
    exception("81 02", 1, 2);
}

#[test]
fn clause_6_2_read_discrete_inputs() {
    request("02 00 C4 00 16", RequestPdu::Read { table: Table::DiscreteInputs, address: 196, quantity: 22 });
    let octets = [0xAC, 0xDB, 0x35];
    response("02 03 AC DB 35", ResponsePdu::Bits { table: Table::DiscreteInputs, values: Bits::new(&octets, 24) });
}

#[test]
fn clause_6_3_read_holding_registers() {
    request("03 00 6B 00 03", RequestPdu::Read { table: Table::Holding, address: 107, quantity: 3 });
    let octets = [0x02, 0x2B, 0x00, 0x00, 0x00, 0x64];
    let values = Registers::new(&octets);
    response("03 06 02 2B 00 00 00 64", ResponsePdu::Registers { table: Table::Holding, values });
    assert_eq!(values.iter().collect::<Vec<_>>(), [555, 0, 100]);
}

#[test]
fn clause_6_4_read_input_registers() {
    request("04 00 08 00 01", RequestPdu::Read { table: Table::Input, address: 8, quantity: 1 });
    let values = Registers::new(&[0, 10]);
    response("04 02 00 0A", ResponsePdu::Registers { table: Table::Input, values });
}

#[test]
fn clause_6_5_write_single_coil() {
    request("05 00 AC FF 00", RequestPdu::WriteSingleCoil { address: 172, on: true });
    response("05 00 AC FF 00", ResponsePdu::WriteSingleCoil { address: 172, on: true });
    assert_eq!(RequestPdu::decode(&[5, 0, 0xAC, 0xFF, 1]).unwrap_err().code, "bad-value");
}

#[test]
fn clause_6_6_write_single_register() {
    request("06 00 01 00 03", RequestPdu::WriteSingleRegister { address: 1, value: 3 });
    response("06 00 01 00 03", ResponsePdu::WriteSingleRegister { address: 1, value: 3 });
}

#[test]
fn clause_6_7_read_exception_status() {
    request("07", RequestPdu::ReadExceptionStatus);
    response("07 6D", ResponsePdu::ExceptionStatus(0x6D));
}

#[test]
fn clause_6_8_diagnostics() {
    let octets = unhex("08 00 00 A5 37");
    let means = RequestPdu::Diagnostics { sub_function: 0, data: &[0xA5, 0x37] };
    assert_eq!(RequestPdu::decode(&octets), Ok(means));
    assert_eq!(request_extent(&octets), Extent::Open, "query data may have any length");
    request("08 00 02 00 00", RequestPdu::Diagnostics { sub_function: 2, data: &[0, 0] });
    response("08 00 0B 12 34", ResponsePdu::Diagnostics { sub_function: 11, data: &[0x12, 0x34] });
}

#[test]
fn clause_6_9_get_comm_event_counter() {
    request("0B", RequestPdu::CommEventCounter);
    response("0B FF FF 01 08", ResponsePdu::CommEventCounter { status: 0xFFFF, events: 264 });
}

#[test]
fn clause_6_10_get_comm_event_log() {
    request("0C", RequestPdu::CommEventLog);
    let means = ResponsePdu::CommEventLog { status: 0, events: 264, messages: 289, log: &[0x20, 0] };
    response("0C 08 00 00 01 08 01 21 20 00", means);
}

#[test]
fn clause_6_11_write_multiple_coils() {
    let octets = [0xCD, 0x01];
    request("0F 00 13 00 0A 02 CD 01", RequestPdu::WriteMultipleCoils { address: 19, values: Bits::new(&octets, 10) });
    response("0F 00 13 00 0A", ResponsePdu::WriteMultipleCoils { address: 19, quantity: 10 });
}

#[test]
fn clause_6_12_write_multiple_registers() {
    let octets = [0x00, 0x0A, 0x01, 0x02];
    let values = Registers::new(&octets);
    request("10 00 01 00 02 04 00 0A 01 02", RequestPdu::WriteMultipleRegisters { address: 1, values });
    response("10 00 01 00 02", ResponsePdu::WriteMultipleRegisters { address: 1, quantity: 2 });
}

#[test]
fn clause_6_13_report_server_id() {
    request("11", RequestPdu::ReportServerId);
    response("11 03 2A FF 01", ResponsePdu::ServerId(&[0x2A, 0xFF, 0x01]));
}

#[test]
fn clause_6_14_read_file_record() {
    let octets = unhex("14 0E 06 00 04 00 01 00 02 06 00 03 00 09 00 02");
    let RequestPdu::ReadFileRecord(groups) = RequestPdu::decode(&octets).unwrap() else { panic!() };
    let read = [FileRead { file: 4, record: 1, length: 2 }, FileRead { file: 3, record: 9, length: 2 }];
    assert_eq!(groups.iter().collect::<Vec<_>>(), read);
    let mut packed = Vec::new();
    FileReads::pack(&read, &mut packed);
    assert_eq!(packed, octets[2..]);
    request("14 0E 06 00 04 00 01 00 02 06 00 03 00 09 00 02", RequestPdu::ReadFileRecord(groups));

    let octets = unhex("14 0C 05 06 0D FE 00 20 05 06 33 CD 00 40");
    let ResponsePdu::FileRecords(records) = ResponsePdu::decode(&octets).unwrap() else { panic!() };
    let values: Vec<Vec<u16>> = records.iter().map(|record| record.iter().collect()).collect();
    assert_eq!(values, [[0x0DFE, 0x20], [0x33CD, 0x40]]);
    response("14 0C 05 06 0D FE 00 20 05 06 33 CD 00 40", ResponsePdu::FileRecords(records));
}

#[test]
fn clause_6_15_write_file_record() {
    let hex = "15 0D 06 00 04 00 07 00 03 06 AF 04 BE 10 0D";
    let octets = unhex(hex);
    let RequestPdu::WriteFileRecord(groups) = RequestPdu::decode(&octets).unwrap() else { panic!() };
    let values = [0x06, 0xAF, 0x04, 0xBE, 0x10, 0x0D];
    let write = FileWrite { file: 4, record: 7, values: Registers::new(&values) };
    assert_eq!(groups.iter().collect::<Vec<_>>(), [write]);
    request(hex, RequestPdu::WriteFileRecord(groups));
    response(hex, ResponsePdu::WriteFileRecord(groups));
}

#[test]
fn clause_6_16_mask_write_register() {
    request("16 00 04 00 F2 00 25", RequestPdu::MaskWriteRegister { address: 4, and: 0xF2, or: 0x25 });
    response("16 00 04 00 F2 00 25", ResponsePdu::MaskWriteRegister { address: 4, and: 0xF2, or: 0x25 });
}

#[test]
fn clause_6_17_read_write_multiple_registers() {
    let octets = [0x00, 0xFF, 0x00, 0xFF, 0x00, 0xFF];
    let means = RequestPdu::ReadWriteMultipleRegisters {
        read_address: 3,
        read_quantity: 6,
        write_address: 14,
        values: Registers::new(&octets),
    };
    request("17 00 03 00 06 00 0E 00 03 06 00 FF 00 FF 00 FF", means);
    let octets = unhex("00 FE 0A CD 00 01 00 03 00 0D 00 FF");
    let means = ResponsePdu::ReadWriteMultipleRegisters(Registers::new(&octets));
    response("17 0C 00 FE 0A CD 00 01 00 03 00 0D 00 FF", means);
}

#[test]
fn clause_6_18_read_fifo_queue() {
    request("18 04 DE", RequestPdu::ReadFifoQueue { address: 1246 });
    let octets = unhex("01 B8 12 84");
    response("18 00 06 00 02 01 B8 12 84", ResponsePdu::FifoQueue(Registers::new(&octets)));
}

#[test]
fn clause_6_21_read_device_identification() {
    request("2B 0E 01 00", RequestPdu::ReadDeviceIdentification { code: 1, object: 0 });
    // The example's objects are given by their lengths; the text is ours.
    let text = [&[0, 2][..], b"AB", &[1, 3], b"XYZ", &[2, 5], b"V2.11"].concat();
    let means = Identification {
        code: 1,
        conformity: 1,
        more_follows: false,
        next_object: 0,
        objects: Identification::objects(&text),
    };
    response(
        "2B 0E 01 01 00 00 03 00 02 41 42 01 03 58 59 5A 02 05 56 32 2E 31 31",
        ResponsePdu::DeviceIdentification(means),
    );
    let objects: Vec<_> = means.objects.iter().collect();
    assert_eq!(objects, [(0, &b"AB"[..]), (1, b"XYZ"), (2, b"V2.11")]);
}

#[test]
fn private_functions_travel_as_they_are() {
    let octets = [0x41, 1, 2, 3];
    let means = RequestPdu::Other { function: 0x41, data: &octets[1..] };
    assert_eq!(RequestPdu::decode(&octets), Ok(means));
    let mut out = Vec::new();
    means.encode(&mut out).unwrap();
    assert_eq!(out, octets);
    assert_eq!(ResponsePdu::decode(&octets), Ok(ResponsePdu::Other { function: 0x41, data: &octets[1..] }));
}

#[test]
fn exception_of_function_0_is_an_exception() {
    exception("80 0B", 0, 11);
    exception("AB 01", 0x2B, 1);
}

#[test]
fn quantities_beyond_the_specification_are_refused_on_both_sides() {
    for (hex, code) in [
        ("03 00 00 00 00", "bad-quantity"),
        ("03 00 00 00 7E", "bad-quantity"),
        ("01 00 00 07 D1", "bad-quantity"),
        ("10 00 01 00 02 03 00 0A 01", "bad-length"),
        ("0F 00 13 00 0A 01 CD", "bad-length"),
        ("17 00 03 00 06 00 0E 00 03 02 00 FF", "bad-length"),
        ("14 06 06 00 04 00 01 00", "bad-length"),
    ] {
        assert_eq!(RequestPdu::decode(&unhex(hex)).unwrap_err().code, code, "{hex}");
    }
    for (hex, code) in [
        ("03 03 00 01 02", "bad-length"),
        ("03 00", "bad-length"),
        ("18 00 06 00 03 01 B8 12 84", "bad-length"),
        ("14 0C 06 06 0D FE 00 20 04 06 33 CD 00 40", "bad-length"),
        ("2B 0E 01 01 00 00 03 00 02 41 42", "bad-length"),
    ] {
        assert_eq!(ResponsePdu::decode(&unhex(hex)).unwrap_err().code, code, "{hex}");
    }
    let mut out = Vec::new();
    let too_many = RequestPdu::Read { table: Table::Input, address: 0, quantity: 126 };
    assert_eq!(too_many.encode(&mut out).unwrap_err().code, "bad-quantity");
    let too_long = RequestPdu::Other { function: 0x41, data: &[0; 253] };
    assert_eq!(too_long.encode(&mut out).unwrap_err().code, "too-long");
    assert!(out.is_empty());
}
