//! What both roles share: sequence numbers, segments out and in, and what is waiting to be told.

use std::collections::VecDeque;

use ipss_session::{Instant, Limits, ProtocolError, SerialSettings};

use super::super::llc;
use super::super::optical::{Opening, Turn};
use super::super::{Apdu, Received};
use super::frame::encode;
use super::{Address, Deframer, Frame, FrameType, HdlcConfig, LARGEST, Parameters};

/// One end of a data link.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) config: HdlcConfig,
    pub(super) primary: bool,
    /// The opening of the line, until it is over.
    opening: Option<Box<Opening>>,
    pub(super) state: State,
    /// This end's address; for a meter the one that it was last spoken to by.
    pub(super) ours: Address,
    pub(super) theirs: Address,
    pub(super) agreed: Parameters,
    deframer: Deframer,
    last_octet: Instant,
    /// The number of the next information frame to send: V(S).
    pub(super) send: u8,
    /// The number of the next information frame to come: V(R).
    pub(super) receive: u8,
    /// The number of the oldest one sent that is not acknowledged.
    pub(super) oldest: u8,
    /// LLC header and APDU on their way out; `acknowledged` octets of them have arrived.
    outgoing: Vec<u8>,
    acknowledged: usize,
    /// APDUs that wait for the one before.
    queue: VecDeque<Vec<u8>>,
    /// What has arrived of an APDU.
    pub(super) assembling: Vec<u8>,
    /// What has arrived of one that nobody asked for.
    unasked: Vec<u8>,
    pub(super) found: VecDeque<Received>,
    /// Primary: a poll is on the wire. Secondary: a poll waits for its final frame.
    pub(super) polled: bool,
    /// Primary: an answer to an APDU is expected.
    pub(super) expecting: bool,
    pub(super) tries: u8,
    pub(super) polls: u16,
    /// Secondary: data links set up since the last information frame.
    pub(super) set_ups: u16,
    pub(super) timer: Option<Instant>,
}

/// Where the data link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Down,
    /// DISC sent to clear an old one.
    Resetting,
    /// SNRM sent.
    Connecting,
    /// Information may flow.
    Connected,
    /// DISC sent.
    Closing,
}

impl Endpoint {
    /// The end that asks.
    pub fn head_end(config: &HdlcConfig, client: u16, server: u16) -> Self {
        let meter = Address::meter(server, config.physical, config.address_size);
        Self::new(config, true, Address::head_end(client), meter)
    }

    /// The end that answers; until it is spoken to, it calls itself logical device 1 and means client 16.
    pub fn meter(config: &HdlcConfig) -> Self {
        let meter = Address::meter(1, config.physical, config.address_size);
        Self::new(config, false, meter, Address::head_end(16))
    }

    fn new(config: &HdlcConfig, primary: bool, ours: Address, theirs: Address) -> Self {
        Self {
            config: config.clone(),
            primary,
            opening: None,
            state: State::Down,
            ours,
            theirs,
            agreed: Parameters::DEFAULT,
            deframer: Deframer::new(LARGEST_FRAME),
            last_octet: Instant::ORIGIN,
            send: 0,
            receive: 0,
            oldest: 0,
            outgoing: Vec::new(),
            acknowledged: 0,
            queue: VecDeque::new(),
            assembling: Vec::new(),
            unasked: Vec::new(),
            found: VecDeque::new(),
            polled: false,
            expecting: false,
            tries: 0,
            polls: 0,
            set_ups: 0,
            timer: None,
        }
    }

    /// A connection is open: forget an earlier one; the head-end begins to set up the data link.
    pub fn open(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.reset();
        if let Some(config) = &self.config.opening {
            self.opening = Some(Box::new(Opening::new(config, self.primary, now)));
        } else if self.primary {
            self.connect(now, out);
        }
    }

    /// The connection is gone.
    pub fn reset(&mut self) {
        *self = Self::new(&self.config, self.primary, self.ours, self.theirs);
    }

    /// What is agreed with the other end; the defaults before.
    pub fn agreed(&self) -> Parameters {
        self.agreed
    }

    /// Take the APDU at `out[mark..]`; it goes out as soon as it may.
    ///
    /// # Errors
    /// Local: `queue-full` if too many wait already.
    pub fn submit(&mut self, out: &mut Vec<u8>, mark: usize, now: Instant) -> Result<(), ProtocolError> {
        let header = if self.primary { llc::COMMAND } else { llc::RESPONSE };
        let apdu = out.get(mark..).unwrap_or_default();
        if self.queue.len() >= QUEUED {
            out.truncate(mark);
            let message = format!("{QUEUED} APDUs wait for the data link already");
            return Err(ProtocolError::local("hdlc", "queue-full", message));
        }
        let mut pdu = Vec::with_capacity(header.len() + apdu.len());
        pdu.extend_from_slice(&header);
        pdu.extend_from_slice(apdu);
        out.truncate(mark);
        if self.outgoing.is_empty() {
            self.outgoing = pdu;
            self.acknowledged = 0;
        } else {
            self.queue.push_back(pdu);
        }
        self.expecting = self.primary;
        self.polls = 0;
        if self.primary {
            self.take_turn(now, out);
        } else if self.polled && self.in_flight() == 0 {
            self.send_window(out);
        }
        Ok(())
    }

