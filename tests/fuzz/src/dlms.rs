//! Values, APDUs, ACSE, ciphering, blocks, pushes, and what `decode` says of them.

use std::sync::OnceLock;

use ipss_dlms::apdu::access::{AccessRequest, AccessResponse};
use ipss_dlms::apdu::acse::{Aare, Aarq, Release};
use ipss_dlms::apdu::action::{ActionRequest, ActionResponse};
use ipss_dlms::apdu::ciphered::{CipheredApdu, SecurityControl};
use ipss_dlms::apdu::exception::ExceptionResponse;
use ipss_dlms::apdu::general::{GeneralCiphering, GeneralSigning};
use ipss_dlms::apdu::get::{GetRequest, GetResponse};
use ipss_dlms::apdu::initiate::{ConfirmedServiceError, InitiateRequest, InitiateResponse};
use ipss_dlms::apdu::notification::{DataNotification, DataNotificationConfirm, EventNotification};
use ipss_dlms::apdu::set::{SetRequest, SetResponse};
use ipss_dlms::apdu::short_name::{
    InformationReport, WriteRequest, decode_read_request, decode_read_response, decode_write_response,
};
use ipss_dlms::apdu::{GeneralBlock, SelectiveAccess, get, tags};
use ipss_dlms::axdr::{BufferShape, Data, Reader, Visitor, decode_buffer, decode_value, skip, walk};
use ipss_dlms::block_transfer::{Pushed, Taken, Transfer};
use ipss_dlms::cosem::classes::{
    association_ln, clock, disconnect_control, profile_generic, push_setup, register, sap_assignment,
};
use ipss_dlms::cosem::{LogicalName, ScalerUnit, ShortNames};
use ipss_dlms::profile::{Authentication, Ciphering, Profile};
use ipss_dlms::push::companion::names;
use ipss_dlms::push::{Column, Companion, Notification, companion, learn, read};
use ipss_dlms::security::certificate::Certificate;
use ipss_dlms::security::setup::Method;
use ipss_dlms::security::{CounterBlock, Key, SystemTitle};
use ipss_dlms::translate::{Keys, TranslateRequest, Transmission, translate};
use ipss_session::rig::SeededRandom;
use ipss_session::{Batch, Limits, Line, WallTime};

use crate::common;
use crate::script::Script;

/// Counts what a walk tells.
#[derive(Default)]
struct Counter {
    parts: usize,
    depth: usize,
}

impl Visitor for Counter {
    fn simple(&mut self, _: u8, _: &[u8], _: usize) {
        self.parts += 1;
    }

    fn open(&mut self, _: u8, _: Option<usize>) {
        self.depth += 1;
        assert!(self.depth <= 128, "deeper than any limit");
    }

    fn close(&mut self) {
        self.depth -= 1;
    }
}

/// A-XDR values: the tree and the walkers agree.
pub fn data(octets: &[u8]) {
    let limits = Limits::default();
    let (mut built, mut skipped, mut walked) = (Reader::new(octets), Reader::new(octets), Reader::new(octets));
    let value = Data::decode(&mut built, &limits);
    let skip = skip(&mut skipped, &limits);
    let mut counter = Counter::default();
    let walk = walk(&mut walked, &limits, &mut counter);
    if let Ok(value) = &value {
        assert_eq!((skip, built.offset()), (Ok(()), skipped.offset()));
        let again = value.to_octets();
        // What is not written in the shortest form is; then nothing changes any more.
        assert_eq!(Data::from_octets(&again, &limits).unwrap().to_octets(), again);
        if walk.is_ok() {
            assert_eq!((walked.offset(), counter.depth), (built.offset(), 0));
        }
        let _ = (value.type_name(), value.as_integer(), value.as_octets().map(<[u8]>::len));
        let _ = value.as_date_time().map(|time| (time.to_wall(), time.deviation(), time.status()));
        classes(value);
    }
    let _ = ShortNames::from_object_list(octets, &limits);
}

