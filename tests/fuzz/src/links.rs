//! What is below the APDU: wrapper, HDLC, IEC 62056-21, M-Bus, and links made of them.

use std::time::Duration;

use ipss_dlms::hdlc::{Address, Deframer, FrameType, Parameters, encode, next_frame};
use ipss_dlms::link::optical::{Identification, Opening, data_block};
use ipss_dlms::link::{Framing, GatewayAddress, HdlcConfig, Link, LinkConfig, ModeE, Received, gateway, llc, mbus};
use ipss_dlms::wrapper::{next_wpdu, next_wpdu_place};
use ipss_session::{Instant, Limits};

use crate::script::Script;

/// A stream of WPDUs, gateway headers inside.
pub fn wrapper(octets: &[u8]) {
    for apdu in [128, 65_535] {
        let limits = Limits { apdu, ..Limits::default() };
        let mut rest = octets;
        while let Ok(Some(wpdu)) = next_wpdu(rest, &limits) {
            let place = next_wpdu_place(rest, &limits).unwrap().unwrap();
            assert!(wpdu.apdu.len() <= apdu);
            assert_eq!(&rest[place.apdu.clone()], wpdu.apdu);
            let _ = gateway::header(wpdu.apdu);
            rest = &rest[place.apdu.end..];
        }
    }
}

/// A stream of frames, at once and in pieces.
pub fn hdlc(octets: &[u8]) {
    let limits = Limits::default();
    let mut script = Script::new(octets);
    let size = usize::from(script.octet().unwrap_or(7)) + 1;
    let octets = script.rest();

    let mut rest = octets;
    while let Ok(Some((frame, taken))) = next_frame(rest) {
        assert!(taken > 0 && taken <= rest.len());
        let kind = FrameType::of(frame.control);
        assert!(!kind.name().is_empty());
        let _ = (Parameters::decode(frame.information), kind.carries_data());
        assert!(llc::apdus(frame.information, &limits).all(|apdu| apdu.len() <= frame.information.len()));
        rest = &rest[taken..];
    }

    let agreed = Parameters::decode(octets).agree(&Parameters::default());
    assert!(agreed.information_transmit <= Parameters::default().information_receive);
    let _ = Address::from_wire(octets);

    let (mut deframer, mut frames) = (Deframer::new(2_047), 0);
    for chunk in octets.chunks(size) {
        let mut taken = 0;
        while taken < chunk.len() {
            let more = deframer.feed(&chunk[taken..]);
            assert!(more > 0, "it takes nothing");
            taken += more;
            while let Some(frame) = deframer.frame() {
                frames += 1;
                // What is understood is understood again.
                let addresses = Address::from_wire(frame.destination).zip(Address::from_wire(frame.source));
                let Some((destination, source)) = addresses else { continue };
                let mut out = Vec::new();
                encode(&mut out, frame.segmented, &destination, &source, frame.control, frame.information);
                let (again, _) = next_frame(&out).unwrap().unwrap();
                assert_eq!((again.control, again.information), (frame.control, frame.information));
            }
            deframer.compact();
        }
    }
    assert!(frames <= octets.len());
    deframer.give_up();
}

/// The opening of mode E in both roles, and data blocks of mode C.
pub fn optical(octets: &[u8]) {
    let limits = Limits::default();
    let _ = Identification::parse(octets).map(|identification| identification.baud());
    if let Ok(Some((readout, taken))) = data_block(octets, &limits) {
        assert!(taken <= octets.len());
        for line in readout.lines() {
            let _ = (line.number(), line.logical_name());
        }
    }
    for head_end in [true, false] {
        for size in [octets.len().max(1), 1] {
            let mut now = Instant(1);
            let mut opening = Opening::new(&ModeE::default(), head_end, now);
            let mut out = Vec::new();
            let _ = opening.wake(now, &mut out);
            for chunk in octets.chunks(size) {
                now = now + Duration::from_millis(1);
                match opening.feed(chunk, now, &mut out) {
                    Ok((taken, _)) => assert!(taken <= chunk.len()),
                    Err(_) => break,
                }
                let _ = (opening.take_serial(), opening.is_done(), opening.is_switched());
            }
            let _ = opening.deadline().map(|at| opening.wake(at, &mut out));
            assert!(out.len() <= 64 + 16 * octets.len());
        }
    }
}

