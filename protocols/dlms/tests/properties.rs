//! What holds for any value and any octets.

use ipss_dlms::apdu::access::{self, AccessRequest, AccessResponse, AccessResult, AccessSpecification};
use ipss_dlms::apdu::acse::{Aare, Aarq, ApplicationContext, Diagnostic, Mechanism, Release};
use ipss_dlms::apdu::action::{self, ActionRequest, ActionResponse, MethodOutcome};
use ipss_dlms::apdu::ciphered::CipheredApdu;
use ipss_dlms::apdu::exception::ExceptionResponse;
use ipss_dlms::apdu::get::{self, GetRequest, GetResponse};
use ipss_dlms::apdu::initiate::{ConfirmedServiceError, Conformance, InitiateRequest, InitiateResponse};
use ipss_dlms::apdu::notification::{DataNotification, DataNotificationConfirm, EventNotification};
use ipss_dlms::apdu::set::{self, SetRequest, SetResponse};
use ipss_dlms::apdu::short_name::{
    self, InformationReport, ReadResult, Variable, WriteRequest, WriteResult, decode_read_request,
    decode_read_response, decode_write_response,
};
use ipss_dlms::apdu::{
    DataBlock, DataOrResult, GeneralBlock, InvokeIdAndPriority, LongInvokeId, SelectionOptions, tags,
};
use ipss_dlms::axdr::compact_array::CompactArray;
use ipss_dlms::axdr::{
    BitString, BufferShape, Data, Date, DateTime, Reader, Time, TypeDescription, decode_buffer, decode_value, skip,
};
use ipss_dlms::cosem::classes::{association_ln, profile_generic, push_setup, sap_assignment};
use ipss_dlms::cosem::descriptor::CaptureObject;
use ipss_dlms::cosem::{
    AttributeDescriptor, EntrySelection, LogicalName, MethodDescriptor, RangeSelection, ScalerUnit, Selection,
};
use ipss_dlms::translate::{Keys, TranslateRequest, Transmission, translate};
use ipss_dlms::{hdlc, wrapper};
use ipss_session::{Batch, Cell, Limits, Line, WallTime};
use proptest::collection::vec;
use proptest::prelude::*;

fn simple() -> impl Strategy<Value = Data> {
    prop_oneof![
        Just(Data::Null),
        any::<bool>().prop_map(Data::Boolean),
        vec(any::<bool>(), 0..40).prop_map(|bits| Data::BitString(BitString::from_bits(&bits))),
        any::<i32>().prop_map(Data::DoubleLong),
        any::<u32>().prop_map(Data::DoubleLongUnsigned),
        (-1e30_f32..1e30).prop_map(Data::FloatingPoint),
        vec(any::<u8>(), 0..300).prop_map(Data::OctetString),
        vec(any::<u8>(), 0..20).prop_map(Data::VisibleString),
        ".{0,20}".prop_map(|text| Data::Utf8String(text.into_bytes())),
        any::<u8>().prop_map(Data::Bcd),
        any::<i8>().prop_map(Data::Integer),
        any::<i16>().prop_map(Data::Long),
        any::<u8>().prop_map(Data::Unsigned),
        any::<u16>().prop_map(Data::LongUnsigned),
        any::<i64>().prop_map(Data::Long64),
        any::<u64>().prop_map(Data::Long64Unsigned),
        any::<u8>().prop_map(Data::Enum),
        (-1e30_f32..1e30).prop_map(Data::Float32),
        (-1e300_f64..1e300).prop_map(Data::Float64),
        any::<[u8; 12]>().prop_map(|octets| Data::DateTime(DateTime(octets))),
        any::<[u8; 5]>().prop_map(|octets| Data::Date(Date(octets))),
        any::<[u8; 4]>().prop_map(|octets| Data::Time(Time(octets))),
        any::<i8>().prop_map(Data::DeltaInteger),
        any::<u32>().prop_map(Data::DeltaDoubleLongUnsigned),
        Just(Data::DontCare),
    ]
}

