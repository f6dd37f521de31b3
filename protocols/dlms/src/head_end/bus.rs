//! Listens on a wired M-Bus line on which meters push: segments become APDUs, and the protected ones go to the owner in
//! a WPDU each, as pushes that no session could have ([`EventKind::PushUnclaimed`]). Several meters may be on the line:
//! whose a push is says its system title, and that meter's session opens it ([`super::Control::Hear`]).

use std::fmt::Write;
use std::time::Duration;

use ipss_session::{Context, EventKind, Input, Instant, Limits, MeterId, Outcome, Session, Step, Transport};

use super::{Control, Unopened, Work};
use crate::link::mbus::{Found, Segments, next_frame};
use crate::wrapper;

/// One line.
#[derive(Debug)]
pub struct Bus {
    meter: MeterId,
    name: Box<str>,
    open: bool,
    octets: Vec<u8>,
    last: Instant,
    segments: Segments,
}

impl Bus {
    /// A line that events call `name`, under a number that is no meter's.
    pub fn new(meter: MeterId, name: impl Into<Box<str>>) -> Self {
        let (octets, segments) = (Vec::new(), Segments::default());
        Self { meter, name: name.into(), open: false, octets, last: Instant::ORIGIN, segments }
    }

    fn take(&mut self, octets: &[u8], cx: &mut Context<'_>) {
        let now = cx.now.monotonic;
        if now >= self.last + GAP {
            // What stopped in the middle does not go on.
            self.octets.clear();
        }
        self.last = now;
        self.octets.extend_from_slice(octets);
        let held = std::mem::take(&mut self.octets);
        let mut done = 0;
        while done < held.len() {
            match next_frame(&held[done..]) {
                Ok(Some((found, taken))) => {
                    if let Found::Long(frame) = found {
                        if frame.is_dlms() {
                            let (source, destination) = (frame.source.into(), frame.destination.into());
                            match self.segments.take(&frame, &LIMITS) {
                                Ok(Some(apdu)) => self.whole(source, destination, &apdu, cx),
                                Ok(None) => {}
                                Err(error) => self.dropped(error.to_string(), cx),
                            }
                        }
                    }
                    done += taken;
                }
                Ok(None) => break,
                // Noise, or the middle of a frame: a frame may begin behind any octet of it.
                Err(_) => done += 1,
            }
        }
        self.octets = held[done..].to_vec();
    }

    fn whole(&mut self, source: u16, destination: u16, apdu: &[u8], cx: &mut Context<'_>) {
        let mut wpdu = Vec::with_capacity(apdu.len() + 8);
        let mark = wrapper::begin(&mut wpdu, source, destination);
        wpdu.extend_from_slice(apdu);
        if wrapper::finish(&mut wpdu, mark).is_err() || Unopened::first(&wpdu).is_none() {
            return self.dropped("an APDU that says nobody's title".into(), cx);
        }
        let mut detail = format!("{} ", self.name);
        wpdu.iter().for_each(|octet| {
            let _ = write!(detail, "{octet:02x}");
        });
        cx.batch.event(self.meter, cx.now.wall, EventKind::PushUnclaimed, 0, detail);
    }

    fn dropped(&self, why: String, cx: &mut Context<'_>) {
        cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, format!("{}: {why}", self.name));
    }
}

impl Session for Bus {
    type Work = Work;
    type Control = Control;

    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        let mut step = Step::wait(None);
        match input {
            Input::Bytes(octets) => {
                self.take(octets, cx);
                step.consumed = octets.len();
            }
            Input::Opened | Input::Closed => {
                self.open = matches!(input, Input::Opened);
                self.octets.clear();
                self.segments = Segments::default();
            }
            Input::Request(request) => step.finished = Some((request, Outcome::Impossible)),
            Input::Release => step.transport = Transport::Close,
            Input::Deadline | Input::Cancel(_) | Input::Control(_) | Input::Probe => {}
        }
        step
    }

    fn ready(&self) -> bool {
        false
    }

    /// A line that is open: nothing more is to come about.
    fn associated(&self) -> bool {
        self.open
    }
}