/// Profile buffers, straight into columns. The first octets choose the shape.
pub fn buffer(octets: &[u8]) {
    let limits = Limits::default();
    let mut script = Script::new(octets);
    let shape = BufferShape {
        columns: u16::from(script.octet().unwrap_or(1) & 7),
        clock_column: *script.choose(&[None, Some(0), Some(1)]),
        status_column: *script.choose(&[None, Some(1), Some(2)]),
        capture_period_s: *script.choose(&[900, 0, u32::MAX]),
    };
    let octets = script.rest();
    let _ = decode_value(octets, &limits);
    let capture_time = WallTime::UNKNOWN;
    let head = Line { meter: 1, request: 2, item: 3, layout: 4, capture_time, deviation: 0, clock_status: 0 };
    let mut batch = Batch::default();
    match decode_buffer(octets, &shape, head, &limits, &mut batch) {
        Ok(count) => assert_eq!(batch.lines.len(), count as usize),
        Err(_) => assert_eq!(batch, Batch::default(), "a buffer that is refused leaves nothing"),
    }
    for line in 0..batch.lines.len() {
        assert!(batch.cells(line).len() <= usize::from(shape.columns));
    }
}

/// Attributes of interface classes.
fn classes(value: &Data) {
    let _ = association_ln::object_list(value);
    let _ = association_ln::association_status(value);
    let _ = (clock::time(value), clock::status(value));
    let _ = disconnect_control::control_state(value);
    let _ = (profile_generic::capture_objects(value), profile_generic::sort_object(value));
    let _ = (push_setup::push_object_list(value), push_setup::send_destination_and_method(value));
    let _ = push_setup::communication_window(value);
    let _ = sap_assignment::sap_assignment_list(value);
    if let Some(scaler_unit) = ScalerUnit::from_data(value) {
        let _ = register::quantity(value, scaler_unit).map(|quantity| quantity.text());
    }
    let _ = learn::from_object_list("learnt", value).map(|layout| learn::as_toml(&layout));
}

fn selection(access: Option<SelectiveAccess<'_>>, limits: &Limits) {
    let _ = access.map(|access| access.selection(-60, limits));
}

/// Every service's APDUs, to the last item of their lists.
pub fn apdu(octets: &[u8]) {
    let limits = Limits::default();
    match GetRequest::decode(octets, &limits) {
        Ok(GetRequest::Normal { access, .. }) => selection(access, &limits),
        Ok(GetRequest::WithList { items, .. }) => {
            items.iter(&limits).for_each(|item| selection(item.access, &limits));
        }
        _ => {}
    }
    match GetResponse::decode(octets, &limits) {
        Ok(GetResponse::Normal { invoke, result }) => {
            let mut out = Vec::new();
            get::encode_response_normal(&mut out, invoke, result);
            assert_eq!(GetResponse::decode(&out, &limits), Ok(GetResponse::Normal { invoke, result }));
        }
        Ok(GetResponse::WithList { results, .. }) => assert_eq!(results.iter(&limits).count(), results.len()),
        _ => {}
    }
    match SetRequest::decode(octets, &limits) {
        Ok(SetRequest::Normal { access, .. }) => selection(access, &limits),
        Ok(SetRequest::WithListAndFirstDatablock { items, .. }) => {
            items.iter(&limits).for_each(|item| selection(item.access, &limits));
        }
        Ok(SetRequest::WithList { items, values, .. }) => {
            assert_eq!(items.iter(&limits).count(), items.len());
            assert_eq!(values.iter(&limits).count(), values.len());
        }
        _ => {}
    }
    if let Ok(ActionRequest::WithList { methods, parameters, .. }) = ActionRequest::decode(octets, &limits) {
        assert_eq!(methods.iter(&limits).count(), methods.len());
        assert_eq!(parameters.iter(&limits).count(), parameters.len());
    }
    let _ = (SetResponse::decode(octets, &limits), ActionResponse::decode(octets, &limits));
    let _ = (AccessRequest::decode(octets, &limits), AccessResponse::decode(octets, &limits));
    if let Ok(variables) = decode_read_request(octets, &limits) {
        assert_eq!(variables.iter(&limits).count(), variables.len());
    }
    if let Ok(results) = decode_read_response(octets, &limits) {
        assert_eq!(results.iter(&limits).count(), results.len());
    }
    let _ = (WriteRequest::decode(octets, &limits), decode_write_response(octets, &limits));
    let _ = (InformationReport::decode(octets, &limits), DataNotificationConfirm::decode(octets));
    if let Ok(notification) = DataNotification::decode(octets) {
        let mut out = Vec::new();
        notification.encode(&mut out);
        let again = DataNotification::decode(&out).unwrap();
        assert_eq!((again.date_time, again.body), (notification.date_time, notification.body));
    }
    let _ = EventNotification::decode(octets);
    if let Ok(block) = GeneralBlock::decode(octets) {
        let mut out = Vec::new();
        block.encode(&mut out);
        assert_eq!(GeneralBlock::decode(&out), Ok(block));
    }
    if let Ok(error) = ConfirmedServiceError::decode(octets) {
        let _ = (error.service_name(), error.error_name());
    }
    if let Ok(exception) = ExceptionResponse::decode(octets) {
        let mut out = Vec::new();
        exception.encode(&mut out);
        assert_eq!(ExceptionResponse::decode(&out), Ok(exception));
        let _ = (exception.state_error_name(), exception.service_error_name());
    }
    for number in 1..=8 {
        if let Ok(Some(method)) = Method::decode(number, octets, &limits) {
            assert_eq!(method.number(), number);
            let again = method.encode();
            assert!(matches!(Method::decode(number, &again, &limits), Ok(Some(_))));
        }
    }
}

