//! Modbus in all framings, both roles, SunSpec images, and what `decode` says.

use std::sync::Arc;
use std::time::Duration;

use ipss_modbus::adu::{Direction, ascii, rtu, tcp, udp};
use ipss_modbus::device::{Device, Memory, Settings};
use ipss_modbus::head_end::{HeadEnd, Item, Plan, Read, Work};
use ipss_modbus::pdu::{Extent, RequestPdu, ResponsePdu, request_extent, response_extent};
use ipss_modbus::profile::{Framing, Profile, SerialTiming};
use ipss_modbus::quirks::{MbapLength, Quirks};
use ipss_modbus::sunspec::{Chain, Discovery, Progress, first_header, model, walk};
use ipss_modbus::translate::{TranslateRequest, recognises, translate};
use ipss_modbus::{Decode, Table};
use ipss_session::explain::{Sender, Transmission};
use ipss_session::rig::SeededRandom;
use ipss_session::{Batch, Context, Input, Instant, Now, Priority, Request, Session, Transport, WallTime};

use crate::script::Script;

/// Whatever decodes encodes to itself; what registers mean.
pub fn pdu(octets: &[u8]) {
    if let Ok(request) = RequestPdu::decode(octets) {
        let mut out = Vec::new();
        request.encode(&mut out).unwrap();
        assert_eq!(out, octets);
        let extent = request_extent(octets);
        assert!(matches!(extent, Extent::Open) || extent == Extent::Known(octets.len()));
    }
    if let Ok(response) = ResponsePdu::decode(octets) {
        let mut out = Vec::new();
        response.encode(&mut out);
        assert_eq!(ResponsePdu::decode(&out), Ok(response));
        let extent = response_extent(octets, false);
        assert!(matches!(extent, Extent::Open) || extent == Extent::Known(octets.len()));
    }
    for decode in [Decode::Unsigned, Decode::Raw] {
        let _ = decode.cell(octets);
    }
}

/// A stream of MBAP frames, and datagrams.
pub fn tcp_adu(octets: &[u8]) {
    for mbap_length in [MbapLength::Exact, MbapLength::FromPdu, MbapLength::Surplus] {
        let quirks = Quirks { mbap_length, ..Quirks::default() };
        for direction in [Direction::Request, Direction::Response] {
            let mut rest = octets;
            while let Ok(Some(adu)) = tcp::next(rest, direction, &quirks) {
                assert!(adu.length > 0 && adu.length <= rest.len() && adu.length <= 260);
                rest = &rest[adu.length..];
            }
            let _ = udp::next(octets, direction, &quirks);
        }
    }
}

/// Frames found by their check sequence in a stream, in pieces.
pub fn rtu_adu(octets: &[u8]) {
    let mut script = Script::new(octets);
    let size = usize::from(script.octet().unwrap_or_default()) + 1;
    let octets = script.rest();
    let _ = rtu::open(octets);
    for direction in [Direction::Request, Direction::Response] {
        let mut receiver = rtu::Receiver::default();
        for chunk in octets.chunks(size) {
            let mut chunk = chunk;
            while !chunk.is_empty() {
                let room = receiver.room().min(chunk.len());
                if room == 0 {
                    receiver.clear();
                    continue;
                }
                receiver.push(&chunk[..room]);
                chunk = &chunk[room..];
                found(&mut receiver, direction, size % 2 == 0);
            }
        }
        receiver.look_again();
        let _ = receiver.is_empty();
    }
}

fn found(receiver: &mut rtu::Receiver, direction: Direction, hold: bool) {
    for _ in 0..300 {
        match receiver.next(hold, |pdu| direction.extent(pdu, false), |_| true) {
            Some(place) => assert!(receiver.take(place).is_some()),
            None => return,
        }
    }
    panic!("more frames than octets");
}

/// Characters one by one.
pub fn ascii_adu(octets: &[u8]) {
    let _ = ascii::open(octets, &mut Vec::new());
    let mut receiver = ascii::Receiver::default();
    for character in octets {
        if let Some((unit, pdu)) = receiver.push(*character) {
            assert!(pdu.len() <= 253);
            let mut out = Vec::new();
            ascii::encode(unit, pdu, &mut out);
            let mut held = Vec::new();
            assert!(ascii::open(&out[1..out.len() - 2], &mut held).is_ok_and(|again| again.0 == unit));
        }
    }
    receiver.clear();
}

