//! Any octets at every decoder: an answer, in bounded time and memory; and what is encoded decodes to itself.
//!
//! The corpus in `corpus/` (what fuzzing kept, and what once went wrong) goes through the same checks.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use ipss_modbus::adu::{Direction, ascii, rtu, tcp};
use ipss_modbus::device::{Device, Settings};
use ipss_modbus::head_end::{HeadEnd, Item};
use ipss_modbus::pdu::{Bits, Extent, Registers, RequestPdu, ResponsePdu, Table, request_extent, response_extent};
use ipss_modbus::profile::{Framing, Profile};
use ipss_modbus::quirks::{MbapLength, Quirks};
use ipss_modbus::translate::{TranslateRequest, translate};
use ipss_session::explain::Transmission;
use ipss_session::rig::SeededRandom;
use ipss_session::{Batch, Context, Input, Instant, Now, Session, WallTime};
use proptest::prelude::*;

/// Everything that takes octets from others, on these octets.
fn everything(octets: &[u8]) {
    if let Ok(request) = RequestPdu::decode(octets) {
        let mut out = Vec::new();
        request.encode(&mut out).unwrap();
        assert_eq!(out, octets, "a request that decodes is one that encodes");
        assert!(
            matches!(request_extent(octets), Extent::Open) || request_extent(octets) == Extent::Known(octets.len())
        );
    }
    if let Ok(response) = ResponsePdu::decode(octets) {
        let mut out = Vec::new();
        response.encode(&mut out);
        // "More follows" is FF or 00; any other octet is read as FF.
        if !matches!(response, ResponsePdu::DeviceIdentification(_)) {
            assert_eq!(out, octets);
        }
        let extent = response_extent(octets, false);
        assert!(matches!(extent, Extent::Open) || extent == Extent::Known(octets.len()), "{extent:?}");
    }
    for mbap_length in [MbapLength::Exact, MbapLength::FromPdu, MbapLength::Surplus] {
        let quirks = Quirks { mbap_length, ..Quirks::default() };
        for direction in [Direction::Request, Direction::Response] {
            if let Ok(Some(adu)) = tcp::next(octets, direction, &quirks) {
                assert!(adu.length <= octets.len() && adu.length <= 260);
            }
        }
    }
    let _ = ascii::open(octets, &mut Vec::new());
    for layer in ["modbus-tcp", "modbus-rtu", "modbus-ascii", "auto"] {
        let mut text = String::new();
        let transmissions = [Transmission { from: None, octets }];
        translate(&TranslateRequest { id: None, layer, transmissions: &transmissions }, &mut |piece| {
            text.push_str(piece)
        });
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(answer["outcome"].is_string());
        assert!(text.len() <= 64 * octets.len() + 65_536);
    }
    for profile in [Profile::tcp(), Profile::udp(), Profile::rtu(9_600), Profile::rtu_over_tcp(), Profile::ascii()] {
        head_end(profile, octets);
    }
    for framing in [
        Framing::Tcp,
        Framing::Udp,
        Framing::RtuOverTcp,
        Framing::Rtu(ipss_modbus::profile::SerialTiming::new(9_600)),
        Framing::Ascii,
    ] {
        device(framing, octets);
    }
}

/// A session is given octets, all at once and one by one; it consumes or waits for more, and never loops.
fn feed<S: Session>(session: &mut S, octets: &[u8], batch: &mut Batch) {
    let mut random = SeededRandom::new(1);
    let mut now = Now { monotonic: Instant(1), wall: WallTime(0) };
    for size in [octets.len().max(1), 1] {
        let mut pending: Vec<u8> = Vec::new();
        for chunk in octets.chunks(size) {
            now.monotonic = now.monotonic + Duration::from_millis(1);
            pending.extend_from_slice(chunk);
            let mut rounds = 0;
            while !pending.is_empty() {
                let mut to_send = Vec::new();
                let mut cx = Context { now, random: &mut random, to_send: &mut to_send, batch };
                let step = session.step(Input::Bytes(&mut pending), &mut cx);
                assert!(step.consumed <= pending.len());
                assert!(to_send.len() <= 70 * pending.len() + 300, "an answer that is out of proportion");
                pending.drain(..step.consumed);
                rounds += 1;
                assert!(rounds <= octets.len() + 2, "it loops");
                if step.transport == ipss_session::Transport::Close {
                    return;
                }
                if step.consumed == 0 {
                    break;
                }
            }
            assert!(pending.len() < 300, "it waits for more than a frame");
        }
        now.monotonic = now.monotonic + Duration::from_secs(1);
        let mut to_send = Vec::new();
        let _ = session.step(Input::Deadline, &mut Context { now, random: &mut random, to_send: &mut to_send, batch });
    }
}