/// AARQ, AARE, RLRQ, RLRE, and what initiates inside them.
pub fn acse(octets: &[u8]) {
    if let Ok(aarq) = Aarq::decode(octets) {
        let mut out = Vec::new();
        aarq.encode(&mut out);
        let again = Aarq::decode(&out).unwrap();
        assert_eq!((again.mechanism, again.user_information), (aarq.mechanism, aarq.user_information));
    }
    if let Ok(aare) = Aare::decode(octets) {
        let _ = aare.result_name();
        let mut out = Vec::new();
        aare.encode(&mut out);
        let again = Aare::decode(&out).unwrap();
        assert_eq!((again.result, again.user_information), (aare.result, aare.user_information));
    }
    for tag in [tags::RLRQ, tags::RLRE] {
        if let Ok(release) = Release::decode(octets, tag) {
            let mut out = Vec::new();
            release.encode(&mut out, tag);
            assert_eq!(Release::decode(&out, tag), Ok(release));
        }
    }
    if let Ok(request) = InitiateRequest::decode(octets) {
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(InitiateRequest::decode(&out), Ok(request));
    }
    if let Ok(response) = InitiateResponse::decode(octets) {
        let mut out = Vec::new();
        response.encode(&mut out);
        assert_eq!(InitiateResponse::decode(&out), Ok(response));
        assert!(response.conformance.names().count() <= 24);
    }
}

/// The profiles whose channels differ.
fn protected() -> &'static [Profile] {
    static PROFILES: OnceLock<Vec<Profile>> = OnceLock::new();
    PROFILES.get_or_init(|| {
        let mut all = common::all_profiles();
        all.retain(|profile| {
            let mechanism = matches!(profile.authentication, Authentication::HlsGmac | Authentication::None);
            profile.is_ciphered() && mechanism
        });
        all
    })
}

