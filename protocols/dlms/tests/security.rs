//! What a hostile network may try on an association, by name. Only what the meter's profile pins ever gives a value.

mod common;

use std::sync::Arc;
use std::time::Duration;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::{AesGcm, KeyInit, Nonce};
use common::*;
use ipss_dlms::apdu::acse::{Aare, ApplicationContext, Diagnostic, Mechanism};
use ipss_dlms::apdu::ciphered::{wrap_general, wrap_service};
use ipss_dlms::apdu::initiate::{Conformance, InitiateResponse};
use ipss_dlms::apdu::tags::{self, KeyKind};
use ipss_dlms::head_end::HeadEnd;
use ipss_dlms::meter::{Fault, Meter, MeterControl, Settings};
use ipss_dlms::profile::{Authentication, Ciphering, Profile};
use ipss_dlms::security::{Channel, CounterBlock, HighWater, Protection, Sealer, Suite, SystemTitle};
use ipss_dlms::wrapper;
use ipss_session::rig::Rig;
use ipss_session::{EventKind, Input, Outcome, Session};

/// An associated rig whose meter answers nothing any more, with one question on the wire.
fn asking(profile: &Profile) -> TestRig {
    let mut rig = rig(profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Silent)));
    rig.tell_near(Input::Request(request(2, vec![energy()])));
    rig.run(Duration::from_millis(1), 10);
    rig
}

fn frame(apdu: &[u8], source: u16, destination: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let mark = wrapper::begin(&mut out, source, destination);
    out.extend_from_slice(apdu);
    wrapper::finish(&mut out, mark).unwrap();
    out
}

/// SC || IC || content as the holder of the meter's keys would make it, for any security control octet.
fn sealed(control: u8, counter: u32, plain: &[u8]) -> Vec<u8> {
    let mut vector = [0; 12];
    vector[..8].copy_from_slice(&METER_TITLE.0);
    vector[8..].copy_from_slice(&counter.to_be_bytes());
    let cipher = AesGcm::<aes::Aes128, U12, U12>::new_from_slice(key(1).octets()).unwrap();
    let mut aad = vec![control];
    aad.extend_from_slice(key(2).octets());
    let mut content = plain.to_vec();
    let mut tag = Vec::new();
    if control & 0x20 != 0 {
        let sum = cipher.encrypt_inout_detached(&Nonce::from(vector), &aad, content.as_mut_slice().into()).unwrap();
        tag.extend_from_slice(&sum);
    } else {
        aad.extend_from_slice(plain);
        let sum = cipher.encrypt_inout_detached(&Nonce::from(vector), &aad, (&mut [][..]).into()).unwrap();
        tag.extend_from_slice(&sum);
    }
    let mut out = vec![control];
    out.extend_from_slice(&counter.to_be_bytes());
    out.extend_from_slice(&content);
    if control & 0x10 != 0 {
        out.extend_from_slice(&tag);
    }
    out
}

fn invoke_on_wire(rig: &TestRig) -> u8 {
    // The first request's invoke-id was 2 (the proof took 1): the second's is 3.
    assert!(!rig.near.session.ready());
    0x43
}

/// Answers that would end the request with a value if they were believed.
fn answers(invoke: u8) -> Vec<(&'static str, Vec<u8>)> {
    let value = [6, 0, 0, 0, 99];
    vec![
        ("get-response-normal", [&[0xC4, 1, invoke, 0][..], &value].concat()),
        ("get-response-with-datablock", [&[0xC4, 2, invoke, 1, 0, 0, 0, 1, 0, 5][..], &value].concat()),
        ("get-response-with-list", [&[0xC4, 3, invoke, 1, 0][..], &value].concat()),
        ("data-notification", [&[0x0F, 0x40, 0, 0, 1, 0][..], &value].concat()),
    ]
}

