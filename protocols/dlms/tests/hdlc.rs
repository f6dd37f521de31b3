//! HDLC under both roles: negotiation, segments both ways, and lines that lose, repeat, bend and delay.

mod common;

use std::time::Duration;

use common::*;
use ipss_dlms::hdlc::{Address, Deframer, FrameType, LARGEST, Parameters, encode};
use ipss_dlms::head_end::Item;
use ipss_dlms::link::{Framing, GatewayAddress, HdlcConfig, LinkConfig, ModeE};
use ipss_dlms::meter::{Fault, MeterControl};
use ipss_dlms::profile::Profile;
use ipss_session::rig::{Line, Rig};
use ipss_session::{Cell, EventKind, Input, Outcome, Session};

fn framed(hdlc: HdlcConfig) -> LinkConfig {
    LinkConfig { framing: Framing::Hdlc(hdlc), ..LinkConfig::default() }
}

fn rig_over(profile: &Profile, near: &HdlcConfig, far: &HdlcConfig, seed: u64) -> TestRig {
    let near = head_end(profile).with_link(&framed(near.clone()));
    let far = meter(profile).with_link(&framed(far.clone()));
    Rig::new(near, far, seed, START)
}

fn sizes(information: u16, window: u8) -> HdlcConfig {
    let parameters = Parameters {
        information_transmit: information,
        information_receive: information,
        window_transmit: window,
        window_receive: window,
    };
    HdlcConfig { parameters, ..HdlcConfig::default() }
}

/// The frames that an end wrote: kind and information length.
fn frames(written: &[Vec<u8>]) -> Vec<(FrameType, usize, bool)> {
    let mut deframer = Deframer::new(2_047);
    let octets = written.concat();
    let (mut taken, mut found) = (0, Vec::new());
    while taken < octets.len() {
        taken += deframer.feed(&octets[taken..]);
        while let Some(frame) = deframer.frame() {
            found.push((FrameType::of(frame.control), frame.information.len(), frame.segmented));
        }
    }
    found
}

#[test]
fn every_profile_associates_reads_writes_acts_and_releases_over_hdlc() {
    for profile in all_profiles() {
        let mut rig = rig_over(&profile, &HdlcConfig::default(), &HdlcConfig::default(), 1);
        let write = Item::Set([(attribute(3, ENERGY, 2), Box::from([6, 0, 0, 0, 77]))].into());

        let outcome = ask(&mut rig, vec![energy(), load_profile(), write, switch(1), energy()]);

        assert_eq!(outcome, Some(Outcome::Done), "{profile:?}: {:?}", rig.near.batch.events);
        let batch = &rig.near.batch;
        assert_eq!((batch.lines.len(), batch.cells(99)), (1 + 96 + 2 + 1, vec![Cell::Integer(77)]));
        rig.tell_near(Input::Release);
        rig.run(Duration::from_secs(1), 100);
        assert!(!rig.open, "released in good order");
        let last = frames(&rig.near.written).last().map(|frame| frame.0);
        assert_eq!(last, Some(FrameType::Disconnect));
        assert_eq!(frames(&rig.far.written).last().map(|frame| frame.0), Some(FrameType::UnnumberedAcknowledge));
    }
}

#[test]
fn sizes_and_windows_are_agreed_and_kept_in_both_directions() {
    for (near, far, largest) in [
        (sizes(2030, 7), sizes(2030, 7), LARGEST),
        (sizes(128, 1), sizes(2030, 7), 128),
        (sizes(2030, 3), sizes(62, 2), 62),
        (sizes(20, 7), sizes(512, 7), 20),
    ] {
        let profile = secured();
        let mut rig = rig_over(&profile, &near, &far, 1);

        assert_eq!(ask(&mut rig, vec![energy(), load_profile(), switch(1)]), Some(Outcome::Done));

        assert_eq!(rig.near.batch.lines.len(), 1 + 96 + 1);
        let frames = frames(&[rig.near.written.concat(), rig.far.written.concat()]);
        let information = frames.iter().filter(|frame| frame.0 == FrameType::Information);
        assert!(information.clone().all(|frame| frame.1 <= usize::from(largest)), "{largest}");
        assert_eq!(information.clone().any(|frame| frame.2), largest <= 128, "segments for {largest}");
    }
}

#[test]
fn asymmetric_limits_bind_each_direction_for_itself() {
    // As an E650 says of itself: it sends 128 and takes 62.
    let mut far = sizes(128, 1);
    far.parameters.information_receive = 62;
    let mut rig = rig_over(&secured(), &sizes(2030, 1), &far, 1);

    assert_eq!(ask(&mut rig, vec![load_profile()]), Some(Outcome::Done));

    let most = |end: &[Vec<u8>]| {
        frames(end).iter().filter(|frame| frame.0 == FrameType::Information).map(|frame| frame.1).max()
    };
    assert_eq!((most(&rig.near.written), most(&rig.far.written)), (Some(62), Some(128)));
}