fn compact() -> impl Strategy<Value = Data> {
    vec((any::<u16>(), any::<[u8; 2]>(), vec(any::<u8>(), 0..9)), 0..20).prop_map(|entries| {
        use TypeDescription::{Array, Simple, Structure};
        let description = Structure(vec![Simple(18), Array(2, Box::new(Simple(17))), Simple(0), Simple(9)]);
        let element = |(number, [first, second], octets): (u16, [u8; 2], Vec<u8>)| {
            Data::Structure(vec![
                Data::LongUnsigned(number),
                Data::Array(vec![Data::Unsigned(first), Data::Unsigned(second)]),
                Data::Null,
                Data::OctetString(octets),
            ])
        };
        Data::CompactArray(CompactArray::new(description, entries.into_iter().map(element).collect()).unwrap())
    })
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![8 => simple(), 1 => compact()].prop_recursive(5, 60, 12, |inner| {
        prop_oneof![vec(inner.clone(), 0..12).prop_map(Data::Array), vec(inner, 0..12).prop_map(Data::Structure)]
    })
}

fn descriptor() -> impl Strategy<Value = AttributeDescriptor> {
    (any::<u16>(), any::<[u8; 6]>(), any::<i8>()).prop_map(|(class_id, name, attribute)| AttributeDescriptor {
        class_id,
        logical_name: LogicalName(name),
        attribute,
    })
}

fn moment() -> impl Strategy<Value = WallTime> {
    (0..4_000_000_000_i64).prop_map(|second| WallTime(second * WallTime::SECOND))
}

fn selection() -> impl Strategy<Value = Selection> {
    let object = (descriptor(), any::<u16>())
        .prop_map(|(descriptor, data_index)| CaptureObject { descriptor, data_index })
        .boxed();
    let range = (object.clone(), moment(), moment(), vec(object, 0..200)).prop_map(
        |(restricting_object, from, to, columns)| {
            Selection::Range(RangeSelection { restricting_object, from, to, columns })
        },
    );
    let entry = any::<(u32, u32, u16, u16)>().prop_map(|(from_entry, to_entry, from_column, to_column)| {
        Selection::Entry(EntrySelection { from_entry, to_entry, from_column, to_column })
    });
    prop_oneof![range, entry]
}

fn options() -> impl Strategy<Value = SelectionOptions> {
    (-840..840_i16, any::<[bool; 3]>()).prop_map(|(deviation, [send_deviation, date_time_type, send_day_of_week])| {
        SelectionOptions { deviation, send_deviation, date_time_type, send_day_of_week }
    })
}

/// Octets at random, and octets that begin like something.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let begin = prop_oneof![
        Just(vec![]),
        Just(vec![0xC0, 1, 0xC1]),
        Just(vec![0xC4, 1, 0xC1, 0]),
        Just(vec![0xC4, 2, 0xC1, 1, 0, 0, 0, 1, 0]),
        Just(vec![0xC4, 3, 0xC1, 2]),
        Just(vec![0xC1, 4, 0xC1, 1]),
        Just(vec![0xC7, 3, 0xC1, 1]),
        Just(vec![0x0F, 0, 0, 0, 1, 0]),
        Just(vec![0x60, 0x20]),
        Just(vec![0x61, 0x20, 0xA3, 5]),
        Just(vec![0xDB, 8, 1, 2, 3, 4, 5, 6, 7, 8, 20, 0x30]),
        Just(vec![0xE0, 0xC0, 0, 1, 0, 0]),
        Just(vec![0x7E, 0xA0, 20]),
        Just(vec![0, 1, 0, 1, 0, 16, 0]),
        Just(vec![0x13, 2, 3]),
        Just(vec![1, 2, 2, 2]),
    ];
    (begin, vec(prop_oneof![0_u8..28, any::<u8>()], 0..120)).prop_map(|(begin, rest)| [begin, rest].concat())
}