#[test]
fn only_the_pinned_security_control_gives_a_value() {
    let mut cases = 0;
    for protection in [Protection::Authenticated, Protection::Encrypted, Protection::Both] {
        let profile = Profile { protection, ..secured() };
        let associated = |general| {
            let ciphering = if general { Ciphering::General } else { Ciphering::ServiceSpecific };
            asking(&Profile { ciphering, ..profile.clone() })
        };
        for control in 0..=255_u8 {
            for general in [false, true] {
                for (name, plain) in answers(0x43) {
                    let mut rig = associated(general);
                    let mut apdu = sealed(control, 50_000, &plain);
                    match tags::ciphered(plain[0], KeyKind::Global) {
                        Some(tag) if !general => wrap_service(&mut apdu, 0, tag),
                        _ => wrap_general(&mut apdu, 0, KeyKind::Global, &METER_TITLE.0),
                    }
                    assert_eq!(invoke_on_wire(&rig), 0x43);

                    rig.inject_near(&frame(&apdu, 1, 1));

                    let believed = rig.near.batch.lines.len() > 1;
                    assert_eq!(believed, control == protection.security_control(Suite::Zero), "{name}, {control:02X}");
                    cases += 1;
                }
            }
        }
    }
    assert!(cases >= 3_000, "{cases}");
}

#[test]
fn a_plain_answer_on_a_protected_association_ends_it() {
    for (name, plain) in answers(0x43) {
        let mut rig = asking(&secured());

        rig.inject_near(&frame(&plain, 1, 1));

        assert_eq!(rig.near.batch.lines.len(), 1, "{name}");
        assert_eq!(rig.near.finished[1].1, Outcome::AuthenticationFailed, "{name}");
        let last = rig.near.batch.events.last().unwrap();
        assert_eq!(last.kind, EventKind::WeakerSecurity, "{name}");
        assert!(!rig.open);
    }
}

#[test]
fn a_plain_exception_ends_the_exchange_and_gives_no_value() {
    let mut rig = asking(&secured());

    rig.inject_near(&frame(&[0xD8, 1, 6, 0, 0, 0x12, 0x34], 1, 1));

    assert_eq!(rig.near.finished[1].1, Outcome::Interrupted);
    let event = rig.near.batch.events.iter().find(|event| event.kind == EventKind::CounterBehind).unwrap();
    assert_eq!(event.number, 0x1234, "a hint, not proof: no counter moves by it");
    assert_eq!(rig.near.batch.lines.len(), 1);
}

#[test]
fn every_flipped_bit_of_an_answer_gives_no_value() {
    let profile = secured();
    let mut recorded = rig(&profile);
    assert_eq!(ask(&mut recorded, vec![energy(), energy()]), Some(Outcome::Done));
    let answer = recorded.far.written.last().unwrap().clone();
    let fresh = || {
        let mut rig = rig(&profile);
        assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
        rig.tell_far(Input::Control(MeterControl::Fault(Fault::Silent)));
        rig.tell_near(Input::Request(request(2, vec![energy()])));
        rig
    };

    let mut genuine = fresh();
    genuine.inject_near(&answer);
    assert_eq!(genuine.near.batch.lines.len(), 2, "unchanged, it is the answer");
    for bit in 0..answer.len() * 8 {
        let mut mutant = answer.clone();
        mutant[bit / 8] ^= 1 << (bit % 8);
        let mut rig = fresh();
        rig.inject_near(&mutant);
        assert_eq!(rig.near.batch.lines.len(), 1, "bit {bit}");
    }
}

#[test]
fn every_frame_of_a_session_replayed_is_refused() {
    let profile = secured();
    let mut recorded = rig(&profile);
    assert_eq!(ask(&mut recorded, vec![energy(), load_profile(), energy()]), Some(Outcome::Done));
    let frames = recorded.far.written.clone();
    // The head-end remembers the meter's counter over connections and restarts.
    let high_water = recorded.near.batch.peer_counters.last().unwrap().1;

    for (index, replayed) in frames.iter().enumerate() {
        let mut rig = rig(&profile);
        let channel = head_end_channel(1, CounterBlock::new(20_000, 30_000), Some(high_water));
        rig.near.session = HeadEnd::new(7, profile.clone().into(), Some(channel), b"").unwrap();
        rig.far.session = meter(&profile).with_fault(Fault::Silent);
        rig.connect();
        rig.tell_near(Input::Request(request(1, vec![energy()])));

        rig.inject_near(replayed);
        rig.inject_near(replayed);

        assert_eq!(rig.near.batch.lines.len(), 0, "frame {index}");
        assert!(!rig.near.session.associated(), "frame {index}");
        assert!(rig.near.batch.peer_counters.is_empty(), "frame {index} moved the high-water mark");
    }
}