/// Wired long frames put together, and wireless telegrams.
pub fn mbus(octets: &[u8]) {
    let limits = Limits { reassembly: 16_384, ..Limits::default() };
    if let Ok(Some((telegram, taken))) = mbus::telegram(octets) {
        assert!(taken <= octets.len());
        let _ = (telegram.manufacturer(), telegram.identification(), telegram.system_title());
    }
    let mut segments = mbus::Segments::default();
    let mut rest = octets;
    while let Ok(Some((found, taken))) = mbus::next_frame(rest) {
        assert!(taken > 0 && taken <= rest.len());
        rest = &rest[taken..];
        if let mbus::Found::Long(frame) = found {
            let _ = (frame.is_dlms(), frame.number(), frame.is_last());
            if let Ok(Some(apdu)) = segments.take(&frame, &limits) {
                assert!(apdu.len() <= octets.len());
            }
        }
    }
    let mut out = Vec::new();
    if mbus::encode(&mut out, 1, 103, octets).is_err() {
        assert!(out.is_empty() && octets.len() > 3_000, "sixteen segments hold more");
        return;
    }
    let (mut segments, mut rest, mut whole) = (mbus::Segments::default(), &out[..], None);
    while let Ok(Some((mbus::Found::Long(frame), taken))) = mbus::next_frame(rest) {
        rest = &rest[taken..];
        whole = segments.take(&frame, &Limits::default()).unwrap();
    }
    assert!(octets.is_empty() || whole.as_deref() == Some(octets), "what is cut into segments is put together again");
}

/// Both ends of every link: octets in pieces, time in between.
pub fn link(octets: &[u8]) {
    let mut script = Script::new(octets);
    let hdlc = |opening| Framing::Hdlc(HdlcConfig { opening, ..HdlcConfig::default() });
    let framings = [hdlc(None), Framing::Wrapper, Framing::Datagram, hdlc(Some(ModeE::default()))];
    let framing = script.choose(&framings).clone();
    let gateways = [None, Some(GatewayAddress { network: 1, device: [7].into() })];
    let gateway = script.choose(&gateways).clone();
    let config = LinkConfig { framing, gateway };
    let limits = Limits { apdu: 4_096, reassembly: 16_384, ..Limits::default() };
    let octets = script.rest();

    for mut link in [Link::head_end(&config, 16, 1), Link::meter(&config)] {
        let mut script = Script::new(octets);
        let (mut now, mut out) = (Instant(1), Vec::new());
        link.open(now, &mut out);
        let mut given = 0;
        while let Some(then) = script.octet() {
            let chunk = script.piece();
            let mut taken = 0;
            // Each look either takes octets or tells something that was held.
            for _ in 0..=chunk.len() * 2 + 64 {
                let Ok((more, found)) = link.next(&chunk[taken..], &limits, now, &mut out) else { return };
                taken += more;
                assert!(taken <= chunk.len());
                if found == Received::Nothing {
                    break;
                }
            }
            link.settle(now, &mut out);
            match then % 4 {
                0 => now = now + Duration::from_millis(1),
                1 => {
                    now = link.deadline().map_or(now, |at| at.max(now));
                    if link.wake(&limits, now, &mut out).is_err() {
                        break;
                    }
                }
                2 => {
                    let mark = link.begin(&mut out, 16, 1);
                    out.extend_from_slice(&chunk[..chunk.len().min(300)]);
                    given += 2_000;
                    let _ = link.finish(&mut out, mark, now);
                }
                _ => {
                    let mark = link.begin(&mut out, 1, 16);
                    out.extend_from_slice(b"\x0F\0\0\0\x01\0\0");
                    given += 200;
                    let _ = link.finish_notification(&mut out, mark, 1, 16);
                }
            }
            let _ = (link.take_serial(), link.is_active(), link.has_more(), link.is_lossy());
        }
        assert!(out.len() <= 1_024 + given + 64 * octets.len(), "{} octets for {}", out.len(), octets.len());
        let _ = link.close(now, &mut out);
        link.reset();
    }
}
