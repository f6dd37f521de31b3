//! Our side of `benches/codec.py`: the works that other libraries do too, on the same octets.
//! `cargo bench -p ipss-dlms --bench peers`.

#![allow(missing_docs)] // criterion writes an undocumented function

use std::collections::HashMap;
use std::hint::black_box;

use criterion::measurement::{Measurement, ValueFormatter, WallTime as WallClock};
use criterion::{Criterion, criterion_group, criterion_main};
use ipss_dlms::apdu::acse::{Aare, Aarq, ApplicationContext, Mechanism};
use ipss_dlms::apdu::action;
use ipss_dlms::apdu::ciphered::{CipheredApdu, wrap_general, wrap_service};
use ipss_dlms::apdu::get::{self, GetResponse};
use ipss_dlms::apdu::initiate::{Conformance, InitiateRequest, InitiateResponse};
use ipss_dlms::apdu::invoke::InvokeIdAndPriority;
use ipss_dlms::apdu::list::DataOrResult;
use ipss_dlms::apdu::selection::SelectionOptions;
use ipss_dlms::apdu::tags::KeyKind;
use ipss_dlms::axdr::{BufferShape, decode_buffer, decode_value};
use ipss_dlms::cosem::{AttributeDescriptor, LogicalName, MethodDescriptor};
use ipss_dlms::link::hdlc;
use ipss_dlms::security::cipher::{open, verify_gmac_proof};
use ipss_dlms::security::{CounterBlock, HighWater, Key, Protection, Sealer, Suite, SystemTitle};
use ipss_session::{Batch, Cell, Limits, Line, WallTime};

const REGISTER: AttributeDescriptor =
    AttributeDescriptor { class_id: 3, logical_name: LogicalName([1, 0, 1, 8, 0, 255]), attribute: 2 };
const REPLY_TO_HLS: MethodDescriptor =
    MethodDescriptor { class_id: 15, logical_name: LogicalName::CURRENT_ASSOCIATION, method: 1 };
const GLO_INITIATE_REQUEST: u8 = 0x21;
const GLO_ACTION_REQUEST: u8 = 0xCB;
/// What stands before an APDU of the meter's in an information frame.
const LLC_RESPONSE: [u8; 3] = [0xE6, 0xE7, 0x00];
const INVOKE: InvokeIdAndPriority = InvokeIdAndPriority(0xC1);

/// The fixtures, each under `table.name`: hexadecimal octets.
struct Fixtures(HashMap<String, String>);

impl Fixtures {
    fn load() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/fixtures/codec.toml");
        let text = std::fs::read_to_string(path).expect("the fixtures stand in benches/fixtures");
        let (mut table, mut all) = (String::new(), HashMap::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_end_matches(']').to_owned();
            } else if let Some((name, value)) = line.split_once(" = ") {
                all.insert(format!("{table}.{name}"), value.trim_matches('"').to_owned());
            }
        }
        Self(all)
    }

    fn octets(&self, name: &str) -> Vec<u8> {
        let text = &self.0[name];
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn number(&self, name: &str) -> u32 {
        self.0[name].parse().unwrap()
    }

    fn key(&self, name: &str) -> Key {
        Key::from_slice(&self.octets(name)).unwrap()
    }

    fn title(&self, name: &str) -> SystemTitle {
        SystemTitle::from_slice(&self.octets(name)).unwrap()
    }
}

/// Both keys and both titles, as an association holds them.
struct Ends {
    encryption: Key,
    authentication: Key,
    client: SystemTitle,
    meter: SystemTitle,
    suite: Suite,
    limits: Limits,
}

impl Ends {
    /// The ends of the fixtures, with the keys that `suite` takes.
    fn of(fixtures: &Fixtures, suite: Suite) -> Self {
        let size = if suite == Suite::Two { "_256" } else { "" };
        Self {
            encryption: fixtures.key(&format!("keys.encryption_key{size}")),
            authentication: fixtures.key(&format!("keys.authentication_key{size}")),
            client: fixtures.title("keys.client_title"),
            meter: fixtures.title("keys.meter_title"),
            suite,
            limits: Limits::default(),
        }
    }