#[test]
fn meters_are_spoken_to_by_logical_and_physical_address() {
    for (physical, address_size) in [(None, 0), (None, 1), (None, 2), (None, 4), (Some(17), 2), (Some(5481), 0)] {
        let config = HdlcConfig { physical, address_size, ..HdlcConfig::default() };
        let mut rig = rig_over(&secured(), &config, &config, 1);

        assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done), "{physical:?} in {address_size}");
    }
    // Another physical device on the same line does not answer.
    let asked = HdlcConfig { physical: Some(17), ..HdlcConfig::default() };
    let other = HdlcConfig { physical: Some(18), ..HdlcConfig::default() };
    let mut rig = rig_over(&secured(), &asked, &other, 1);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Interrupted));
    assert_eq!(frames(&rig.near.written).len(), 1 + 3 + 1, "SNRM, three repetitions, and DISC");
    assert!(rig.far.written.is_empty());
}

#[test]
fn lossy_lines_deliver_everything_once_or_say_so() {
    let base = Line { delay: Duration::from_millis(20), ..Line::default() };
    let lines = [
        Line { loss: 100, ..base },
        Line { duplication: 300, ..base },
        Line { corruption: 150, ..base },
        Line { split: 500, jitter: Duration::from_millis(40), ..base },
        Line { loss: 80, duplication: 100, corruption: 80, split: 300, jitter: Duration::from_millis(700), ..base },
    ];
    let (mut done, mut asked) = (0, 0);
    for (index, line) in lines.into_iter().enumerate() {
        for seed in 0..40 {
            let window = 1 + (seed % 7) as u8;
            let config = HdlcConfig {
                answer: Duration::from_millis(2_500),
                retries: 6,
                inter_octet: Duration::from_millis(900),
                ..sizes(100, window)
            };
            let mut rig = rig_over(&secured(), &config, &config, seed);
            rig.line = line;
            let (mut switched, mut unknown) = (0, 0);

            for _ in 0..3 {
                let before = rig.near.batch.lines.len();
                let outcome = ask(&mut rig, vec![energy(), load_profile(), switch(1)]);
                asked += 1;
                match outcome {
                    Some(Outcome::Done) => {
                        done += 1;
                        switched += 1;
                        assert_eq!(rig.near.batch.lines.len() - before, 98, "line {index}, seed {seed}");
                    }
                    Some(Outcome::Unknown) => unknown += 1,
                    Some(Outcome::Interrupted) => {}
                    other => panic!("line {index}, seed {seed}: {other:?} {:?}", rig.near.batch.events.last()),
                }
            }

            let at_meter = rig.far.session.objects.switched;
            assert!((switched..=switched + unknown).contains(&at_meter), "line {index}, seed {seed}");
        }
    }
    assert!(done * 10 > asked * 9, "{done} of {asked} were served in spite of the line");
}

#[test]
fn noise_wrong_parity_and_the_echo_of_our_own_octets_are_passed_over() {
    let mut rig = rig_over(&secured(), &HdlcConfig::default(), &HdlcConfig::default(), 1);
    rig.connect();
    // What the adapter sends back, and what bad parity makes of a frame.
    let echo = rig.near.written.concat();
    for noise in [echo, vec![0x7E, 0x13, 0x7E, 0xFE, 0xA0], b"\0\0/ESY5Q3D\r\n".to_vec()] {
        rig.inject_near(&noise);
    }

    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn a_meter_that_keeps_an_old_link_is_reset_first() {
    let config = HdlcConfig { disconnect_first: true, ..HdlcConfig::default() };
    let mut rig = rig_over(&secured(), &config, &HdlcConfig::default(), 1);

    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));

    let sent: Vec<FrameType> = frames(&rig.near.written).iter().map(|frame| frame.0).collect();
    assert_eq!(sent[..2], [FrameType::Disconnect, FrameType::SetNormalResponseMode]);
    assert_eq!(frames(&rig.far.written)[0].0, FrameType::DisconnectedMode);
}

#[test]
fn an_idle_link_is_kept_alive_and_a_silent_one_is_ended_by_the_meter() {
    let mut rig = rig_over(&secured(), &HdlcConfig::default(), &HdlcConfig::default(), 1);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.run(Duration::from_secs(600), 1_000);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    assert_eq!(rig.near.batch.events.iter().filter(|event| event.kind == EventKind::Associated).count(), 1);

    let silent = HdlcConfig { inactivity: Duration::ZERO, ..HdlcConfig::default() };
    let mut rig = rig_over(&secured(), &silent, &HdlcConfig::default(), 1);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.run(Duration::from_secs(130), 1_000);
    assert!(!rig.far.session.associated());
    // DM: the link has to be set up again, the request is handed back.
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Interrupted));
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn a_meter_pushes_in_unnumbered_frames_with_and_without_a_link() {
    let mut rig = rig_over(&secured(), &sizes(60, 1), &sizes(60, 1), 1);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    let body = [&[9, 200][..], &[0x7E; 200]].concat();

    rig.tell_far(Input::Control(MeterControl::Notify(body.clone())));
    rig.run(Duration::from_secs(1), 100);

    let [Cell::Raw(apdu)] = rig.near.batch.cells(1)[..] else { panic!("no notification") };
    assert!(apdu.ends_with(&body));
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn a_slow_meter_is_waited_for_and_a_silent_one_is_given_up() {
    let mut rig = rig_over(&secured(), &HdlcConfig::default(), &HdlcConfig::default(), 1);
    rig.far.session =
        meter(&secured()).with_link(&framed(HdlcConfig::default())).with_fault(Fault::Slow(Duration::from_secs(7)));
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done), "{:?}", rig.near.batch.events);

    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Silent)));
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Interrupted));
}