#[test]
fn frames_replayed_within_the_association_are_refused() {
    let mut rig = rig(&secured());
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Replays(2))));

    let outcomes: Vec<_> = (0..4).map(|_| ask(&mut rig, vec![energy()])).collect();

    assert!(outcomes.contains(&Some(Outcome::AuthenticationFailed)), "{outcomes:?}");
    assert!(rig.near.batch.events.iter().any(|event| event.kind == EventKind::ReplayRefused));
    assert!(rig.near.batch.lines.iter().all(|line| line.request != 0));
}

/// What an impostor changes in the AARE.
#[derive(Clone)]
struct Forged {
    context: ApplicationContext,
    mechanism: Option<Mechanism>,
    title: Option<[u8; 8]>,
    challenge: Vec<u8>,
    plain_initiate: bool,
    diagnostic: Diagnostic,
    echo: bool,
}

impl Default for Forged {
    fn default() -> Self {
        Self {
            context: ApplicationContext::LogicalNameCiphered,
            mechanism: Some(Mechanism::HighGmac),
            title: Some(METER_TITLE.0),
            challenge: vec![0xA5; 16],
            plain_initiate: false,
            diagnostic: Diagnostic::AUTHENTICATION_REQUIRED,
            echo: false,
        }
    }
}

/// Answer the head-end's AARQ with this AARE, made with the meter's real keys; the rig after it.
fn associate_with(forged: &Forged) -> TestRig {
    let profile = secured();
    let mut rig = rig(&profile);
    rig.far.session = meter(&profile).with_fault(Fault::Silent);
    rig.connect();
    rig.tell_near(Input::Request(request(1, vec![energy()])));
    let mut initiate = Vec::new();
    InitiateResponse {
        quality_of_service: None,
        dlms_version: 6,
        conformance: Conformance::GET,
        max_receive_pdu_size: 1_000,
        vaa_name: 7,
    }
    .encode(&mut initiate);
    if !forged.plain_initiate {
        let mut sealer = Sealer::new(METER_TITLE, key(1), CounterBlock::new(70_000, 80_000));
        sealer.seal(Protection::Both, &key(2), &mut initiate, 0).unwrap();
        wrap_service(&mut initiate, 0, 0x28);
    }
    let aarq = rig.near.written[0].clone();
    let ours = ipss_dlms::apdu::acse::Aarq::decode(&aarq[8..]).unwrap().authentication_value.unwrap().to_vec();
    let challenge = if forged.echo { &ours } else { &forged.challenge };
    let mut apdu = Vec::new();
    Aare {
        application_context: forged.context,
        result: Aare::ACCEPTED,
        diagnostic: forged.diagnostic,
        responding_ap_title: forged.title.as_ref().map(|title| &title[..]),
        responding_ae_qualifier: None,
        responding_ae_invocation_id: None,
        responder_acse_requirements: true,
        mechanism: forged.mechanism,
        authentication_value: Some(challenge),
        user_information: Some(&initiate),
    }
    .encode(&mut apdu);
    rig.inject_near(&frame(&apdu, 1, 1));
    rig
}

fn went_on(rig: &TestRig) -> bool {
    // AARQ, then our proof.
    rig.near.written.len() == 2
}

#[test]
fn the_pinned_aare_goes_on_to_the_proofs() {
    assert!(went_on(&associate_with(&Forged::default())));
}