    /// Decipher a GET response and decode its value.
    fn register<'s>(&self, apdu: &[u8], scratch: &'s mut Vec<u8>) -> Cell<'s> {
        decode_value(value(self.opened(apdu, scratch), &self.limits), &self.limits).unwrap()
    }

    /// A sealer whose next counter is `counter`.
    fn sealer(&self, counter: u32) -> Sealer {
        Sealer::new(self.client, self.encryption.clone(), CounterBlock::new(counter, u32::MAX))
    }

    /// Copy a received APDU into `scratch`, as it would stand in the receive buffer, decipher it there and give its plain octets.
    fn opened<'s>(&self, apdu: &[u8], scratch: &'s mut Vec<u8>) -> &'s [u8] {
        scratch.clear();
        scratch.extend_from_slice(apdu);
        let parts = CipheredApdu::decode(scratch).unwrap();
        let title = parts.system_title.as_ref().map(|title| &scratch[title.clone()]);
        assert!(title.is_none_or(|title| title == self.meter.0));
        let body = &mut scratch[parts.body];
        let plain = open(
            self.suite,
            &self.encryption,
            &self.authentication,
            self.meter,
            Protection::Both,
            &mut HighWater::new(None),
            body,
        )
        .unwrap();
        &body[plain.start..plain.end]
    }
}

fn value<'a>(plain: &'a [u8], limits: &Limits) -> &'a [u8] {
    match GetResponse::decode(plain, limits).unwrap() {
        GetResponse::Normal { result: DataOrResult::Data(octets), .. } => octets,
        other => panic!("{other:?}"),
    }
}