fn head_end(profile: Profile, octets: &[u8]) {
    let mut session = HeadEnd::new(1, Arc::new(profile));
    let mut batch = Batch::default();
    let mut random = SeededRandom::new(2);
    let now = Now { monotonic: Instant(1), wall: WallTime(0) };
    let mut to_send = Vec::new();
    let mut cx = Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch };
    let _ = session.step(Input::Opened, &mut cx);
    let _ = session.step(Input::Request(request(1, 1, plan([holding(1, [1, 2, 3])]), now.monotonic, 60)), &mut cx);
    let other = Item::ask(&RequestPdu::ReadDeviceIdentification { code: 1, object: 0 }).unwrap();
    let _ = session.step(Input::Request(request(2, 2, plan([other]), now.monotonic, 60)), &mut cx);
    feed(&mut session, octets, &mut batch);
}

fn device(framing: Framing, octets: &[u8]) {
    let mut session = Device::new(1, Arc::new(Settings::new(framing)), memory());
    feed(&mut session, octets, &mut Batch::default());
}

/// Octets that are almost frames: what fuzzing would take long to find.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let function = prop_oneof![0_u8..0x19, Just(0x2B), Just(0x41), 0x80_u8..0x98];
    let body = prop::collection::vec(prop_oneof![Just(0_u8), Just(6), Just(14), 0_u8..5, any::<u8>()], 0..60);
    (function, body, 0_u8..4, any::<bool>()).prop_map(|(function, body, framing, lie)| {
        let pdu = [&[function][..], &body].concat();
        let mut out = Vec::new();
        match framing {
            0 => {
                let mark = tcp::begin(&mut out, 1, 1);
                out.extend_from_slice(&pdu);
                tcp::finish(&mut out, mark);
                if lie {
                    out[5] = out[5].wrapping_add(1);
                }
            }
            1 => {
                let mark = rtu::begin(&mut out, 1);
                out.extend_from_slice(&pdu);
                rtu::finish(&mut out, mark);
            }
            2 => ascii::encode(1, &pdu, &mut out),
            _ => out = pdu,
        }
        out
    })
}

proptest! {
    #[test]
    fn any_octets_get_an_answer(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        everything(&octets);
    }

    #[test]
    fn octets_that_are_nearly_frames_get_an_answer(frames in prop::collection::vec(nearly(), 1..6)) {
        everything(&frames.concat());
        frames.iter().for_each(|frame| everything(frame));
    }

    #[test]
    fn requests_survive_the_round_trip(
        address in any::<u16>(), value in any::<u16>(), count in 1_u16..=121,
        octets in prop::collection::vec(any::<u8>(), 250),
    ) {
        let registers = Registers::new(&octets[..usize::from(count) * 2]);
        let bits = Bits::new(&octets, usize::from(count));
        // Padding is zero where we write it.
        let mut packed = Vec::new();
        Bits::pack(bits.iter(), &mut packed);
        let bits = Bits::new(&packed, usize::from(count));
        for request in [
            RequestPdu::Read { table: Table::Input, address, quantity: count },
            RequestPdu::WriteSingleCoil { address, on: value & 1 == 1 },
            RequestPdu::WriteSingleRegister { address, value },
            RequestPdu::WriteMultipleCoils { address, values: bits },
            RequestPdu::WriteMultipleRegisters { address, values: registers },
            RequestPdu::MaskWriteRegister { address, and: value, or: !value },
            RequestPdu::ReadWriteMultipleRegisters { read_address: address, read_quantity: count, write_address: value, values: registers },
            RequestPdu::ReadFifoQueue { address },
            RequestPdu::Diagnostics { sub_function: 0, data: &octets[..20] },
        ] {
            let mut out = Vec::new();
            request.encode(&mut out).unwrap();
            prop_assert_eq!(RequestPdu::decode(&out), Ok(request));
        }
    }

    /// A valid frame is found behind and between any garbage, in pieces of any size.
    #[test]
    fn rtu_frames_are_found_among_garbage(
        garbage in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 4),
        values in prop::collection::vec(any::<u8>(), 6), size in 1_usize..40,
    ) {
        let mut frame = Vec::new();
        let mark = rtu::begin(&mut frame, 0x11);
        frame.extend_from_slice(&[3, 6]);
        frame.extend_from_slice(&values);
        rtu::finish(&mut frame, mark);
        let line = [&garbage[0][..], &frame, &garbage[1], &frame, &garbage[2], &frame, &garbage[3]].concat();
        let mut receiver = rtu::Receiver::default();
        let mut found = 0;
        for chunk in line.chunks(size) {
            receiver.push(chunk);
            while let Some(place) = receiver.next(false, |pdu| response_extent(pdu, false), |_| false) {
                found += usize::from(receiver.frame(place.clone()) == frame);
                receiver.done(place);
            }
        }
        prop_assert!(found >= 3 || garbage.iter().any(|part| has_frame(part, &frame)), "{} of 3", found);
    }
}

/// Whether garbage makes, with the frame behind it, a longer frame whose CRC happens to fit: one in 65,536.
fn has_frame(garbage: &[u8], frame: &[u8]) -> bool {
    let line = [garbage, frame].concat();
    (0..garbage.len()).any(|start| (start + 4..=line.len()).any(|end| rtu::crc(&line[start..end]) == 0))
}

#[test]
fn corpus_gets_an_answer() {
    let mut files = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).unwrap() {
        everything(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 30, "{files} files");
}