/// Silence inside a frame after which it is over: 330 bit times and 50 ms at 300 baud (EN 13757-2), and what adapters add.
const GAP: Duration = Duration::from_millis(1_500);

/// A push is no longer than one before an association.
const LIMITS: Limits = Limits {
    apdu: 4_096,
    apdu_before_association: 4_096,
    reassembly: 4_096,
    blocks: 1,
    elements: 1,
    depth: 1,
    associate: Duration::ZERO,
    answer: Duration::ZERO,
    frame: Duration::ZERO,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::mbus::encode;
    use ipss_session::rig::SeededRandom;
    use ipss_session::{Batch, Now, WallTime};

    fn push(length: usize) -> Vec<u8> {
        let mut apdu = vec![0xDB, 8];
        apdu.extend_from_slice(b"METER--1");
        apdu.extend_from_slice(&[0x82, (length >> 8) as u8, length as u8, 0x30]);
        apdu.resize(13 + length, 7);
        apdu
    }

    fn heard(pieces: &[(u64, &[u8])]) -> Vec<(EventKind, String)> {
        let (mut batch, mut out, mut random) = (Batch::default(), Vec::new(), SeededRandom::new(1));
        let mut bus = Bus::new(9, "line");
        for (at_ms, piece) in pieces {
            let now = Now { monotonic: Instant(1) + Duration::from_millis(*at_ms), wall: WallTime(0) };
            let mut cx = Context { now, random: &mut random, to_send: &mut out, batch: &mut batch };
            let step = bus.step(Input::Bytes(&mut piece.to_vec()), &mut cx);
            assert_eq!(step.consumed, piece.len());
        }
        assert!(out.is_empty(), "nothing is ever said on the line");
        batch.events.into_iter().map(|event| (event.kind, event.detail)).collect()
    }

    fn told(apdu: &[u8]) -> (EventKind, String) {
        let length = apdu.len() as u16;
        let wpdu = [&[0, 1, 0, 1, 0, 0x67][..], &length.to_be_bytes(), apdu].concat();
        let digits: String = wpdu.iter().map(|octet| format!("{octet:02x}")).collect();
        (EventKind::PushUnclaimed, format!("line {digits}"))
    }

    #[test]
    fn segments_cut_at_any_octet_and_noise_between_make_whole_pushes() {
        let apdu = push(600);
        let mut line = vec![0x00, 0x68, 0xE5];
        encode(&mut line, 1, 0x67, &apdu).unwrap();
        line.extend_from_slice(&[0x10, 0x16, 0xFF]);
        encode(&mut line, 1, 0x67, &apdu).unwrap();
        let wanted = vec![told(&apdu), told(&apdu)];

        for cut in 0..=line.len() {
            assert_eq!(heard(&[(0, &line[..cut]), (100, &line[cut..])]), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_stops_does_not_swallow_the_next_one() {
        let apdu = push(60);
        let mut line = Vec::new();
        encode(&mut line, 1, 0x67, &apdu).unwrap();

        assert_eq!(heard(&[(0, &line[..40]), (5_000, &line)]), [told(&apdu)]);
    }

    #[test]
    fn what_names_no_sender_and_what_lost_a_segment_is_dropped() {
        let mut line = Vec::new();
        encode(&mut line, 1, 0x67, &[0x0F, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut segments = Vec::new();
        encode(&mut segments, 1, 0x67, &push(600)).unwrap();
        // The first one is lost.
        line.extend_from_slice(&segments[usize::from(segments[1]) + 6..]);

        let kinds: Vec<EventKind> = heard(&[(0, &line)]).into_iter().map(|(kind, _)| kind).collect();
        assert!(kinds.len() >= 2 && kinds.iter().all(|kind| *kind == EventKind::UnexpectedAnswer));
    }
}