/// AARQ ciphered and encoded; AARE decoded and deciphered; f(StoC) in its ACTION, ciphered; f(CtoS) verified.
fn associate(ends: &Ends, fixtures: &Association, out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Conformance {
    let mut sealer = ends.sealer(fixtures.counter);
    scratch.clear();
    InitiateRequest {
        dedicated_key: None,
        response_allowed: true,
        quality_of_service: None,
        dlms_version: 6,
        conformance: Conformance::GET.with(Conformance::ACTION).with(Conformance::SELECTIVE_ACCESS),
        max_receive_pdu_size: 8192,
    }
    .encode(scratch);
    sealer.seal(Protection::Both, &ends.authentication, scratch, 0).unwrap();
    wrap_service(scratch, 0, GLO_INITIATE_REQUEST);
    out.clear();
    Aarq {
        application_context: ApplicationContext::LogicalNameCiphered,
        called_ap_title: None,
        calling_ap_title: Some(&ends.client.0),
        calling_ae_qualifier: None,
        calling_ae_invocation_id: None,
        sender_acse_requirements: true,
        mechanism: Some(Mechanism::HighGmac),
        authentication_value: Some(&fixtures.c_to_s),
        user_information: Some(scratch),
    }
    .encode(out);

    let aare = Aare::decode(&fixtures.aare).unwrap();
    assert_eq!((aare.result, aare.responding_ap_title), (Aare::ACCEPTED, Some(&ends.meter.0[..])));
    let agreed = InitiateResponse::decode(ends.opened(aare.user_information.unwrap(), scratch)).unwrap();

    let proof = sealer.gmac_proof(&ends.authentication, aare.authentication_value.unwrap()).unwrap();
    let mut parameters = [0; 19];
    parameters[..2].copy_from_slice(&[9, 17]);
    parameters[2..].copy_from_slice(&proof);
    out.clear();
    action::encode_request_normal(out, INVOKE, &REPLY_TO_HLS, Some(&parameters));
    sealer.seal(Protection::Both, &ends.authentication, out, 0).unwrap();
    wrap_service(out, 0, GLO_ACTION_REQUEST);

    verify_gmac_proof(
        Suite::Zero,
        &ends.encryption,
        &ends.authentication,
        ends.meter,
        &fixtures.c_to_s,
        HighWater::new(None),
        &fixtures.meter_proof,
    )
    .unwrap();
    agreed.conformance
}

struct Association {
    counter: u32,
    c_to_s: Vec<u8>,
    aare: Vec<u8>,
    meter_proof: Vec<u8>,
}

fn works(c: &mut Criterion<CpuTime>) {
    let fixtures = Fixtures::load();
    let ends = Ends::of(&fixtures, Suite::Zero);
    let (mut out, mut scratch) = (Vec::with_capacity(8192), Vec::with_capacity(8192));
    let mut group = c.benchmark_group("peers");

    let wanted = fixtures.octets("get-request.general_glo");
    let counter = fixtures.number("get-request.counter");
    group.bench_function("get-request-cipher", |bencher| {
        bencher.iter(|| {
            out.clear();
            get::encode_request_normal(&mut out, INVOKE, black_box(&REGISTER), None, &SelectionOptions::default());
            ends.sealer(counter).seal(Protection::Both, &ends.authentication, &mut out, 0).unwrap();
            wrap_general(&mut out, 0, KeyKind::Global, &ends.client.0);
        });
    });
    assert_eq!(out, wanted);

    let plain = fixtures.octets("get-response.plain");
    group.bench_function("get-response-encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            get::encode_response_normal(&mut out, INVOKE, DataOrResult::Data(black_box(&plain[4..])));
        });
    });
    assert_eq!(out, plain);

    group.bench_function("get-response-decode", |bencher| {
        bencher.iter(|| decode_value(value(black_box(&plain), &ends.limits), &ends.limits).unwrap());
    });

    for (name, fixture, suite) in [
        ("get-response-open", "get-response.general_glo", Suite::Zero),
        ("get-response-open-suite-1", "get-response.suite_1", Suite::One),
        ("get-response-open-suite-2", "get-response.suite_2", Suite::Two),
    ] {
        let (ends, ciphered) = (Ends::of(&fixtures, suite), fixtures.octets(fixture));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                assert_eq!(ends.register(black_box(&ciphered), &mut scratch), Cell::Integer(12_345_678));
            });
        });
    }

    let framed = fixtures.octets("get-response.hdlc");
    group.bench_function("get-response-hdlc", |bencher| {
        bencher.iter(|| {
            let (frame, _) = hdlc::next_frame(black_box(&framed)).unwrap().unwrap();
            assert!(frame.fcs_ok && frame.hcs_ok == Some(true));
            let apdu = frame.information.strip_prefix(&LLC_RESPONSE).unwrap();
            assert_eq!(ends.register(apdu, &mut scratch), Cell::Integer(12_345_678));
        });
    });

    let profile = fixtures.octets("profile.general_glo");
    let shape = BufferShape { columns: 5, clock_column: Some(0), status_column: None, capture_period_s: 900 };
    let head = Line {
        meter: 1,
        request: 1,
        item: 0,
        layout: 1,
        capture_time: WallTime::UNKNOWN,
        deviation: Line::NO_DEVIATION,
        clock_status: 0xFF,
    };
    let mut batch = Batch::default();
    group.bench_function("profile-open", |bencher| {
        bencher.iter(|| {
            batch.rewind(Batch::default().mark());
            let plain = ends.opened(black_box(&profile), &mut scratch);
            let lines = decode_buffer(value(plain, &ends.limits), &shape, head, &ends.limits, &mut batch).unwrap();
            assert_eq!(lines, 96);
        });
    });

    let association = Association {
        counter: fixtures.number("association.aarq_counter"),
        c_to_s: fixtures.octets("association.c_to_s"),
        aare: fixtures.octets("association.aare"),
        meter_proof: fixtures.octets("association.meter_proof"),
    };
    group.bench_function("association", |bencher| {
        bencher.iter(|| associate(black_box(&ends), &association, &mut out, &mut scratch));
    });
    group.finish();
}

/// Time on the processor, as the other sides are timed, so that what else the machine does counts for nobody: the first
/// figure of Linux' schedstat, in nanoseconds.
struct CpuTime;

impl CpuTime {
    fn now() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells the time of a thread");
        text.split(' ').next().and_then(|figure| figure.parse().ok()).expect("its first figure is a number")
    }
}

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        Self::now()
    }

    fn end(&self, start: u64) -> u64 {
        Self::now() - start
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallClock.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = works
}
criterion_main!(benches);
