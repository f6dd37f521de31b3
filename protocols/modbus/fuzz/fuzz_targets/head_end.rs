//! A head-end's session with a question on the wire takes any octets.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use ipss_modbus::head_end::{HeadEnd, Item, Plan, Read, Work};
use ipss_modbus::profile::Profile;
use ipss_modbus::{Decode, Table};
use ipss_session::rig::SeededRandom;
use ipss_session::{Batch, Context, Input, Instant, Now, Priority, Request, Session, Transport, WallTime};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Some((choice, octets)) = octets.split_first() else { return };
    let profile = match choice % 5 {
        0 => Profile::tcp(),
        1 => Profile::udp(),
        2 => Profile::rtu(9_600),
        3 => Profile::rtu_over_tcp(),
        _ => Profile::ascii(),
    };
    let mut session = HeadEnd::new(1, Arc::new(profile));
    let (mut random, mut to_send, mut batch) = (SeededRandom::new(1), Vec::new(), Batch::default());
    let mut now = Now { monotonic: Instant(1), wall: WallTime(0) };
    let read = Read::points(1, &[(Table::Holding, 1, 2, Decode::Unsigned), (Table::Holding, 9, 1, Decode::Raw)]).unwrap();
    let work = Work { meter: 1, unit: 1, plan: Arc::new(Plan { items: [Item::Read(read)].into() }) };
    let deadline = Instant(u64::MAX);
    let request = Request { id: 1, deadline, priority: Priority::OnDemand, attempts_left: 0, exchanges: 0, work };
    let mut pending = octets.to_vec();
    for input in [Input::Opened, Input::Request(request)] {
        let _ = session.step(input, &mut Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch });
    }
    while !pending.is_empty() {
        let mut cx = Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch };
        let step = session.step(Input::Bytes(&mut pending), &mut cx);
        if step.consumed == 0 || step.transport == Transport::Close {
            break;
        }
        pending.drain(..step.consumed);
    }
    for _ in 0..8 {
        now.monotonic = now.monotonic + Duration::from_secs(4);
        let mut cx = Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch };
        let _ = session.step(Input::Deadline, &mut cx);
    }
});
