//! Any octets get an answer from every layer below the APDU, and hold no more memory than their limits.

use std::time::Duration;

use ipss_dlms::hdlc::Parameters;
use ipss_dlms::link::optical::{Opening, data_block};
use ipss_dlms::link::{Framing, GatewayAddress, HdlcConfig, Link, LinkConfig, ModeE, Received, gateway, llc, mbus};
use ipss_session::{Instant, Limits};
use proptest::collection::vec;
use proptest::prelude::*;

/// Octets, with those that begin or end frames more often than others.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let special = prop_oneof![
        Just(vec![0x7E]),
        Just(vec![0x7E, 0xA0, 0x07, 0x03, 0x21, 0x93, 0x0F, 0x01, 0x7E]), // SNRM
        Just(vec![0xA7, 0xFF]),
        Just(vec![0x68, 0x03, 0x03, 0x68]),
        Just(vec![0xE6, 0xE7, 0x00]),
        Just(b"/?!\r\n".to_vec()),
        Just(vec![0x00, 0x01, 0x00, 0x10, 0x00, 0x01, 0x00, 0x02]),
        vec(any::<u8>(), 0..20),
    ];
    vec(special, 0..60).prop_map(|pieces| pieces.concat())
}

fn configs() -> Vec<LinkConfig> {
    let hdlc = |opening| Framing::Hdlc(HdlcConfig { opening, ..HdlcConfig::default() });
    let framings = [Framing::Wrapper, Framing::Datagram, hdlc(None), hdlc(Some(ModeE::default()))];
    let gateways = [None, Some(GatewayAddress { network: 1, device: [7].into() })];
    let with = |framing: &Framing, gateway: &Option<GatewayAddress>| LinkConfig {
        framing: framing.clone(),
        gateway: gateway.clone(),
    };
    framings.iter().flat_map(|framing| gateways.iter().map(|gateway| with(framing, gateway))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_get_an_answer_from_every_link(octets in octets(), size in 1..80_usize) {
        let limits = Limits { apdu: 4_096, ..Limits::default() };
        for config in configs() {
            for mut link in [Link::head_end(&config, 16, 1), Link::meter(&config)] {
                let (mut now, mut out) = (Instant(1), Vec::new());
                link.open(now, &mut out);
                'octets: for chunk in octets.chunks(size) {
                    let mut taken = 0;
                    // Each look either takes octets or tells something that was held.
                    for _ in 0..=chunk.len() * 2 + 64 {
                        let Ok((more, found)) = link.next(&chunk[taken..], &limits, now, &mut out) else { break 'octets };
                        taken += more;
                        prop_assert!(taken <= chunk.len());
                        if found == Received::Nothing {
                            break;
                        }
                    }
                    link.settle(now, &mut out);
                    now = link.deadline().map_or(now, |at| at.max(now)) + Duration::from_millis(1);
                    if link.wake(&limits, now, &mut out).is_err() {
                        break;
                    }
                }
                prop_assert!(out.len() <= 64 + 40 * (octets.len() + 8), "{} octets for {}", out.len(), octets.len());
            }
        }
    }

    #[test]
    fn any_octets_get_an_answer_from_every_parser(octets in octets()) {
        let limits = Limits::default();
        let _ = mbus::telegram(&octets);
        let _ = gateway::header(&octets);
        let _ = Parameters::decode(&octets);
        if let Ok(Some((readout, _))) = data_block(&octets, &limits) {
            for line in readout.lines() {
                let _ = (line.number(), line.logical_name());
            }
        }
        let _ = llc::apdus(&octets, &limits).count();
        let mut segments = mbus::Segments::default();
        let mut rest = &octets[..];
        while let Ok(Some((found, taken))) = mbus::next_frame(rest) {
            prop_assert!(taken > 0);
            rest = &rest[taken..];
            if let mbus::Found::Long(frame) = found {
                let _ = segments.take(&frame, &limits);
            }
        }
        for head_end in [true, false] {
            let mut opening = Opening::new(&ModeE::default(), head_end, Instant(1));
            let mut out = Vec::new();
            let _ = opening.wake(Instant(1), &mut out);
            let _ = opening.feed(&octets, Instant(1), &mut out);
        }
    }

    #[test]
    fn m_bus_frames_read_back(apdu in vec(any::<u8>(), 1..2_000)) {
        let mut octets = Vec::new();
        mbus::encode(&mut octets, 1, 103, &apdu).unwrap();
        let mut segments = mbus::Segments::default();
        let (mut rest, mut whole) = (&octets[..], None);
        while let Some((mbus::Found::Long(frame), taken)) = mbus::next_frame(rest).unwrap() {
            rest = &rest[taken..];
            whole = segments.take(&frame, &Limits::default()).unwrap();
        }
        prop_assert_eq!(whole, Some(apdu));
    }
}