proptest! {
    #[test]
    fn data_survives_the_round_trip(value in data()) {
        let octets = value.to_octets();
        let limits = Limits::default();

        prop_assert_eq!(Data::from_octets(&octets, &limits).unwrap(), value);
        let mut reader = Reader::new(&octets);
        skip(&mut reader, &limits).unwrap();
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn truncated_data_is_truncated(value in data()) {
        let octets = value.to_octets();
        for end in 0..octets.len() {
            let error = Data::from_octets(&octets[..end], &Limits::default()).unwrap_err();
            prop_assert_eq!(error.code, "truncated");
            prop_assert_eq!(skip(&mut Reader::new(&octets[..end]), &Limits::default()).unwrap_err().code, "truncated");
        }
    }

    #[test]
    fn walkers_agree_on_any_octets(octets in octets()) {
        let limits = Limits::default();
        let mut tree = Reader::new(&octets);
        let mut walked = Reader::new(&octets);
        let built = Data::decode(&mut tree, &limits);
        let skipped = skip(&mut walked, &limits);

        // Skipping does not look into the contents of a compact-array.
        prop_assert!(built.is_err() || skipped.is_ok());
        if let (Ok(value), Ok(())) = (built, skipped) {
            prop_assert_eq!(tree.offset(), walked.offset());
            let again = value.to_octets();
            prop_assert_eq!(Data::from_octets(&again, &limits).unwrap().to_octets(), again);
        }
    }

    #[test]
    fn buffer_in_columns_is_the_buffer_in_a_tree(
        entries in vec((any::<i64>(), any::<u32>(), any::<i16>(), vec(any::<u8>(), 0..5)), 0..40),
        start in moment(),
        deviation in -840..840_i16,
    ) {
        let tree = Data::Array(entries.iter().enumerate().map(|(place, (long, unsigned, short, octets))| {
            let clock = DateTime::from_wall(WallTime(start.0 + place as i64 * 900 * WallTime::SECOND), deviation);
            Data::Structure(vec![
                Data::Long64(*long),
                Data::OctetString(clock.0.to_vec()),
                Data::DoubleLongUnsigned(*unsigned),
                Data::Long(*short),
                Data::OctetString(octets.clone()),
            ])
        }).collect());
        let shape = BufferShape { columns: 5, clock_column: Some(1), status_column: None, capture_period_s: 900 };
        let head = Line { meter: 1, request: 2, item: 3, layout: 4, capture_time: WallTime::UNKNOWN, deviation: 0, clock_status: 0 };
        let mut batch = Batch::default();

        let count = decode_buffer(&tree.to_octets(), &shape, head, &Limits::default(), &mut batch).unwrap();

        prop_assert_eq!(count as usize, entries.len());
        for (place, (long, unsigned, short, octets)) in entries.iter().enumerate() {
            let raw = Data::OctetString(octets.clone()).to_octets();
            let expected =
                [Cell::Integer(*long), Cell::Integer((*unsigned).into()), Cell::Integer((*short).into()), Cell::Raw(&raw)];
            prop_assert_eq!(batch.cells(place), expected);
            prop_assert_eq!(batch.lines[place].capture_time.0, start.0 + place as i64 * 900 * WallTime::SECOND);
            prop_assert_eq!(batch.lines[place].deviation, deviation);
        }
    }

    #[test]
    fn get_survives_the_round_trip(
        items in vec((descriptor(), proptest::option::of(selection())), 1..6),
        options in options(),
        value in data(),
        number in any::<u32>(),
    ) {
        let limits = Limits::default();
        let invoke = InvokeIdAndPriority::confirmed(5, true);
        let same = |sent: &Option<Selection>, read: Option<ipss_dlms::apdu::SelectiveAccess<'_>>| match (sent, read) {
            (Some(sent), Some(read)) => *sent == read.selection(options.deviation, &limits).unwrap(),
            (sent, read) => sent.is_none() && read.is_none(),
        };

        let mut out = Vec::new();
        get::encode_request_normal(&mut out, invoke, &items[0].0, items[0].1.as_ref(), &options);
        match GetRequest::decode(&out, &limits).unwrap() {
            GetRequest::Normal { descriptor, access, .. } => {
                prop_assert_eq!(descriptor, items[0].0);
                prop_assert!(same(&items[0].1, access));
            }
            other => prop_assert!(false, "{other:?}"),
        }

        out.clear();
        let list = items.iter().map(|(descriptor, selection)| (descriptor, selection.as_ref()));
        get::encode_request_with_list(&mut out, invoke, list, &options);
        match GetRequest::decode(&out, &limits).unwrap() {
            GetRequest::WithList { items: read, .. } => {
                prop_assert_eq!(read.len(), items.len());
                for (read, sent) in read.iter(&limits).zip(&items) {
                    prop_assert_eq!(read.descriptor, sent.0);
                    prop_assert!(same(&sent.1, read.access));
                }
            }
            other => prop_assert!(false, "{other:?}"),
        }

        let octets = value.to_octets();
        for result in [DataOrResult::Data(&octets), DataOrResult::Result(number as u8)] {
            out.clear();
            get::encode_response_normal(&mut out, invoke, result);
            prop_assert_eq!(GetResponse::decode(&out, &limits).unwrap(), GetResponse::Normal { invoke, result });
            out.clear();
            let (last, block_number) = (number % 2 == 0, number);
            get::encode_response_with_datablock(&mut out, invoke, last, block_number, result);
            let expected = GetResponse::WithDatablock { invoke, last, block_number, result };
            prop_assert_eq!(GetResponse::decode(&out, &limits).unwrap(), expected);
        }

        out.clear();
        get::begin_response_with_list(&mut out, invoke, 2);
        DataOrResult::Result(3).encode(&mut out);
        DataOrResult::Data(&octets).encode(&mut out);
        match GetResponse::decode(&out, &limits).unwrap() {
            GetResponse::WithList { results, .. } => {
                let read: Vec<_> = results.iter(&limits).collect();
                prop_assert_eq!(read, [DataOrResult::Result(3), DataOrResult::Data(&octets)]);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn long_and_listed_requests_survive_the_round_trip(
        descriptors in vec(descriptor(), 1..5),
        number in any::<u32>(),
        raw in vec(any::<u8>(), 0..300),
        value in data(),
        results in vec(any::<u8>(), 1..5),
    ) {
        let limits = Limits::default();
        let invoke = InvokeIdAndPriority::confirmed(9, false);
        let block = DataBlock { last: number % 2 == 1, number, raw: &raw };
        let methods: Vec<_> = descriptors.iter().map(|one| MethodDescriptor {
            class_id: one.class_id, logical_name: one.logical_name, method: one.attribute }).collect();
        let octets = value.to_octets();
        let mut out = Vec::new();

        set::encode_request_with_list_and_first_datablock(&mut out, invoke, descriptors.iter(), block);
        match SetRequest::decode(&out, &limits).unwrap() {
            SetRequest::WithListAndFirstDatablock { items, block: read, .. } => {
                prop_assert_eq!(read, block);
                let read: Vec<_> = items.iter(&limits).map(|item| item.descriptor).collect();
                prop_assert_eq!(&read, &descriptors);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        out.clear();
        set::encode_response_last_datablock_with_list(&mut out, invoke, &results, number);
        match SetResponse::decode(&out, &limits).unwrap() {
            SetResponse::LastDatablockWithList { results: read, block_number, .. } => {
                prop_assert_eq!((read.iter(&limits).collect::<Vec<_>>(), block_number), (results, number));
            }
            other => prop_assert!(false, "{other:?}"),
        }

        out.clear();
        let list = methods.iter().map(|method| (method, (method.method > 0).then_some(&octets[..])));
        action::encode_request_with_list(&mut out, invoke, list);
        match ActionRequest::decode(&out, &limits).unwrap() {
            ActionRequest::WithList { methods: read, parameters, .. } => {
                prop_assert_eq!(&read.iter(&limits).collect::<Vec<_>>(), &methods);
                for (method, given) in methods.iter().zip(parameters.iter(&limits)) {
                    prop_assert_eq!(given, if method.method > 0 { &octets[..] } else { &[0] });
                }
            }
            other => prop_assert!(false, "{other:?}"),
        }
        out.clear();
        action::encode_request_with_first_pblock(&mut out, invoke, &methods[0], block);
        let expected = ActionRequest::WithFirstPblock { invoke, method: methods[0], block };
        prop_assert_eq!(ActionRequest::decode(&out, &limits).unwrap(), expected);
        out.clear();
        action::encode_request_with_list_and_first_pblock(&mut out, invoke, methods.iter(), block);
        match ActionRequest::decode(&out, &limits).unwrap() {
            ActionRequest::WithListAndFirstPblock { methods: read, block: found, .. } => {
                prop_assert_eq!((&read.iter(&limits).collect::<Vec<_>>(), found), (&methods, block));
            }
            other => prop_assert!(false, "{other:?}"),
        }
        out.clear();
        action::encode_request_with_pblock(&mut out, invoke, block);
        prop_assert_eq!(ActionRequest::decode(&out, &limits).unwrap(), ActionRequest::WithPblock { invoke, block });
        out.clear();
        action::encode_response_with_pblock(&mut out, invoke, block);
        prop_assert_eq!(ActionResponse::decode(&out, &limits).unwrap(), ActionResponse::WithPblock { invoke, block });
        out.clear();
        action::encode_response_next_pblock(&mut out, invoke, number);
        let expected = ActionResponse::NextPblock { invoke, block_number: number };
        prop_assert_eq!(ActionResponse::decode(&out, &limits).unwrap(), expected);

        out.clear();
        let general = GeneralBlock {
            last: number % 2 == 0, streaming: number % 3 == 0, window: (number % 64) as u8, number: number as u16,
            acknowledged: (number >> 16) as u16, raw: &raw };
        general.encode(&mut out);
        prop_assert_eq!(GeneralBlock::decode(&out).unwrap(), general);

        out.clear();
        let date_time = (number % 2 == 0).then_some(DateTime([7; 12]));
        let confirm = DataNotificationConfirm { long_invoke_id_and_priority: number, date_time };
        confirm.encode(&mut out);
        prop_assert_eq!(DataNotificationConfirm::decode(&out).unwrap(), confirm);
    }

    #[test]
    fn access_survives_the_round_trip(
        items in vec((descriptor(), 0..4_u8, proptest::option::of(selection()), simple()), 1..6),
        bits in any::<u32>(),
        options in options(),
    ) {
        let limits = Limits::default();
        let invoke = LongInvokeId(bits);
        let date_time = (bits % 2 == 0).then_some(DateTime([3; 12]));
        let mut specifications = Vec::new();
        for (descriptor, kind, selection, _) in &items {
            let method = MethodDescriptor {
                class_id: descriptor.class_id, logical_name: descriptor.logical_name, method: descriptor.attribute };
            match kind {
                0 | 1 => access::encode_get(&mut specifications, descriptor, selection.as_ref(), &options),
                2 => access::encode_set(&mut specifications, descriptor),
                _ => access::encode_action(&mut specifications, &method),
            }
        }
        let values: Vec<Vec<u8>> = items.iter().map(|(.., value)| value.to_octets()).collect();
        let mut out = Vec::new();
        access::begin_request(&mut out, invoke, date_time, items.len());
        out.extend_from_slice(&specifications);
        out.push(items.len() as u8);
        values.iter().for_each(|value| out.extend_from_slice(value));

        let request = AccessRequest::decode(&out, &limits).unwrap();

        prop_assert_eq!((request.invoke, request.date_time), (invoke, date_time));
        prop_assert_eq!(request.values.iter(&limits).collect::<Vec<_>>(), values.iter().collect::<Vec<_>>());
        for ((descriptor, kind, selection, _), read) in items.iter().zip(request.specifications.iter(&limits)) {
            match (kind, read) {
                (0 | 1, AccessSpecification::Get(found, part)) => {
                    prop_assert_eq!(found, *descriptor);
                    let part = part.map(|part| part.selection(options.deviation, &limits).unwrap());
                    prop_assert_eq!(&part, selection);
                }
                (2, AccessSpecification::Set(found, None)) => prop_assert_eq!(found, *descriptor),
                (3, AccessSpecification::Action(found)) => prop_assert_eq!(found.method, descriptor.attribute),
                (kind, other) => prop_assert!(false, "{kind} {other:?}"),
            }
        }

        let results: Vec<_> =
            items.iter().map(|(_, kind, ..)| AccessResult { choice: (*kind).max(1), result: bits as u8 }).collect();
        for described in [None, Some((items.len(), &specifications[..]))] {
            out.clear();
            access::encode_response(&mut out, invoke, date_time, described, &values.concat(), &results);
            let response = AccessResponse::decode(&out, &limits).unwrap();
            prop_assert_eq!((response.invoke, response.date_time), (invoke, date_time));
            prop_assert_eq!(response.specifications.map(|list| list.len()), described.map(|(count, _)| count));
            prop_assert_eq!(response.values.iter(&limits).collect::<Vec<_>>(), values.iter().collect::<Vec<_>>());
            prop_assert_eq!(&response.results.iter(&limits).collect::<Vec<_>>(), &results);
        }
    }

    #[test]
    fn short_names_survive_the_round_trip(
        items in vec((any::<u16>(), any::<u8>(), simple()), 1..6),
        raw in vec(any::<u8>(), 0..300),
        last in any::<bool>(),
    ) {
        let limits = Limits::default();
        let values: Vec<Vec<u8>> = items.iter().map(|(.., value)| value.to_octets()).collect();
        let variables: Vec<Variable<'_>> = items.iter().zip(&values).map(|((name, kind, _), parameter)| match kind % 5 {
            0 => Variable::Name(*name),
            1 => Variable::Parameterized { name: *name, selector: *kind, parameter },
            2 => Variable::BlockNumber(*name),
            3 => Variable::ReadBlock { last, number: *name, raw: &raw },
            _ => Variable::WriteBlock { last, number: *name },
        }).collect();
        let mut out = Vec::new();
        short_name::encode_read_request(&mut out, variables.iter().copied());
        let read = decode_read_request(&out, &limits).unwrap();
        prop_assert_eq!(read.iter(&limits).collect::<Vec<_>>(), &variables[..]);

        let pairs = variables.iter().copied().zip(values.iter().map(Vec::as_slice));
        for confirmed in [true, false] {
            out.clear();
            short_name::encode_write_request(&mut out, confirmed, pairs.clone());
            let request = WriteRequest::decode(&out, &limits).unwrap();
            prop_assert_eq!(request.confirmed, confirmed);
            prop_assert_eq!(request.variables.iter(&limits).collect::<Vec<_>>(), &variables[..]);
            prop_assert_eq!(request.values.iter(&limits).collect::<Vec<_>>(), values.iter().collect::<Vec<_>>());
        }
        for time in [None, Some(&b"20260101000000Z"[..])] {
            out.clear();
            short_name::encode_information_report(&mut out, time, pairs.clone());
            let report = InformationReport::decode(&out, &limits).unwrap();
            prop_assert_eq!((report.time, report.variables.len()), (time, items.len()));
        }

        let results: Vec<ReadResult<'_>> = items.iter().zip(&values).map(|((name, kind, _), value)| match kind % 4 {
            0 => ReadResult::Data(value),
            1 => ReadResult::Error(*kind),
            2 => ReadResult::Block { last, number: *name, raw: &raw },
            _ => ReadResult::BlockNumber(*name),
        }).collect();
        out.clear();
        short_name::begin_read_response(&mut out, results.len());
        results.iter().for_each(|result| result.encode(&mut out));
        let read = decode_read_response(&out, &limits).unwrap();
        prop_assert_eq!(read.iter(&limits).collect::<Vec<_>>(), results);

        let results: Vec<WriteResult> = items.iter().map(|(name, kind, _)| match kind % 3 {
            0 => WriteResult::Success,
            1 => WriteResult::Error(*kind),
            _ => WriteResult::BlockNumber(*name),
        }).collect();
        out.clear();
        short_name::encode_write_response(&mut out, &results);
        let read = decode_write_response(&out, &limits).unwrap();
        prop_assert_eq!(read.iter(&limits).collect::<Vec<_>>(), results);
    }

    #[test]
    fn set_and_action_survive_the_round_trip(
        descriptor in descriptor(),
        values in vec(simple(), 1..5),
        number in any::<u32>(),
        raw in vec(any::<u8>(), 0..300),
    ) {
        let limits = Limits::default();
        let invoke = InvokeIdAndPriority::confirmed(9, false);
        let octets: Vec<Vec<u8>> = values.iter().map(Data::to_octets).collect();
        let block = DataBlock { last: number % 2 == 1, number, raw: &raw };
        let mut out = Vec::new();

        set::encode_request_normal(&mut out, invoke, &descriptor, &octets[0]);
        let expected = SetRequest::Normal { invoke, descriptor, access: None, value: &octets[0] };
        prop_assert_eq!(SetRequest::decode(&out, &limits).unwrap(), expected);

        out.clear();
        set::encode_request_with_first_datablock(&mut out, invoke, &descriptor, block);
        let expected = SetRequest::WithFirstDatablock { invoke, descriptor, access: None, block };
        prop_assert_eq!(SetRequest::decode(&out, &limits).unwrap(), expected);

        out.clear();
        set::encode_request_with_datablock(&mut out, invoke, block);
        prop_assert_eq!(SetRequest::decode(&out, &limits).unwrap(), SetRequest::WithDatablock { invoke, block });

        out.clear();
        set::encode_request_with_list(&mut out, invoke, octets.iter().map(|value| (&descriptor, value.as_slice())));
        match SetRequest::decode(&out, &limits).unwrap() {
            SetRequest::WithList { items, values, .. } => {
                prop_assert!(items.iter(&limits).all(|item| item.descriptor == descriptor));
                prop_assert!(values.iter(&limits).eq(octets.iter().map(Vec::as_slice)));
            }
            other => prop_assert!(false, "{other:?}"),
        }

        out.clear();
        set::encode_response_normal(&mut out, invoke, number as u8);
        let expected = SetResponse::Normal { invoke, result: number as u8 };
        prop_assert_eq!(SetResponse::decode(&out, &limits).unwrap(), expected);
        out.clear();
        set::encode_response_last_datablock(&mut out, invoke, 3, number);
        let expected = SetResponse::LastDatablock { invoke, result: 3, block_number: number };
        prop_assert_eq!(SetResponse::decode(&out, &limits).unwrap(), expected);
        out.clear();
        set::encode_response_with_list(&mut out, invoke, &raw);
        match SetResponse::decode(&out, &limits).unwrap() {
            SetResponse::WithList { results, .. } => prop_assert!(results.iter(&limits).eq(raw.iter().copied())),
            other => prop_assert!(false, "{other:?}"),
        }

        let method = MethodDescriptor {
            class_id: descriptor.class_id,
            logical_name: descriptor.logical_name,
            method: descriptor.attribute,
        };
        for parameters in [None, Some(octets[0].as_slice())] {
            out.clear();
            action::encode_request_normal(&mut out, invoke, &method, parameters);
            let expected = ActionRequest::Normal { invoke, method, parameters };
            prop_assert_eq!(ActionRequest::decode(&out, &limits).unwrap(), expected);
        }
        let outcomes = [
            MethodOutcome { result: 0, returned: Some(DataOrResult::Data(&octets[0])) },
            MethodOutcome { result: number as u8, returned: Some(DataOrResult::Result(4)) },
            MethodOutcome { result: 3, returned: None },
        ];
        for outcome in outcomes {
            out.clear();
            action::encode_response_normal(&mut out, invoke, outcome);
            prop_assert_eq!(ActionResponse::decode(&out, &limits).unwrap(), ActionResponse::Normal { invoke, outcome });
        }
        out.clear();
        action::encode_response_with_list(&mut out, invoke, &outcomes);
        match ActionResponse::decode(&out, &limits).unwrap() {
            ActionResponse::WithList { outcomes: read, .. } => prop_assert!(read.iter(&limits).eq(outcomes)),
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn association_apdus_survive_the_round_trip(
        context in 0..6_u8,
        mechanism in proptest::option::of(0..9_u8),
        strings in vec(proptest::option::of(vec(any::<u8>(), 1..300)), 5),
        number in proptest::option::of(any::<u32>()),
        result in any::<u8>(),
        provider in any::<bool>(),
    ) {
        let string = |place: usize| strings[place].as_deref();
        let aarq = Aarq {
            application_context: ApplicationContext::from_number(context),
            called_ap_title: string(0),
            calling_ap_title: string(1),
            calling_ae_qualifier: string(2),
            calling_ae_invocation_id: number,
            sender_acse_requirements: provider,
            mechanism: mechanism.map(Mechanism::from_number),
            authentication_value: string(3),
            user_information: string(4),
        };
        let aare = Aare {
            application_context: aarq.application_context,
            result,
            diagnostic: if provider { Diagnostic::Provider(result) } else { Diagnostic::User(result) },
            responding_ap_title: string(0),
            responding_ae_qualifier: string(1),
            responding_ae_invocation_id: number,
            responder_acse_requirements: provider,
            mechanism: aarq.mechanism,
            authentication_value: string(3),
            user_information: string(4),
        };
        let release = Release { reason: Some(result), user_information: string(4) };

        let mut out = Vec::new();
        aarq.encode(&mut out);
        prop_assert_eq!(Aarq::decode(&out).unwrap(), aarq);
        for end in 0..out.len() {
            prop_assert_eq!(Aarq::decode(&out[..end]).unwrap_err().code, "truncated");
        }
        out.clear();
        aare.encode(&mut out);
        prop_assert_eq!(Aare::decode(&out).unwrap(), aare);
        out.clear();
        release.encode(&mut out, tags::RLRE);
        prop_assert_eq!(Release::decode(&out, tags::RLRE).unwrap(), release);
    }

    #[test]
    fn initiate_and_notifications_survive_the_round_trip(
        key in proptest::option::of(any::<[u8; 16]>()),
        flags in any::<[bool; 2]>(),
        quality in proptest::option::of(any::<i8>()),
        octets in any::<[u8; 3]>(),
        sizes in any::<[u16; 2]>(),
        time in proptest::option::of(any::<[u8; 12]>()),
        descriptor in descriptor(),
        value in simple(),
        number in any::<u32>(),
    ) {
        let conformance = Conformance::from_octets(octets);
        let request = InitiateRequest {
            dedicated_key: key.as_ref().map(|key| &key[..]),
            response_allowed: flags[0],
            quality_of_service: quality,
            dlms_version: 6,
            conformance,
            max_receive_pdu_size: sizes[0],
        };
        let mut out = Vec::new();
        request.encode(&mut out);
        prop_assert_eq!(InitiateRequest::decode(&out).unwrap(), request);
        let response = InitiateResponse {
            quality_of_service: quality,
            dlms_version: 6,
            conformance,
            max_receive_pdu_size: sizes[0],
            vaa_name: sizes[1],
        };
        out.clear();
        response.encode(&mut out);
        prop_assert_eq!(InitiateResponse::decode(&out).unwrap(), response);

        let body = value.to_octets();
        let push = DataNotification {
            long_invoke_id_and_priority: number,
            date_time: time.map(DateTime),
            date_time_tagged: false,
            body: &body,
        };
        out.clear();
        push.encode(&mut out);
        prop_assert_eq!(DataNotification::decode(&out).unwrap(), push);
        let event = EventNotification { time: time.map(DateTime), time_tagged: false, descriptor, value: &body };
        out.clear();
        event.encode(&mut out);
        prop_assert_eq!(EventNotification::decode(&out).unwrap(), event);

        let invocation_counter = flags[1].then_some(number);
        let service_error = if flags[1] { 6 } else { 2 };
        let exception = ExceptionResponse { state_error: 1, service_error, invocation_counter };
        out.clear();
        exception.encode(&mut out);
        prop_assert_eq!(ExceptionResponse::decode(&out).unwrap(), exception);
    }

    #[test]
    fn any_octets_get_an_answer_from_every_decoder(octets in octets(), columns in 0..6_u16, clock in 0..7_u16) {
        let limits = Limits::default();
        let _ = Data::from_octets(&octets, &limits).map(|value| {
            let _ = association_ln::object_list(&value);
            let _ = profile_generic::capture_objects(&value);
            let _ = push_setup::push_object_list(&value);
            let _ = sap_assignment::sap_assignment_list(&value);
            let _ = ScalerUnit::from_data(&value);
        });
        let _ = decode_value(&octets, &limits);
        let shape = BufferShape { columns, clock_column: Some(clock), status_column: Some(1), capture_period_s: 900 };
        let head = Line { meter: 1, request: 2, item: 3, layout: 4, capture_time: WallTime::UNKNOWN, deviation: 0, clock_status: 0 };
        let mut batch = Batch::default();
        if decode_buffer(&octets, &shape, head, &limits, &mut batch).is_err() {
            prop_assert_eq!(batch, Batch::default());
        }
        let _ = wrapper::next_wpdu(&octets, &limits);
        let _ = hdlc::next_frame(&octets);
        let _ = CipheredApdu::decode(&octets);
        let _ = (GetRequest::decode(&octets, &limits), GetResponse::decode(&octets, &limits));
        let _ = (AccessRequest::decode(&octets, &limits), AccessResponse::decode(&octets, &limits));
        let _ = (decode_read_request(&octets, &limits), decode_read_response(&octets, &limits));
        let _ = (WriteRequest::decode(&octets, &limits), decode_write_response(&octets, &limits));
        let _ = (InformationReport::decode(&octets, &limits), DataNotificationConfirm::decode(&octets));
        let _ = GeneralBlock::decode(&octets);
        let _ = (SetRequest::decode(&octets, &limits), SetResponse::decode(&octets, &limits));
        let _ = (ActionRequest::decode(&octets, &limits), ActionResponse::decode(&octets, &limits));
        let _ = (DataNotification::decode(&octets), EventNotification::decode(&octets));
        let _ = (Aarq::decode(&octets), Aare::decode(&octets), Release::decode(&octets, tags::RLRE));
        let _ = (InitiateRequest::decode(&octets), InitiateResponse::decode(&octets));
        let _ = (ConfirmedServiceError::decode(&octets), ExceptionResponse::decode(&octets));
    }

    #[test]
    fn any_octets_are_explained_in_valid_json(octets in octets(), split in 0..130_usize) {
        let keys = [Keys {
            encryption_key: Some([1; 16].into()),
            ..Keys::default()
        }];
        let (first, second) = octets.split_at(split.min(octets.len()));
        let transmissions = [first, second].map(|octets| Transmission { from: None, octets });
        for layer in ["auto", "hdlc", "wrapper", "llc", "apdu", "data"] {
            let mut text = String::new();
            let request = TranslateRequest { id: None, layer, transmissions: &transmissions, keys: &keys, companion: None };
            translate(&request, &mut |piece| text.push_str(piece));
            let answer: Result<serde_json::Value, _> = serde_json::from_str(&text);
            prop_assert!(answer.is_ok(), "{layer}: {text}");
        }
    }
}