fn feed<S: Session>(
    session: &mut S,
    mut script: Script<'_>,
    mut request: impl FnMut(u8, u64) -> Option<Request<S::Work>>,
) {
    let (mut random, mut batch) = (SeededRandom::new(1), Batch::default());
    let mut now = Now { monotonic: Instant(1), wall: WallTime(0) };
    let mut pending: Vec<u8> = Vec::new();
    let mut id = 0;
    let mut open = false;
    while let Some(what) = script.octet() {
        let mut to_send = Vec::new();
        let mut cx = Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch };
        if !std::mem::replace(&mut open, true) {
            pending.clear();
            let _ = session.step(Input::Opened, &mut cx);
        }
        let mut close = false;
        match what % 4 {
            0 if session.ready() => {
                id += 1;
                if let Some(request) = request(what, id) {
                    close = session.step(Input::Request(request), &mut cx).transport == Transport::Close;
                }
            }
            1 => {
                now.monotonic = now.monotonic + Duration::from_millis(u64::from(what) * 20);
                let mut cx = Context { now, ..cx };
                close = session.step(Input::Deadline, &mut cx).transport == Transport::Close;
            }
            _ => {
                pending.extend_from_slice(script.piece());
                let most = pending.len() + 2;
                for round in 0..=most + 1 {
                    assert!(round <= most, "it loops");
                    let offered = pending.len();
                    if offered == 0 {
                        break;
                    }
                    let step = session.step(Input::Bytes(&mut pending), &mut cx);
                    assert!(step.consumed <= offered);
                    pending.drain(..step.consumed);
                    close = step.transport == Transport::Close;
                    if close || step.consumed == 0 {
                        break;
                    }
                }
                assert!(close || pending.len() < 300, "it waits for more than a frame");
            }
        }
        if close {
            open = false;
            let _ = session.step(
                Input::Closed,
                &mut Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch },
            );
        }
    }
}

/// A head-end's session: requests, octets and time as the script says.
pub fn head_end(octets: &[u8]) {
    let mut script = Script::new(octets);
    let profiles = [Profile::tcp(), Profile::rtu_over_tcp(), Profile::rtu(9_600), Profile::ascii(), Profile::udp()];
    let profile = script.choose(&profiles).clone();
    let mut session = HeadEnd::new(1, Arc::new(profile));
    feed(&mut session, script, |what, id| {
        let points = [(Table::Holding, 1, 2, Decode::Unsigned), (Table::Holding, 9, 1, Decode::Raw)];
        let item = match what >> 2 & 3 {
            0 => Item::Read(Read::points(1, &points).ok()?),
            1 => Item::Read(Read::points(2, &[(Table::Coils, 3, 1, Decode::Unsigned)]).ok()?),
            2 => Item::ask(&RequestPdu::ReadDeviceIdentification { code: 1, object: 0 }).ok()?,
            _ => Item::ask(&RequestPdu::WriteSingleRegister { address: 1, value: 2 }).ok()?,
        };
        let unit = what >> 4 & 3;
        let work = Work { meter: 100 + u32::from(unit), unit, plan: Arc::new(Plan { items: [item].into() }) };
        let deadline = Instant(u64::MAX);
        Some(Request { id, deadline, priority: Priority::OnDemand, attempts_left: 0, exchanges: 0, work })
    });
}

/// A device's session.
pub fn device(octets: &[u8]) {
    let mut script = Script::new(octets);
    let framings =
        [Framing::Tcp, Framing::RtuOverTcp, Framing::Rtu(SerialTiming::new(9_600)), Framing::Ascii, Framing::Udp];
    let framing = *script.choose(&framings);
    let memory = Memory { holding: (0..300).collect(), coils: vec![true; 300], ..Memory::default() };
    let mut session = Device::new(1, Arc::new(Settings::new(framing)), memory);
    feed(&mut session, script, |_, _| None);
}

/// Register images of SunSpec devices, whole and as discovery reads them.
pub fn sunspec(octets: &[u8]) {
    let image: Vec<u16> = octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let marked = [&[0x5375, 0x6E53][..], &image].concat();
    for image in [&image, &marked] {
        for base in [0, 40_000, 50_000] {
            let Some((first, _)) = first_header(image, base) else { continue };
            let mut chain = Chain::new(image, first);
            for block in chain.by_ref() {
                let registers = block.registers(image);
                assert!(registers.len() <= image.len());
                let Some(model) = model(block.id) else { continue };
                let mut places = 0;
                walk(model, registers, &mut |place| {
                    places += 1;
                    let value = place.value();
                    let _ = (place.status(&value), place.number(&value), place.scaler(), place.name());
                });
                assert!(places <= 64 + 64 * registers.len());
            }
            let _ = chain.end();
        }
    }
    let mut discovery = Discovery::new(u16::from(octets.first().copied().unwrap_or(125)));
    for round in 0.. {
        assert!(round < 70_000, "discovery that never ends");
        let Progress::Ask(read) = discovery.progress() else { break };
        let from = usize::from(read.address).checked_sub(40_000);
        let end = from.map(|from| (from + usize::from(read.count)).min(marked.len()));
        discovery.answered(from.zip(end).and_then(|(from, end)| marked.get(from..end)));
    }
    assert!(discovery.image().len() <= marked.len());
}

/// What `decode` says: valid JSON, in proportion.
pub fn translated(octets: &[u8]) {
    let mut script = Script::new(octets);
    let layer = *script.choose(&["modbus-tcp", "modbus-rtu", "modbus-ascii", "auto"]);
    let senders = [None, Some(Sender::Meter), Some(Sender::HeadEnd)];
    let all = script.rest();
    let mut pieces = Script::new(all);
    let mut several = Vec::new();
    while let Some(from) = pieces.octet() {
        several.push(Transmission { from: senders[usize::from(from) % 3], octets: pieces.piece() });
    }
    for transmissions in [&[Transmission { from: None, octets: all }][..], &several] {
        let _ = recognises(transmissions);
        let mut text = String::new();
        translate(&TranslateRequest { id: None, layer, transmissions }, &mut |piece| text.push_str(piece));
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(answer["outcome"].is_string());
        assert!(text.len() <= 64 * octets.len() + 65_536);
    }
}
