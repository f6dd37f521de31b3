//! The meter's end: it answers what it is sent, and speaks when polled.

use ipss_session::{Instant, Limits, ProtocolError};

use super::super::Received;
use super::endpoint::{State, control};
use super::frame::encode;
use super::{Address, Endpoint, Frame, FrameType, Parameters};

impl Endpoint {
    /// No frame came for so long that the data link is over.
    pub(super) fn expire(&mut self) {
        if self.state == State::Connected {
            self.end("nothing came for the inactivity time-out");
        }
    }

    /// A poll must not stay without a final frame: there is nothing to say, or not yet.
    pub fn settle(&mut self, _now: Instant, out: &mut Vec<u8>) {
        if !self.primary && self.polled && self.found.is_empty() && self.state == State::Connected {
            self.polled = false;
            self.supervise(self.receive << 5 | control::RR, out);
        }
    }

    /// Take a frame from a head-end.
    pub(super) fn take_command(
        &mut self,
        frame: &Frame<'_>,
        limits: &Limits,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let (Some(source), Some(destination)) =
            (Address::from_wire(frame.source), Address::from_wire(frame.destination))
        else {
            return Ok(());
        };
        let physical = destination.lower().filter(|lower| *lower != 0 && *lower != ALL_STATIONS);
        if physical.is_some_and(|lower| self.config.physical.is_some_and(|ours| ours != lower)) {
            return Ok(()); // for another meter on the line
        }
        let stranger = self.state == State::Connected && (source, destination) != (self.theirs, self.ours);
        let kind = FrameType::of(frame.control);
        if self.state == State::Connected && !stranger {
            self.timer = Some(now + self.config.inactivity).filter(|_| !self.config.inactivity.is_zero());
        }
        match kind {
            FrameType::SetNormalResponseMode => {
                self.set_ups += 1;
                if self.set_ups > MOST_SET_UPS {
                    let message = format!("{MOST_SET_UPS} data links set up and none of them used");
                    return Err(ProtocolError::remote("hdlc", 0, "set-up-flood", message));
                }
                (self.theirs, self.ours) = (source, destination);
                let agreed = self.config.parameters.agree(&Parameters::decode(frame.information));
                self.begin(agreed);
                self.timer = Some(now + self.config.inactivity).filter(|_| !self.config.inactivity.is_zero());
                let mut answer = Vec::new();
                agreed.encode(&mut answer);
                encode(out, false, &source, &destination, control::UA, &answer);
                self.found.push_back(Received::Opened);
            }
            FrameType::Disconnect if self.state == State::Connected && !stranger => {
                self.supervise(control::UA, out);
                self.end("released");
            }
            FrameType::UnnumberedInformation if self.state != State::Connected || !stranger => {
                self.assemble(frame, limits)?;
            }
            FrameType::UnnumberedInformation => {}
            // Not set up, or set up with another client: this one must set it up first.
            _ if self.state != State::Connected || stranger => {
                let control = if frame.control & control::POLL != 0 { control::DM } else { return Ok(()) };
                encode(out, false, &source, &destination, control, &[]);
            }
            FrameType::Information | FrameType::ReceiveReady | FrameType::Reject | FrameType::ReceiveNotReady => {
                self.take_numbered(kind, frame, limits, out)?;
            }
            FrameType::Unknown => self.reject(frame.control, UNKNOWN_CONTROL, out),
            _ => {}
        }
        Ok(())
    }

    fn take_numbered(
        &mut self,
        kind: FrameType,
        frame: &Frame<'_>,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let poll = frame.control & control::POLL != 0;
        if !self.acknowledge(frame.control >> 5) {
            self.reject(frame.control, BAD_SEQUENCE, out);
            return Ok(());
        }
        if kind == FrameType::Information {
            if frame.information.len() > usize::from(self.agreed.information_receive) {
                self.reject(frame.control, TOO_LONG, out);
                return Ok(());
            }
            self.set_ups = 0;
            if frame.control >> 1 & 7 == self.receive {
                self.receive = (self.receive + 1) & 7;
                self.assemble(frame, limits)?;
            }
        }
        if !poll || kind == FrameType::ReceiveNotReady {
            if poll {
                self.supervise(self.receive << 5 | control::RR, out);
            }
            return Ok(());
        }
        self.polled = true;
        if self.in_flight() > 0 {
            self.send_again(out);
        } else if self.has_outgoing() {
            self.send_window(out);
        } else if self.found.iter().all(|found| !matches!(found, Received::Apdu { .. })) {
            // Nothing for the session to answer.
            self.polled = false;
            self.supervise(self.receive << 5 | control::RR, out);
        }
        Ok(())
    }

    /// FRMR: the control field that is refused, the sequence numbers of this end, and why.
    fn reject(&mut self, refused: u8, why: u8, out: &mut Vec<u8>) {
        let numbers = self.receive << 5 | self.send << 1;
        encode(out, false, &self.theirs, &self.ours, control::FRMR, &[refused, numbers, why]);
    }
}

/// Why a frame is rejected (ISO/IEC 13239, information of FRMR: bits w, x, y, z).
const UNKNOWN_CONTROL: u8 = 0x01;
const TOO_LONG: u8 = 0x04;
const BAD_SEQUENCE: u8 = 0x08;
/// The physical device that means every one.
const ALL_STATIONS: u16 = 0x3FFF;
/// Data links set up one after another without any use of them, until the peer is taken for an attacker.
const MOST_SET_UPS: u16 = 64;