    /// Send the APDU at `out[mark..]` at once, in unnumbered frames: nobody acknowledges it.
    pub fn push(&mut self, out: &mut Vec<u8>, mark: usize, source: u16, destination: u16) {
        let apdu = out.split_off(mark.min(out.len()));
        if self.state == State::Down {
            self.ours = Address::meter(source, self.config.physical, self.config.address_size);
            self.theirs = Address::head_end(destination);
        }
        let pdu = [&llc::RESPONSE[..], &apdu].concat();
        let size = usize::from(self.agreed.information_transmit);
        let count = pdu.len().div_ceil(size);
        for (index, piece) in pdu.chunks(size).enumerate() {
            encode(out, index + 1 < count, &self.theirs, &self.ours, control::UI, piece);
        }
    }

    /// The next thing in `octets`, and how many of them are done with.
    ///
    /// # Errors
    /// Remote: `length-over-limit`.
    pub fn next(
        &mut self,
        octets: &[u8],
        limits: &Limits,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Received), ProtocolError> {
        let mut taken = 0;
        loop {
            if let Some(found) = self.found.pop_front() {
                return Ok((taken, found));
            }
            if taken == octets.len() {
                return Ok((taken, Received::Nothing));
            }
            if let Some(opening) = self.opening.as_mut().filter(|opening| !opening.is_switched()) {
                let (fed, turn) = opening.feed(&octets[taken..], now, out)?;
                taken += fed;
                self.after_opening(turn, now, out);
                continue;
            }
            if now > self.last_octet + self.config.inter_octet {
                self.deframer.give_up();
                self.take_frames(limits, now, out)?;
            }
            self.last_octet = now;
            taken += self.deframer.feed(&octets[taken..]);
            self.take_frames(limits, now, out)?;
        }
    }

    fn take_frames(&mut self, limits: &Limits, now: Instant, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let mut deframer = std::mem::replace(&mut self.deframer, Deframer::new(LARGEST_FRAME));
        let mut result = Ok(());
        while let Some(frame) = deframer.frame() {
            result = if self.primary {
                self.take_response(&frame, limits, now, out)
            } else {
                self.take_command(&frame, limits, now, out)
            };
            if result.is_err() {
                break;
            }
        }
        deframer.compact();
        self.deframer = deframer;
        result
    }

    fn after_opening(&mut self, turn: Turn, now: Instant, out: &mut Vec<u8>) {
        if turn == Turn::Done {
            self.opening = None;
            if self.primary {
                self.connect(now, out);
            }
        }
    }

    /// How a serial line is to be driven from now on. Asked once.
    pub fn take_serial(&mut self) -> Option<SerialSettings> {
        self.opening.as_mut()?.take_serial()
    }

    /// Whether [`Endpoint::next`] has more to tell without further octets.
    pub fn has_more(&self) -> bool {
        !self.found.is_empty()
    }

    /// When to [`Endpoint::wake`] it.
    pub fn deadline(&self) -> Option<Instant> {
        if self.has_more() {
            return Some(Instant::ORIGIN);
        }
        let octet = self.deframer.is_waiting().then(|| self.last_octet + self.config.inter_octet);
        let opening = self.opening.as_ref().and_then(|opening| opening.deadline());
        self.timer.into_iter().chain(octet).chain(opening).min()
    }