#[test]
fn every_other_context_mechanism_and_title_is_refused_before_a_proof_is_sent() {
    let mut forgeries = Vec::new();
    for number in (0..=255).filter(|number| *number != 3) {
        let context = ApplicationContext::from_number(number);
        forgeries.push(Forged { context, ..Forged::default() });
    }
    for number in (0..=255).filter(|number| *number != 5) {
        let mechanism = Some(Mechanism::from_number(number));
        forgeries.push(Forged { mechanism, ..Forged::default() });
    }
    forgeries.push(Forged { title: None, ..Forged::default() });
    forgeries.push(Forged { title: Some(*b"TSTother"), ..Forged::default() });
    forgeries.push(Forged { title: Some(HEAD_END_TITLE.0), ..Forged::default() });
    forgeries.push(Forged { plain_initiate: true, ..Forged::default() });
    forgeries.push(Forged { echo: true, ..Forged::default() });
    for length in (0..16).chain(65..80) {
        forgeries.push(Forged { challenge: vec![1; length], ..Forged::default() });
    }
    for forged in forgeries {
        let rig = associate_with(&forged);

        assert!(!went_on(&rig), "{:?} {:?} {:?}", forged.context, forged.mechanism, forged.title);
        assert!(!rig.open);
        let outcome = rig.near.finished[0].1;
        assert!(matches!(outcome, Outcome::AuthenticationFailed | Outcome::Violation), "{outcome:?}");
    }
}

#[test]
fn a_reflected_proof_is_no_proof() {
    // The peer knows no key: it sends our own proof and our own protected frames back.
    let profile = secured();
    let mut rig = associate_with(&Forged::default());
    let ours = rig.near.written[1].clone();
    rig.inject_near(&ours);

    assert!(!rig.open && !rig.near.session.associated());
    assert_eq!(rig.near.finished[0].1, Outcome::AuthenticationFailed);
    assert!(profile.needs_keys());
}

#[test]
fn a_meter_with_another_key_is_never_associated() {
    for (encryption, expected) in [(1, true), (3, false)] {
        let profile = secured();
        let mut rig = rig(&profile);
        let channel = head_end_channel(encryption, CounterBlock::new(10, 100), None);
        rig.near.session = HeadEnd::new(7, profile.into(), Some(channel), b"").unwrap();

        let outcome = ask(&mut rig, vec![energy()]);

        assert_eq!(outcome == Some(Outcome::Done), expected, "{outcome:?}");
        assert_eq!(rig.near.batch.lines.is_empty(), !expected);
    }
}

#[test]
fn forged_counters_at_the_end_leave_the_high_water_mark_where_it_is() {
    let mut rig = asking(&secured());
    let before = rig.near.batch.peer_counters.clone();
    let mut apdu = sealed(0x30, u32::MAX, &answers(0x43)[0].1);
    let last = apdu.len() - 1;
    apdu[last] ^= 1;
    wrap_service(&mut apdu, 0, 0xCC);

    rig.inject_near(&frame(&apdu, 1, 1));

    assert_eq!(rig.near.batch.peer_counters, before);
    assert_eq!(rig.near.batch.events.last().unwrap().kind, EventKind::TagInvalid);
}

