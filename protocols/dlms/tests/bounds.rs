//! Whatever octets arrive, they cost time and memory in proportion to their number.

#![allow(clippy::disallowed_methods)] // the bounds are on real time

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use ipss_dlms::axdr::{BufferShape, Data, Reader, decode_buffer, skip};
use ipss_dlms::hdlc;
use ipss_dlms::translate::{TranslateRequest, Transmission, parse_hex, translate};
use ipss_session::{Batch, Limits, Line, WallTime};

/// Counts what the current thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(change: isize) {
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + change, most.max(now + change)));
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `work` holds at once beyond what was held before, and how long it takes.
fn cost(work: impl FnOnce()) -> (usize, u128) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let begun = Instant::now();
    work();
    let took = begun.elapsed().as_millis();
    ((HELD.get().1 - before) as usize, took)
}

fn hex(text: &str) -> Vec<u8> {
    parse_hex(text).unwrap()
}

fn segment(information: &[u8]) -> Vec<u8> {
    let length = 10 + information.len();
    let mut octets = vec![0xA8 | (length >> 8) as u8, length as u8, 0x01, 0x02, 0x01, 0x10];
    octets.extend(hdlc::check_sequence(&octets).to_le_bytes());
    octets.extend(information);
    octets.extend(hdlc::check_sequence(&octets).to_le_bytes());
    octets.insert(0, 0x7E);
    octets.push(0x7E);
    octets
}

/// Bombs among values: deep, wide, long or large by what they claim.
fn values() -> Vec<Vec<u8>> {
    let filled = |head: &str, octet: u8, count: usize, tail: &str| [hex(head), vec![octet; count], hex(tail)].concat();
    vec![
        [1, 1].repeat(10_000),
        [2, 1].repeat(10_000),
        hex("0984FFFFFFFF00"),
        hex("0484FFFFFFFF00"),
        hex("0184FFFFFFFF00"),
        hex("01820001 0184FFFFFFFF 00"),
        hex("0188FFFFFFFFFFFFFFFF"),
        [1, 0x82, 0xFF, 0xFF].repeat(10_000),
        filled("0182EA60", 0, 60_000, ""),
        hex("13 00 84 0000FFFF"),
        filled("13 00 82 EA60", 0, 60_000, ""),
        hex("13 0202 01FFFF 01FFFF 00 11 0107"),
        [filled("13 02 02 010000 02 82 4000", 0x11, 0x4000, "11 82 4000"), vec![7; 0x4000]].concat(),
        filled("13 02 82 EA60", 0x11, 60_000, "00"),
        [hex("0182 2000"), [9, 6, 1, 0, 1, 8, 0, 255].repeat(0x2000)].concat(),
        [hex("0182 4E20"), hex("0200").repeat(20_000)].concat(),
    ]
}

/// Bombs among frames and APDUs.
fn others() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("hdlc", vec![0x7E; 60_000]),
        ("hdlc", segment(b"abc").repeat(4_000)),
        ("hdlc", hex("7EA0070321930F01").repeat(7_000)),
        ("wrapper", hex("0001 0001 0001 0000").repeat(7_000)),
        ("wrapper", hex("0001 0001 0001 0002 6300").repeat(6_000)),
        ("apdu", hex("C403C1 82EA60").into_iter().chain([1].repeat(60_000)).collect()),
        ("apdu", hex("C003C1 84FFFFFFFF")),
        ("apdu", hex("60 84 FFFFFFFF")),
        ("apdu", hex("C001C1").repeat(20_000)),
        ("apdu", hex("60 82EA60").into_iter().chain(hex("8F00").repeat(30_000)).collect()),
    ]
}

fn explain(layer: &str, items: &[Vec<u8>]) {
    let transmissions: Vec<_> = items.iter().map(|octets| Transmission { from: None, octets }).collect();
    let request = TranslateRequest { id: None, layer, transmissions: &transmissions, keys: &[], companion: None };
    let mut length = 0;
    translate(&request, &mut |piece| length += piece.len());
    assert!(length > 0);
}

#[test]
fn explaining_costs_sixteen_times_the_octets_and_a_mebibyte_at_most() {
    let values =
        values().into_iter().flat_map(|value| [("data", value.clone()), ("apdu", [hex("C401C100"), value].concat())]);
    for (layer, octets) in values.chain(others()) {
        let size = octets.len();
        let (memory, took) = cost(|| explain(layer, &[octets]));
        assert!(memory <= 16 * size + (1 << 20), "{layer}, {size} octets: {memory} octets held");
        assert!(took < 2_000, "{layer}, {size} octets: {took} ms");
    }
}

#[test]
fn one_octet_transmissions_cost_no_more_than_one_long_one() {
    let long_wpdu = [hex("0001 0001 0001 4E20"), vec![0; 20_000]].concat();
    for (layer, stream) in
        [("hdlc", vec![0x7E; 20_000]), ("hdlc", segment(&[7; 1_500]).repeat(13)), ("wrapper", long_wpdu)]
    {
        let items: Vec<_> = stream.iter().map(|octet| vec![*octet]).collect();
        let (_, took) = cost(|| explain(layer, &items));
        assert!(took < 2_000, "{layer}: {took} ms");
    }
}

#[test]
fn claims_alone_reserve_at_most_four_times_the_octets_and_64_kibibytes() {
    let limits = Limits::default();
    for octets in values() {
        let size = octets.len();

        let (memory, took) = cost(|| drop(skip(&mut Reader::new(&octets), &limits)));
        assert!(memory <= 4_096, "skip of {size} octets: {memory} octets held"); // the error's words
        assert!(took < 500, "skip of {size} octets: {took} ms");

        let mut elements = 0;
        let (memory, took) = cost(|| {
            if let Ok(value) = Data::from_octets(&octets, &limits) {
                elements = value.elements().map_or(0, <[_]>::len);
            }
        });
        // What really arrives may be held: at most one value an octet, and a vector's growth.
        let held = if elements == 0 { 4 * size } else { 2 * size_of::<Data>() * size };
        assert!(memory <= held + 65_536 || octets[0] == 0x13, "tree of {size} octets: {memory} octets held");
        assert!(memory <= 2 * size_of::<Data>() * 8 * size + 65_536, "tree of {size} octets: {memory} octets held");
        assert!(took < 500, "tree of {size} octets: {took} ms");
    }
}

#[test]
fn broken_buffers_cost_little() {
    let shape = BufferShape { columns: 2, clock_column: Some(0), status_column: None, capture_period_s: 900 };
    let head = Line {
        meter: 1,
        request: 1,
        item: 0,
        layout: 1,
        capture_time: WallTime::UNKNOWN,
        deviation: Line::NO_DEVIATION,
        clock_status: 0xFF,
    };
    for octets in values() {
        let size = octets.len();
        let (memory, took) = cost(|| {
            let mut batch = Batch::default();
            let lines = decode_buffer(&octets, &shape, head, &Limits::default(), &mut batch).unwrap_or(0);
            assert_eq!(batch.lines.len(), lines as usize);
        });
        assert!(memory <= 20 * size + 65_536, "buffer of {size} octets: {memory} octets held");
        assert!(took < 500, "buffer of {size} octets: {took} ms");
    }
}
