//! A device's session takes any octets.
#![no_main]

use std::sync::Arc;

use ipss_modbus::device::{Device, Memory, Settings};
use ipss_modbus::profile::{Framing, SerialTiming};
use ipss_session::rig::SeededRandom;
use ipss_session::{Batch, Context, Input, Instant, Now, Session, Transport, WallTime};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Some((choice, octets)) = octets.split_first() else { return };
    let framing = match choice % 5 {
        0 => Framing::Tcp,
        1 => Framing::Udp,
        2 => Framing::Rtu(SerialTiming::new(9_600)),
        3 => Framing::RtuOverTcp,
        _ => Framing::Ascii,
    };
    let memory = Memory { holding: (0..300).collect(), coils: vec![true; 300], ..Memory::default() };
    let mut session = Device::new(1, Arc::new(Settings::new(framing)), memory);
    let (mut random, mut to_send, mut batch) = (SeededRandom::new(1), Vec::new(), Batch::default());
    let now = Now { monotonic: Instant(1), wall: WallTime(0) };
    let mut pending = octets.to_vec();
    while !pending.is_empty() {
        let mut cx = Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch };
        let step = session.step(Input::Bytes(&mut pending), &mut cx);
        if step.consumed == 0 || step.transport == Transport::Close {
            break;
        }
        pending.drain(..step.consumed);
    }
});