/// Protected APDUs: framing, tags, counters. The first octet chooses the profile, the second what is done to an APDU that
/// the peer protected well.
pub fn ciphering(octets: &[u8]) {
    let _ = CipheredApdu::decode(octets).map(|apdu| {
        assert_eq!(apdu.body.end, octets.len());
        let SecurityControl(control) = apdu.security_control;
        assert_eq!(octets[apdu.body.start], control);
    });
    if let Ok(apdu) = GeneralCiphering::decode(octets) {
        assert_eq!(apdu.body.end, octets.len());
    }
    if let Ok(apdu) = GeneralSigning::decode(octets) {
        assert!(apdu.content.end <= octets.len());
    }
    let _ = Certificate::decode(octets);

    let mut script = Script::new(octets);
    let profile = script.choose(protected());
    let Some(what) = script.octet() else { return };
    let mut channel = common::channel_of(profile.suite, 1, CounterBlock::new(10, 10_000), None);
    let mut peer = common::meter_channel_of(profile.suite, common::METER_TITLE);
    peer.meet(common::HEAD_END_TITLE);
    peer.begin();
    if what % 2 == 0 {
        // Octets of anybody: only the peer can make what is opened. It is one that never seals here, because comparisons
        // teach the fuzzer the octets of another that does.
        channel.meet(SystemTitle(*b"TSTnever"));
        channel.begin();
        let before = channel.peer_counter();
        let mut apdu = script.rest().to_vec();
        let opened = channel.unprotect(profile, &mut apdu);
        assert!(opened.is_err(), "opened what nobody with the key has made");
        assert_eq!(channel.peer_counter(), before, "a counter is believed without its tag");
        return;
    }
    channel.meet(common::METER_TITLE);
    channel.begin();
    // The peer's own, bent at one place.
    let (place, bits) = (script.octet().unwrap_or_default(), script.octet().unwrap_or_default());
    let form = if matches!(profile.ciphering, Ciphering::GeneralCiphering(_)) || what & 2 == 0 {
        profile.ciphering
    } else {
        Ciphering::General
    };
    let plain = [&[tags::GET_RESPONSE][..], script.rest()].concat();
    let mut apdu = plain.clone();
    let mut random = SeededRandom::new(u64::from(what));
    peer.protect(profile, form, tags::KeyKind::Global, &mut random, &mut apdu, 0).unwrap();
    let sent = apdu.clone();
    let place = usize::from(place) * apdu.len() / 256;
    apdu[place] ^= bits;
    let bent = apdu != sent;
    match channel.unprotect(profile, &mut apdu) {
        Ok(opened) => {
            let counted = profile.protection.security_control(profile.suite) & 0x10 != 0 || profile.signing;
            // What frames it is not under the tag: a presence octet may be any but 0. What is inside is as it was.
            let plain_again = apdu[opened.start..opened.end] == plain;
            assert!(plain_again || (bent && !counted), "{profile:?}: octet {place} bent by {bits:02x}: {sent:02x?}");
        }
        Err(error) => assert!(bent, "{profile:?}: {error:?}"),
    }
}

/// General block transfer: both ends with blocks lost, repeated and made up in between.
pub fn blocks(octets: &[u8]) {
    let limits = Limits { reassembly: 16_384, blocks: 200, ..Limits::default() };
    let mut script = Script::new(octets);
    let (window, size) = (script.octet().unwrap_or(1) & 0x3F, usize::from(script.octet().unwrap_or(20)));
    let apdu: Vec<u8> = (0..usize::from(script.octet().unwrap_or_default()) * 16).map(|place| place as u8).collect();
    let mut near = Transfer::send(apdu.clone(), size, window);
    let mut far = Transfer::receive(window);
    let mut pushed = Pushed::default();
    let (mut to_far, mut to_near): (Vec<Vec<u8>>, Vec<Vec<u8>>) = Default::default();
    if Transfer::is_too_long(apdu.len(), size, &limits) {
        return;
    }
    let encoded = |transfer: &mut Transfer| {
        let mut wire = Vec::new();
        transfer.give(|block| {
            let mut out = Vec::new();
            block.encode(&mut out);
            wire.push(out);
        });
        wire
    };
    while let Some(what) = script.octet() {
        match what % 8 {
            0 => to_far = encoded(&mut near),
            1 => to_near = encoded(&mut far),
            direction @ (2 | 3) => {
                let wire = std::mem::take(if direction == 2 { &mut to_far } else { &mut to_near });
                for (place, octets) in wire.iter().enumerate() {
                    if what >> 3 == 1 + place as u8 {
                        continue; // lost
                    }
                    let block = GeneralBlock::decode(octets).unwrap();
                    let end = if direction == 2 { &mut far } else { &mut near };
                    if let Ok(Taken::Whole(whole)) = end.take(&block, &limits) {
                        assert!(whole.len() <= limits.reassembly);
                    }
                }
            }
            4 | 5 => {
                let mut made = vec![tags::GENERAL_BLOCK_TRANSFER];
                made.extend_from_slice(script.piece());
                let Ok(block) = GeneralBlock::decode(&made) else { continue };
                let end = if what % 8 == 4 { &mut far } else { &mut near };
                let _ = end.take(&block, &limits);
            }
            6 => {
                let raw = script.piece();
                let number = u16::from(script.octet().unwrap_or_default());
                let (last, streaming) = (what & 8 != 0, what & 16 != 0);
                let block = GeneralBlock { last, streaming, window: 0, number, acknowledged: 0, raw };
                if let Some(whole) = pushed.take(&block, &limits) {
                    assert!(whole.len() <= limits.reassembly);
                }
            }
            _ => far.answer(script.piece().to_vec(), size),
        }
        let _ = (near.is_sending(), near.received(), far.received());
    }
}