    /// A deadline may have passed.
    ///
    /// # Errors
    /// Remote: `no-answer`, `length-over-limit`.
    pub fn wake(&mut self, limits: &Limits, now: Instant, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if let Some(opening) = &mut self.opening {
            let turn = opening.wake(now, out)?;
            self.after_opening(turn, now, out);
        }
        while self.deframer.is_waiting() && now >= self.last_octet + self.config.inter_octet {
            self.deframer.give_up();
            self.take_frames(limits, now, out)?;
        }
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
            if self.primary { self.repeat(now, out)? } else { self.expire() }
        }
        Ok(())
    }

    /// Information frames sent and not acknowledged.
    pub(super) fn in_flight(&self) -> u8 {
        self.send.wrapping_sub(self.oldest) & 7
    }

    /// Whether there is more to send than is in flight, or something is.
    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Send what the window allows, from behind what is in flight; the last frame polls, or is final.
    pub(super) fn send_window(&mut self, out: &mut Vec<u8>) {
        let size = usize::from(self.agreed.information_transmit.max(1));
        loop {
            let start = self.acknowledged + usize::from(self.in_flight()) * size;
            let Some(rest) = self.outgoing.get(start..).filter(|rest| !rest.is_empty()) else { break };
            let piece = &rest[..rest.len().min(size)];
            let segmented = rest.len() > size;
            let last = !segmented || self.in_flight() + 1 >= self.agreed.window_transmit;
            let control = self.receive << 5 | if last { control::POLL } else { 0 } | self.send << 1;
            encode(out, segmented, &self.theirs, &self.ours, control, piece);
            self.send = (self.send + 1) & 7;
            if last {
                break;
            }
        }
        // A primary waits for the final frame now; a secondary has sent it.
        self.polled = self.primary;
    }

    /// Send again what is in flight.
    pub(super) fn send_again(&mut self, out: &mut Vec<u8>) {
        self.send = self.oldest;
        self.send_window(out);
    }

    /// The other end expects frame `next` next. False if that cannot be.
    pub(super) fn acknowledge(&mut self, next: u8) -> bool {
        let count = next.wrapping_sub(self.oldest) & 7;
        if count > self.in_flight() {
            return false;
        }
        if count == 0 {
            return true;
        }
        self.oldest = next;
        self.tries = 0;
        self.acknowledged += usize::from(count) * usize::from(self.agreed.information_transmit.max(1));
        if self.acknowledged >= self.outgoing.len() {
            self.outgoing = self.queue.pop_front().unwrap_or_default();
            self.acknowledged = 0;
        }
        true
    }

    /// Take the information of a frame that is in order.
    ///
    /// # Errors
    /// Remote: `length-over-limit`.
    pub(super) fn assemble(&mut self, frame: &Frame<'_>, limits: &Limits) -> Result<(), ProtocolError> {
        let unasked =
            FrameType::of(frame.control) == FrameType::UnnumberedInformation || self.state != State::Connected;
        let pieces = if unasked { &mut self.unasked } else { &mut self.assembling };
        if pieces.len() + frame.information.len() > limits.apdu.saturating_add(llc::COMMAND.len()) {
            let message = format!("segments of more than {} octets together", limits.apdu);
            return Err(ProtocolError::remote("hdlc", 0, "length-over-limit", message));
        }
        pieces.extend_from_slice(frame.information);
        if frame.segmented {
            self.found.push_back(Received::Progress);
            return Ok(());
        }
        let whole = std::mem::take(pieces);
        let address = |wire| Address::from_wire(wire).map_or(0, |address| address.upper());
        let (source, destination) = if self.primary {
            (self.theirs.upper(), self.ours.upper())
        } else {
            (address(frame.source), address(frame.destination))
        };
        for apdu in llc::apdus(&whole, limits) {
            self.found.push_back(Received::Apdu { source, destination, apdu: Apdu::Held(apdu.to_vec()) });
        }
        Ok(())
    }

    /// A frame without information.
    pub(super) fn supervise(&self, control: u8, out: &mut Vec<u8>) {
        encode(out, false, &self.theirs, &self.ours, control, &[]);
    }

    /// A fresh data link: everything counts from zero. What waits to be sent stays for a primary.
    pub(super) fn begin(&mut self, agreed: Parameters) {
        self.agreed = agreed;
        self.state = State::Connected;
        (self.send, self.receive, self.oldest, self.acknowledged) = (0, 0, 0, 0);
        self.assembling = Vec::new();
        self.unasked = Vec::new();
        self.tries = 0;
        self.polls = 0;
        self.polled = false;
        if !self.primary {
            self.outgoing = Vec::new();
            self.queue.clear();
        }
    }

    /// There is no data link any more.
    pub(super) fn end(&mut self, why: &'static str) {
        self.state = State::Down;
        self.timer = None;
        self.polled = false;
        self.expecting = false;
        self.outgoing = Vec::new();
        self.queue.clear();
        self.assembling = Vec::new();
        self.found.push_back(Received::Closed(why));
    }
}

/// Control fields, with the poll/final bit where it always stands.
pub(super) mod control {
    pub const POLL: u8 = 0x10;
    pub const SNRM: u8 = 0x93;
    pub const DISC: u8 = 0x53;
    pub const UA: u8 = 0x73;
    pub const DM: u8 = 0x1F;
    pub const FRMR: u8 = 0x97;
    pub const UI: u8 = 0x03;
    pub const RR: u8 = 0x11;
}

/// APDUs that may wait for the one before: a session asks one question at a time and releases.
const QUEUED: usize = 4;
/// Format, two addresses, control, two check sequences and information.
const LARGEST_FRAME: usize = 2 + 4 + 4 + 1 + 4 + LARGEST as usize;