#[test]
fn a_flood_of_set_ups_ends_the_connection() {
    let mut rig = rig_over(&secured(), &HdlcConfig::default(), &HdlcConfig::default(), 1);
    rig.connect();
    let mut snrm = Vec::new();
    encode(&mut snrm, false, &Address::meter(1, None, 0), &Address::head_end(1), 0x93, &[]);
    for _ in 0..100 {
        rig.inject_far(&snrm);
    }
    assert!(!rig.open);
}

#[test]
fn what_the_standard_forbids_is_rejected_by_the_meter() {
    let (to, from) = (Address::meter(1, None, 0), Address::head_end(1));
    // An acknowledgement of frames that were never sent, and a control field that means nothing.
    for control in [0xB1, 0xFF] {
        let mut rig = rig_over(&secured(), &HdlcConfig::default(), &HdlcConfig::default(), 1);
        rig.connect();
        rig.run(Duration::from_secs(1), 100);
        let mut octets = Vec::new();
        encode(&mut octets, false, &to, &from, control, &[]);

        rig.inject_far(&octets);
        rig.run(Duration::from_secs(1), 100);

        assert_eq!(frames(&rig.far.written).last().map(|frame| frame.0), Some(FrameType::FrameReject));
        assert!(!rig.open, "the head-end sets the data link up again");
    }
}

#[test]
fn three_apdus_in_one_frame_are_three() {
    let mut rig = rig_over(&secured(), &HdlcConfig::default(), &HdlcConfig::default(), 1);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    // Ciphered notifications, of which the meter made one each; here in one frame.
    let mut octets = Vec::new();
    for _ in 0..3 {
        rig.far.written.clear();
        rig.line.loss = 1_000;
        rig.tell_far(Input::Control(MeterControl::Notify(vec![17, 5])));
        let written = rig.far.written.concat();
        let mut deframer = Deframer::new(2_047);
        let mut taken = 0;
        while taken < written.len() {
            taken += deframer.feed(&written[taken..]);
        }
        octets.extend_from_slice(deframer.frame().unwrap().information);
    }
    let mut frame = Vec::new();
    encode(&mut frame, false, &Address::head_end(1), &Address::meter(1, None, 0), 0x03, &octets);
    let before = rig.near.batch.lines.len();

    rig.inject_near(&frame);

    assert_eq!(rig.near.batch.lines.len() - before, 3);
}

#[test]
fn meters_behind_a_gateway_are_reached_over_wrapper_and_hdlc() {
    let gateway = |device: &[u8]| Some(GatewayAddress { network: 3, device: device.into() });
    for framing in [Framing::Wrapper, Framing::Hdlc(HdlcConfig::default())] {
        let near = LinkConfig { framing: framing.clone(), gateway: gateway(b"\x12\x34") };
        let other = LinkConfig { framing, gateway: gateway(b"\x12\x35") };
        for (far, outcome) in [(&near, Some(Outcome::Done)), (&other, None)] {
            let profile = secured();
            let (head_end, meter) = (head_end(&profile).with_link(&near), meter(&profile).with_link(far));
            let mut rig = Rig::new(head_end, meter, 1, START);
            rig.connect();
            rig.tell_near(Input::Request(request(1, vec![energy(), load_profile()])));
            rig.run(Duration::from_secs(30), 2_000);
            assert_eq!(rig.near.finished.last().map(|(_, outcome)| *outcome), outcome, "{near:?} {far:?}");
        }
    }
}

#[test]
fn a_line_opened_by_mode_e_carries_hdlc() {
    let config = HdlcConfig { opening: Some(ModeE::default()), ..HdlcConfig::default() };
    for far in [config.clone(), HdlcConfig::default()] {
        let answers = far.opening.is_some();
        let mut rig = rig_over(&secured(), &config, &far, 1);
        rig.line.delay = Duration::from_millis(200);

        let outcome = ask(&mut rig, vec![energy(), load_profile()]);

        assert_eq!(rig.near.written[0], b"/?!\r\n");
        assert_eq!(outcome, Some(if answers { Outcome::Done } else { Outcome::Interrupted }));
    }
    // A head-end that needs no opening is understood at once.
    let mut rig = rig_over(&secured(), &HdlcConfig::default(), &config, 1);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
}