#[test]
fn a_counter_that_jumps_by_more_than_a_million_is_believed_and_told() {
    let told = |rig: &TestRig| {
        let events = rig.near.batch.events.iter();
        events.filter(|event| event.kind == EventKind::CounterJump).map(|event| event.number).collect::<Vec<_>>()
    };
    for (jump, is_told) in [(1, false), (1_000_000, false), (1_000_001, true)] {
        // In an answer.
        let mut rig = asking(&secured());
        let counter = rig.near.batch.peer_counters.last().unwrap().1 + jump;
        let mut apdu = sealed(0x30, counter, &answers(0x43)[0].1);
        wrap_service(&mut apdu, 0, 0xCC);
        rig.inject_near(&frame(&apdu, 1, 1));
        assert_eq!(rig.near.batch.lines.len(), 2, "the value counts, with a jump of {jump}");
        assert_eq!(rig.near.batch.peer_counters.last().unwrap().1, counter);
        assert_eq!(told(&rig), if is_told { vec![i64::from(counter)] } else { vec![] }, "{jump}");

        // In a push.
        let mut rig = asking(&secured());
        let counter = rig.near.batch.peer_counters.last().unwrap().1 + jump;
        let mut apdu = sealed(0x30, counter, &answers(0)[3].1);
        wrap_general(&mut apdu, 0, KeyKind::Global, &METER_TITLE.0);
        rig.inject_near(&frame(&apdu, 1, 1));
        assert_eq!(told(&rig).len(), usize::from(is_told), "{jump}");

        // In the AARE that begins an association; with HLS-GMAC alone, in the meter's proof.
        for protection in [Protection::Both, Protection::None] {
            let profile = Profile { protection, ..secured() };
            let known = 2_000_000;
            let sealer = Sealer::new(METER_TITLE, key(1), CounterBlock::new(known + jump, u32::MAX));
            let channel = Channel::new(sealer, key(2), SystemTitle::default(), HighWater::default());
            let settings = Settings { clients: vec![profile.clone()], largest_answer: 400, log_nonces: false };
            let far = Meter::new(7, Arc::new(settings), Small::default(), channel, b"secret");
            let channel = head_end_channel(1, CounterBlock::new(10, 10_000), Some(known));
            let near = HeadEnd::new(7, Arc::new(profile), Some(channel), b"secret").unwrap();
            let mut rig = Rig::new(near, far, 1, START);
            assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
            let expected = if is_told { vec![i64::from(known + jump)] } else { vec![] };
            assert_eq!(told(&rig), expected, "{protection:?} {jump}");
        }
    }
}

#[test]
fn answers_to_other_questions_are_never_attributed() {
    for invoke in (0..16_u8).filter(|invoke| *invoke != 3) {
        let mut rig = asking(&secured());
        let mut apdu = sealed(0x30, 50_000, &answers(0x40 | invoke)[0].1);
        wrap_service(&mut apdu, 0, 0xCC);

        rig.inject_near(&frame(&apdu, 1, 1));

        assert_eq!(rig.near.batch.lines.len(), 1, "invoke-id {invoke}");
        assert!(rig.near.batch.events.iter().any(|event| event.kind == EventKind::UnexpectedAnswer));
        assert!(rig.open, "a late answer harms nothing");
    }
}

#[test]
fn frames_for_other_addresses_and_garbage_close_the_connection_alone() {
    let good = sealed(0x30, 50_000, &answers(0x43)[0].1);
    let mut apdu = good.clone();
    wrap_service(&mut apdu, 0, 0xCC);
    let mut hostile = vec![frame(&apdu, 2, 1), frame(&apdu, 1, 2), vec![0, 2, 0, 1], vec![0x7E; 40]];
    hostile.push([&[0, 1, 0, 1, 0, 1, 0, 4][..], &[0xCC, 0x82, 0xFF, 0xFF]].concat());
    hostile.push(frame(&[0xCC, 4, 0x30, 0, 0, 0], 1, 1));
    hostile.push(frame(&[], 1, 1));
    for octets in hostile {
        let mut rig = asking(&secured());
        rig.inject_near(&octets);
        rig.run(Duration::from_secs(100), 100);
        assert_eq!(rig.near.batch.lines.len(), 1, "{octets:02X?}");
        assert!(!rig.open, "{octets:02X?}");
    }
}

#[test]
fn a_question_of_the_wrong_client_gets_no_value_from_the_meter() {
    let profile = Profile { authentication: Authentication::HlsGmac, ..secured() };
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    let served = |rig: &TestRig| rig.far.batch.events.iter().filter(|event| event.kind == EventKind::Served).count();
    let before = served(&rig);

    rig.inject_far(&frame(&[0xC0, 1, 0x41, 0, 3, 1, 0, 1, 8, 0, 255, 2, 0], 1, 1));
    rig.inject_far(&frame(&[0xC0, 1, 0x41, 0, 3, 1, 0, 1, 8, 0, 255, 2, 0], 99, 1));

    assert_eq!(served(&rig), before);
}
