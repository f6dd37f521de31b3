//! The head-end's end: it sets the data link up, polls, and repeats.

use ipss_session::{Instant, Limits, ProtocolError};

use super::super::llc;
use super::endpoint::{State, control};
use super::frame::encode;
use super::{Address, Endpoint, Frame, FrameType, Parameters};

impl Endpoint {
    /// Set the data link up, after clearing an old one if the meter needs that.
    pub(super) fn connect(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.state = if self.config.disconnect_first { State::Resetting } else { State::Connecting };
        self.ask_again(now, out);
    }

    /// End the data link in good order; false if an answer is awaited.
    pub fn close(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.state != State::Connected || !self.primary {
            return true;
        }
        self.state = State::Closing;
        self.tries = 0;
        self.ask_again(now, out);
        false
    }

    /// Say that nothing more comes, without waiting.
    pub fn hang_up(&mut self, out: &mut Vec<u8>) {
        if self.primary && matches!(self.state, State::Connected | State::Connecting) {
            self.supervise(control::DISC, out);
            self.state = State::Down;
            self.timer = None;
        }
    }

    /// Send the unnumbered command that the state waits for an answer to.
    fn ask_again(&mut self, now: Instant, out: &mut Vec<u8>) {
        match self.state {
            State::Resetting | State::Closing => self.supervise(control::DISC, out),
            State::Connecting => {
                let mut proposal = Vec::new();
                self.config.parameters.encode(&mut proposal);
                encode(out, false, &self.theirs, &self.ours, control::SNRM, &proposal);
            }
            State::Down | State::Connected => return,
        }
        self.polled = true;
        self.timer = Some(now + self.config.answer);
    }

    /// It is this end's turn to speak if no poll is on the wire: send what there is, or ask for the rest.
    pub(super) fn take_turn(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.state != State::Connected || self.polled {
            return;
        }
        if self.in_flight() > 0 {
            self.send_again(out);
        } else if self.has_outgoing() {
            self.send_window(out);
        } else if !self.assembling.is_empty() {
            self.poll(out);
        } else {
            // An answer that is not ready is asked for again in a while; an idle link is kept alive.
            let pause = if self.expecting && self.polls < MOST_POLLS {
                Some(self.config.poll)
            } else {
                Some(self.config.inactivity.mul_f32(0.75)).filter(|pause| !pause.is_zero())
            };
            self.timer = pause.map(|pause| now + pause);
            return;
        }
        self.timer = Some(now + self.config.answer);
    }

    /// RR with a poll: go on.
    fn poll(&mut self, out: &mut Vec<u8>) {
        self.supervise(self.receive << 5 | control::RR, out);
        self.polled = true;
    }

    /// Nothing came in time, or a pause is over.
    pub(super) fn repeat(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if self.polled {
            self.tries += 1;
            if self.tries > self.config.retries {
                if self.state == State::Closing {
                    self.end("released");
                    return Ok(());
                }
                let message = format!("no answer to a frame sent {} times", self.tries);
                return Err(ProtocolError::remote("hdlc", 0, "no-answer", message));
            }
        }
        match self.state {
            State::Connected if self.polled && self.in_flight() > 0 => self.send_again(out),
            State::Connected => {
                if !self.polled {
                    self.polls = self.polls.saturating_add(1);
                }
                self.poll(out);
            }
            _ => {
                self.ask_again(now, out);
                return Ok(());
            }
        }
        self.timer = Some(now + self.config.answer);
        Ok(())
    }

    /// Take a frame from the meter.
    pub(super) fn take_response(
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
        let kind = FrameType::of(frame.control);
        // Serial adapters echo what was sent. With equal addresses at both ends only the LLC header tells.
        let echo = (source, destination) == (self.ours, self.theirs)
            && (self.ours != self.theirs || frame.information.starts_with(&llc::COMMAND));
        // A frame between others on the same line is not for this end. A push may go to any client.
        let any_client = kind == FrameType::UnnumberedInformation || self.state == State::Down;
        if echo || !self.theirs.matches(&source) || !(any_client || destination == self.ours) {
            return Ok(());
        }
        let last = frame.control & control::POLL != 0;
        match (kind, self.state) {
            (FrameType::UnnumberedInformation, _) => self.assemble(frame, limits)?,
            // A meter that pushes without a data link.
            (FrameType::Information, State::Down) => self.assemble(frame, limits)?,
            (FrameType::UnnumberedAcknowledge, State::Connecting) => {
                let theirs = Parameters::decode(frame.information);
                let agreed = self.config.parameters.agree(&theirs);
                self.begin(agreed);
                self.timer = None;
                self.take_turn(now, out);
            }
            (FrameType::UnnumberedAcknowledge | FrameType::DisconnectedMode, State::Resetting) => {
                self.state = State::Connecting;
                self.tries = 0;
                self.ask_again(now, out);
            }
            (FrameType::UnnumberedAcknowledge | FrameType::DisconnectedMode, State::Closing) => self.end("released"),
            (FrameType::DisconnectedMode, State::Connecting | State::Connected) => {
                self.end("the meter has no data link for us (DM)");
            }
            (FrameType::FrameReject, State::Connecting | State::Connected) => {
                self.end("the meter rejected a frame (FRMR)");
            }
            (FrameType::Information, State::Connected) => {
                let new = frame.control >> 1 & 7 == self.receive;
                let acknowledges = self.takes(frame.control);
                if frame.information.len() > usize::from(self.config.parameters.information_receive.max(128)) {
                    self.end("the meter sent more in one frame than was agreed");
                    return Ok(());
                }
                if new {
                    self.receive = (self.receive + 1) & 7;
                    self.tries = 0;
                    let before = self.found.len();
                    self.assemble(frame, limits)?;
                    self.expecting &= self.found.len() == before || frame.segmented;
                }
                // A frame that came twice is no answer to the poll that is on the wire.
                if last && (new || acknowledges) {
                    self.answered(now, out);
                }
            }
            (FrameType::ReceiveReady | FrameType::Reject, State::Connected) => {
                let waits = self.in_flight() == 1;
                let acknowledges = self.takes(frame.control);
                // With one frame in flight, a meter that got the poll got the frame: this is late.
                if last && (acknowledges || !waits || kind == FrameType::Reject) {
                    self.answered(now, out);
                }
            }
            (FrameType::ReceiveNotReady, State::Connected) => {
                self.takes(frame.control);
                if last && self.polled {
                    // Busy: ask again in a while, as often as for an answer.
                    self.polled = false;
                    self.polls = self.polls.saturating_add(1);
                    let pause = if self.polls < MOST_POLLS { self.config.poll } else { self.config.answer };
                    self.timer = Some(now + pause);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What a frame acknowledges; true if it is anything new.
    fn takes(&mut self, control: u8) -> bool {
        let before = self.oldest;
        self.acknowledge(control >> 5) && self.oldest != before
    }

    /// The final frame came: it is this end's turn.
    fn answered(&mut self, now: Instant, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.polled) {
            self.timer = None;
            self.take_turn(now, out);
        }
    }
}

/// Polls without anything new, until an answer is not expected any more: 60 s with the usual pause.
const MOST_POLLS: u16 = 300;
