//! The matrices of the requirements, each under its number, over the suites and mechanisms beyond suite 0 and HLS-GMAC.

mod common;

use common::*;
use ipss_dlms::apdu::tags;
use ipss_dlms::head_end::HeadEnd;
use ipss_dlms::meter::{Fault, MeterControl};
use ipss_dlms::profile::{Authentication, Ciphering, KeyForm, Profile};
use ipss_dlms::security::{Channel, CounterBlock, HighWater, Protection, Sealer, Suite, cipher};
use ipss_session::{EventKind, Input, Outcome};

const SUITES: [Suite; 3] = [Suite::Zero, Suite::One, Suite::Two];

fn opened(suite: Suite, protection: Protection, water: &mut HighWater, octets: &mut [u8]) -> Result<u32, &'static str> {
    let (key, authentication_key) = (key_of(suite, 1), key_of(suite, 2));
    cipher::open(suite, &key, &authentication_key, METER_TITLE, protection, water, octets)
        .map(|opened| opened.counter)
        .map_err(|error| error.code)
}

fn sealed(suite: Suite, protection: Protection, counter: u32) -> Vec<u8> {
    let counters = CounterBlock::new(counter, counter.saturating_add(1));
    let mut sealer = Sealer::of_suite(suite, METER_TITLE, key_of(suite, 1), counters).unwrap();
    let mut out = b"\xC4\x01\xC1\x00\x06\x00\x00\x00\x63".to_vec();
    sealer.seal(protection, &key_of(suite, 2), &mut out, 0).unwrap();
    out
}