fn companions() -> &'static [&'static Companion] {
    static COMPANIONS: OnceLock<Vec<&'static Companion>> = OnceLock::new();
    COMPANIONS.get_or_init(|| names().map(|name| companion(name).expect("a profile that ships")).collect())
}

/// Readings in notifications, by companion profiles; layouts learnt. The first octet chooses the companion.
pub fn push(octets: &[u8]) {
    let limits = Limits::default();
    let mut script = Script::new(octets);
    let companion = script.choose(companions());
    let octets = script.rest();
    let _ = Notification::decode(octets).map(|notification| notification.time());
    if let Ok(pushed) = read(octets, companion, &limits) {
        assert!(pushed.values.len() <= octets.len());
    }
    let column = Column {
        descriptor: common::attribute(3, LogicalName([1, 0, 1, 8, 0, 255]), 2),
        data_index: 0,
        scaler: Some(-3),
        unit: None,
    };
    let labels = [(column, "1".to_owned())];
    if let Ok(layout) = learn::from_sample("learnt", octets, &labels, &limits) {
        let _ = learn::as_toml(&layout);
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        let _ = Column::parse(text).map(|column| column.map(|column| column.text()));
    }
}

/// What `decode` says: valid JSON, in proportion. The first octet chooses the layer, the second a companion; pieces follow.
pub fn translated(octets: &[u8]) {
    const LAYERS: [&str; 9] = ["auto", "hdlc", "wrapper", "mbus", "wmbus", "llc", "llc-61334", "apdu", "data"];
    let mut script = Script::new(octets);
    let layer = script.choose(&LAYERS);
    let companion = match script.octet().unwrap_or_default() {
        0 => None,
        other => Some(companions()[usize::from(other) % companions().len()]),
    };
    let all = script.rest();
    let mut pieces = Script::new(all);
    let several: Vec<&[u8]> = std::iter::from_fn(|| Some(pieces.piece()).filter(|piece| !piece.is_empty())).collect();
    let keys = [Keys {
        encryption_key: Key::from_slice(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]).ok(),
        authentication_key: Key::from_slice(&std::array::from_fn::<u8, 16, _>(|place| 0xD0 + place as u8)).ok(),
        dedicated_key: None,
        client_system_title: SystemTitle::from_slice(b"MMM\0\0\xBCaN").ok(),
        server_system_title: None,
    }];
    for pieces in [&[all][..], &several[..]] {
        let transmissions: Vec<_> = pieces.iter().map(|octets| Transmission { from: None, octets }).collect();
        for keys in [&keys[..], &[]] {
            let request = TranslateRequest { id: None, layer, transmissions: &transmissions, keys, companion };
            let mut text = String::new();
            translate(&request, &mut |piece| text.push_str(piece));
            let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert!(answer["outcome"].is_string());
        }
    }
}
