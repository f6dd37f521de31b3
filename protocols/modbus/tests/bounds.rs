//! Memory for octets that claim more than they are: at most 4 times the input and 64 KiB (R33), for every decoder.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ipss_modbus::adu::{ascii, rtu};
use ipss_modbus::pdu::{RequestPdu, ResponsePdu};
use ipss_modbus::translate::{TranslateRequest, translate};
use ipss_session::explain::Transmission;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get() + layout.size() as isize;
        HELD.set(held);
        MOST.set(MOST.get().max(held));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that `work` holds at once.
fn most(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST.set(before);
    work();
    (MOST.get() - before).max(0) as usize
}

#[test]
fn memory_is_bounded_by_what_arrived() {
    let shapes: [(&str, Vec<u8>); 7] = [
        ("zeros", vec![0; 100_000]),
        ("ones", vec![1; 100_000]),
        ("colons", vec![b':'; 100_000]),
        ("requests", [0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1].repeat(8_000)),
        ("bits asked for", [0, 1, 0, 0, 0, 6, 1, 1, 0, 0, 7, 0xD0].repeat(8_000)),
        ("identification", [&[0x2B, 14, 1, 1, 0, 0, 255][..], &[0, 255].repeat(50_000)].concat()),
        ("ascii", b":1103006B00037E\r\n".repeat(6_000)),
    ];
    for (name, octets) in &shapes {
        let bound = 4 * octets.len() + 65_536;
        let used = most(|| {
            let _ = (RequestPdu::decode(octets), ResponsePdu::decode(octets));
            let _ = ascii::open(octets, &mut Vec::new());
        });
        assert!(used <= bound, "{name}: {used}");
        let used = most(|| {
            let mut receiver = rtu::Receiver::default();
            let extent = |pdu: &[u8]| ipss_modbus::pdu::response_extent(pdu, false);
            for chunk in octets.chunks(256) {
                receiver.push(chunk);
                while let Some(place) = receiver.next(true, extent, |_| true) {
                    receiver.done(place);
                }
            }
        });
        assert!(used <= 4_096, "{name}: a line holds {used}");
        for layer in ["modbus-tcp", "modbus-rtu", "modbus-ascii"] {
            let used = most(|| {
                let transmissions = [Transmission { from: None, octets }];
                translate(&TranslateRequest { id: None, layer, transmissions: &transmissions }, &mut |_| {});
            });
            assert!(used <= bound, "{name} as {layer}: {used} for {}", octets.len());
        }
    }
}