/// How much longer than in a quick run; an environment variable, so that a release can do more.
fn effort() -> usize {
    std::env::var("IPSS_SECURITY_EFFORT").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn r9_every_frame_of_a_session_replayed_is_refused_in_every_suite_and_form() {
    let mut replayed = 0;
    let profiles: Vec<Profile> = all_profiles().into_iter().filter(Profile::is_ciphered).collect();
    let sessions = std::env::var("IPSS_REPLAYED_SESSIONS").ok().and_then(|text| text.parse().ok());
    for session in 0..sessions.unwrap_or(profiles.len()) {
        let profile = profiles[session % profiles.len()].clone();
        let mut recorded = rig(&profile);
        // Those of one profile differ in length, and so in every counter after the first question.
        for _ in 0..=session / profiles.len() % 8 {
            assert_eq!(ask(&mut recorded, vec![energy()]), Some(Outcome::Done));
        }
        let high_water = recorded.near.batch.peer_counters.last().map(|(_, counter)| *counter);
        let frames = recorded.far.written.clone();
        for frame in &frames {
            let mut rig = rig(&profile);
            let channel = channel_of(profile.suite, 1, CounterBlock::new(20_000, 30_000), high_water);
            rig.near.session = HeadEnd::new(7, profile.clone().into(), Some(channel), b"secret").unwrap();
            rig.far.session = meter(&profile).with_fault(Fault::Silent);
            rig.connect();
            rig.tell_near(Input::Request(request(1, vec![energy()])));

            rig.inject_near(frame);

            assert!(rig.near.batch.lines.is_empty(), "{profile:?}");
            assert!(rig.near.batch.peer_counters.is_empty(), "{profile:?}");
            replayed += 1;
        }
    }
    assert!(replayed > 200, "{replayed}");
}

#[test]
fn r9_forged_counters_at_the_end_never_move_the_high_water_mark() {
    for suite in SUITES {
        for protection in [Protection::Authenticated, Protection::Both] {
            let mut water = HighWater::new(Some(9));
            let genuine = sealed(suite, protection, 10);
            for round in 0..1_700_u32 {
                let mut forged = genuine.clone();
                forged[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
                let last = forged.len() - 1;
                forged[last - (round % 12) as usize] ^= (round % 255) as u8 + 1;

                assert_eq!(opened(suite, protection, &mut water, &mut forged), Err("tag-invalid"));
                assert_eq!(water.highest(), Some(9));
            }
            assert_eq!(opened(suite, protection, &mut water, &mut genuine.clone()), Ok(10));
        }
    }
}

#[test]
fn r10_counters_at_their_boundaries() {
    for limit in [0, 9, 1_000_000, 2_000_000_000, u32::MAX - 3] {
        for counter in limit..=limit + 2 {
            let mut water = HighWater::new(Some(limit));
            let octets = sealed(Suite::One, Protection::Both, counter);

            let result = opened(Suite::One, Protection::Both, &mut water, &mut octets.clone());

            assert_eq!(result.is_ok(), counter > limit, "{counter} over {limit}");
            assert_eq!(water.highest(), Some(counter.max(limit)));
        }
    }
    let mut block = Sealer::new(METER_TITLE, key(1), CounterBlock::new(u32::MAX - 1, u32::MAX));
    let mut out = vec![0xC0];
    assert!(block.seal(Protection::Both, &key(2), &mut out, 0).is_ok());
    assert!(block.seal(Protection::Both, &key(2), &mut out, 0).is_err(), "2^32-1 is never sealed with");
}

#[test]
fn r11_every_flipped_bit_is_refused() {
    let mut mutants = 0;
    for suite in SUITES {
        for protection in [Protection::Authenticated, Protection::Both] {
            for counter in 0..60 * effort() as u32 {
                let genuine = sealed(suite, protection, counter + 1);
                for bit in 0..genuine.len() * 8 {
                    let mut mutant = genuine.clone();
                    mutant[bit / 8] ^= 1 << (bit % 8);
                    let mut water = HighWater::default();

                    assert!(opened(suite, protection, &mut water, &mut mutant).is_err(), "{suite:?} bit {bit}");
                    assert_eq!(water.highest(), None);
                    mutants += 1;
                }
            }
        }
    }
    assert!(mutants > 70_000, "{mutants}");
}

#[test]
fn r12_one_security_control_octet_of_256_is_opened_in_every_suite() {
    for suite in SUITES {
        for protection in [Protection::Authenticated, Protection::Encrypted, Protection::Both] {
            let genuine = sealed(suite, protection, 5);
            let allowed: Vec<u8> = (0..=255)
                .filter(|control| {
                    let mut octets = genuine.clone();
                    octets[0] = *control;
                    opened(suite, protection, &mut HighWater::default(), &mut octets).is_ok()
                })
                .collect();

            assert_eq!(allowed, [protection.security_control(suite)]);
        }
    }
}

#[test]
fn r12_a_meter_with_another_mechanism_or_suite_or_form_is_never_read() {
    let pinned = all_profiles();
    for (index, near) in pinned.iter().enumerate() {
        // Each against a few others: all pairs would take minutes and say the same.
        for step in [1, 7, 13] {
            let far = &pinned[(index + step) % pinned.len()];
            let same = (near.authentication, near.suite, near.protection)
                == (far.authentication, far.suite, far.protection)
                && near.ciphering == far.ciphering
                && near.signing == far.signing;
            // The two simple forms are both understood, and a dedicated key is the head-end's to choose.
            let simple =
                |profile: &Profile| matches!(profile.ciphering, Ciphering::ServiceSpecific | Ciphering::General);
            let alike = near.authentication == far.authentication
                && near.protection == far.protection
                && (!near.needs_keys() && near.authentication != Authentication::HlsEcdsa || near.suite == far.suite)
                && simple(near)
                && simple(far)
                && near.signing == far.signing;
            if same || alike {
                continue;
            }
            let mut rig = rig(near);
            rig.far.session = meter(far);

            let outcome = ask(&mut rig, vec![energy()]);

            assert_ne!(outcome, Some(Outcome::Done), "{near:?}\n{far:?}");
            assert!(rig.near.batch.lines.is_empty());
        }
    }
}

#[test]
fn r13_a_reflected_challenge_is_refused_by_every_mechanism() {
    use ipss_dlms::apdu::acse::{Aare, Aarq, Diagnostic};

    for authentication in Authentication::ALL.into_iter().skip(1) {
        for title in [METER_TITLE, HEAD_END_TITLE] {
            let vendor = mechanisms(&secured())[0].vendor.clone();
            let profile = Profile { client: 1, authentication, suite: Suite::One, vendor, ..Profile::public() };
            let profile = Profile { client_title: HEAD_END_TITLE, ..profile };
            let mut rig = rig(&profile);
            rig.near.session = {
                let channel = channel_of(Suite::One, 1, CounterBlock::new(10, 1_000), None);
                HeadEnd::new(7, profile.clone().into(), Some(channel), b"secret").unwrap()
            };
            rig.far.session = meter(&profile).with_fault(Fault::Silent);
            rig.connect();
            rig.tell_near(Input::Request(request(1, vec![energy()])));
            let aarq = rig.near.written[0].clone();
            let ours = Aarq::decode(&aarq[8..]).unwrap().authentication_value.unwrap().to_vec();
            let mut frame = vec![0, 1, 0, 1, 0, 1, 0, 0];
            Aare {
                application_context: profile.application_context(),
                result: Aare::ACCEPTED,
                diagnostic: Diagnostic::AUTHENTICATION_REQUIRED,
                responding_ap_title: Some(&title.0),
                responding_ae_qualifier: None,
                responding_ae_invocation_id: None,
                responder_acse_requirements: true,
                mechanism: Some(authentication.mechanism()),
                authentication_value: Some(&ours),
                user_information: Some(&[0x08, 0x00, 0x06, 0x5F, 0x1F, 0x04, 0, 0, 0x50, 0x1F, 4, 0, 0, 7]),
            }
            .encode(&mut frame);
            frame[7] = frame.len() as u8 - 8;

            rig.inject_near(&frame);

            assert_eq!(rig.near.written.len(), 1, "{authentication:?} {title:?}: no proof of ours is sent");
            assert!(!rig.open && rig.near.batch.lines.is_empty());
        }
    }
}

#[test]
fn r13_no_random_source_but_the_one_that_is_lent() {
    let mut sources = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut read = 0;
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in
            ["rand::", "fastrand", "getrandom", "SystemTime", "RandomState", "thread_rng", "SeededRandom", "OsRng"]
        {
            assert!(!code.contains(word), "{}: {word}", path.display());
        }
        read += 1;
    }
    assert!(read > 30, "{read}");
}

#[test]
fn r24_broadcast_keys_protect_no_service_in_either_direction() {
    // Every service that has a ciphered form, sealed with the right key but for the octet that says broadcast.
    let services = [
        tags::GET_REQUEST,
        tags::SET_REQUEST,
        tags::ACTION_REQUEST,
        tags::EVENT_NOTIFICATION_REQUEST,
        tags::GET_RESPONSE,
        tags::SET_RESPONSE,
        tags::ACTION_RESPONSE,
        tags::DATA_NOTIFICATION,
        tags::ACCESS_REQUEST,
        tags::ACCESS_RESPONSE,
        tags::READ_REQUEST,
        tags::WRITE_REQUEST,
        tags::READ_RESPONSE,
        tags::WRITE_RESPONSE,
        tags::UNCONFIRMED_WRITE_REQUEST,
        tags::INFORMATION_REPORT_REQUEST,
        tags::INITIATE_REQUEST,
        tags::INITIATE_RESPONSE,
        tags::CONFIRMED_SERVICE_ERROR,
    ];
    let mut refused = 0;
    for suite in SUITES {
        for to_meter in [false, true] {
            for service in services {
                for general in [false, true] {
                    let profile = Profile { suite, ..secured() };
                    let (own, peer) =
                        if to_meter { (HEAD_END_TITLE, METER_TITLE) } else { (METER_TITLE, HEAD_END_TITLE) };
                    let new = |title| {
                        let block = CounterBlock::new(1, 100);
                        Sealer::of_suite(suite, title, key_of(suite, 1), block).unwrap()
                    };
                    let mut from = Channel::new(new(own), key_of(suite, 2), peer, HighWater::default());
                    let mut to = Channel::new(new(peer), key_of(suite, 2), own, HighWater::default());
                    let mut apdu = vec![service, 1, 2, 3];
                    let form = if general { Ciphering::General } else { Ciphering::ServiceSpecific };
                    let random = &mut ipss_session::rig::SeededRandom::new(1);
                    let kind = tags::KeyKind::Global;
                    from.protect(&profile, form, kind, random, &mut apdu, 0).unwrap();
                    // Behind the tag and the length, in the general form behind the title as well.
                    let control = if apdu[0] == tags::GENERAL_GLO_CIPHERING { 11 } else { 2 };
                    assert_eq!(apdu[control], 0x30 | suite.number());
                    apdu[control] |= 0x40;

                    assert_eq!(to.unprotect(&profile, &mut apdu).unwrap_err().code, "broadcast-key", "{service:02X}");
                    assert_eq!(to.peer_counter().highest(), None);
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(refused, 3 * 2 * services.len() * 2);
}

#[test]
fn r24_an_identified_broadcast_key_is_refused_in_general_ciphering() {
    let profile = Profile { ciphering: Ciphering::GeneralCiphering(KeyForm::Identified), ..secured() };
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    let mut answer = rig.far.written.last().unwrap().clone();
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Silent)));
    rig.tell_near(Input::Request(request(2, vec![energy()])));
    // Wrapper, tag, five fields, presence, choice, key-id.
    let key_id = 8 + 1 + 9 + 9 + 9 + 1 + 1 + 1 + 1;
    assert_eq!(answer[key_id], 0);
    answer[key_id] = 1;

    rig.inject_near(&answer);

    assert_eq!(rig.near.batch.events.last().unwrap().kind, EventKind::WeakerSecurity);
    assert_eq!(rig.near.batch.lines.len(), 1);
}
