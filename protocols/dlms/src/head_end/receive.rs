//! What arrives: frames out of octets, APDUs out of protection, and to whom each goes.

use ipss_session::{Context, EventKind, Outcome, ProtocolError, Step, Transport};

use super::alarm::Alarm;
use super::unsolicited::EARLY;
use super::{HeadEnd, State, Work};
use crate::apdu::ciphered::is_protected;
use crate::apdu::tags;
use crate::link::{Apdu, Received};
use crate::profile::Profile;
use crate::security::Plain;

impl HeadEnd {
    /// Take one whole frame's APDU.
    fn take_apdu(&mut self, apdu: &mut [u8], step: &mut Step<Work>, cx: &mut Context<'_>) {
        let tag = apdu.first().copied().unwrap_or_default();
        if self.is_stray(tag) {
            let detail = format!("an APDU with tag {tag:02X} that this state of the association has no use for");
            cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, detail);
            return;
        }
        let result = match self.state {
            State::Associating if apdu.first().is_some_and(|tag| EARLY.contains(tag)) => self.take_early(apdu, cx),
            State::Associating => self.take_aare(apdu, step, cx),
            State::Releasing if apdu.first() == Some(&tags::RLRE) => {
                if self.link.close(cx.now.monotonic, cx.to_send) {
                    cx.batch.event(self.meter, cx.now.wall, EventKind::Released, 0, "");
                    step.transport = Transport::Close;
                }
                Ok(())
            }
            State::Proving | State::Up | State::Releasing => self.take_protected(apdu, step, cx),
            State::Down => Ok(()),
        };
        match result {
            // Anybody may send a datagram, and the network may send one twice.
            Err(error) if self.passes_over(&error, tag) => {
                cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, error.to_string());
            }
            Err(error) => self.broken(&error, step, cx),
            Ok(()) => {}
        }
    }

    /// Open an APDU as the profile demands, then take what is in it.
    pub(super) fn take_protected(
        &mut self,
        apdu: &mut [u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let Some(channel) = self.channel.as_mut().filter(|_| self.profile.is_ciphered()) else {
            return self.take_plain(apdu, step, cx);
        };
        let tag = apdu.first().copied().unwrap_or_default();
        if tag == tags::EXCEPTION_RESPONSE || tag == tags::CONFIRMED_SERVICE_ERROR {
            // Informs us and proves nothing: it may end an exchange, never give a value.
            return self.take_exception(apdu, step, cx);
        }
        if tag == tags::GENERAL_BLOCK_TRANSFER {
            // What they make together is opened as any APDU.
            return self.take_general_block(apdu, false, step, cx);
        }
        if !is_protected(tag) && self.profile.quirks.plain_response_allowed {
            return self.take_plain(apdu, step, cx);
        }
        if !is_protected(tag) {
            return Err(ProtocolError::remote(
                "ciphering",
                0,
                "weaker-security",
                format!("an APDU with tag {tag:02X} in the clear, but protection is pinned for this meter"),
            ));
        }
        let plain = channel.unprotect(&self.profile, apdu)?;
        self.believed(&plain, cx);
        let plain = &apdu[plain.start..plain.end];
        if plain.first() == Some(&tags::GENERAL_BLOCK_TRANSFER) {
            return self.take_general_block(plain, true, step, cx);
        }
        self.take_plain(plain, step, cx)
    }

    /// A tag was right and its counter new: the mark is to be made durable, and a jump to be told.
    pub(super) fn believed(&self, plain: &Plain, cx: &mut Context<'_>) {
        if plain.lasting {
            cx.batch.peer_counter(self.meter, plain.counter);
        }
        if plain.jump {
            cx.batch.event(self.meter, cx.now.wall, EventKind::CounterJump, i64::from(plain.counter), "");
        }
    }

    pub(super) fn take_plain(
        &mut self,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        match apdu.first().copied() {
            Some(tags::EXCEPTION_RESPONSE | tags::CONFIRMED_SERVICE_ERROR) => self.take_exception(apdu, step, cx),
            Some(tags::DATA_NOTIFICATION) if self.state != State::Proving => self.take_notification(apdu, cx),
            Some(tags::EVENT_NOTIFICATION_REQUEST) if self.state != State::Proving => self.take_event(apdu, cx),
            Some(tags::INFORMATION_REPORT_REQUEST) if self.state != State::Proving => self.take_report(apdu, cx),
            Some(tags::GENERAL_BLOCK_TRANSFER) => self.take_general_block(apdu, false, step, cx),
            _ if self.state == State::Proving => self.take_proof(apdu, step, cx),
            _ => self.take_answer(apdu, step, cx),
        }
    }

    pub(super) fn take_bytes(&mut self, octets: &mut [u8], cx: &mut Context<'_>) -> Step<Work> {
        let mut step = self.settled(0);
        if self.profile.quirks.plain_alarms && self.state == State::Associating {
            match Alarm::find(octets, &self.profile.limits) {
                Alarm::None => {}
                Alarm::Part => {
                    self.partial_since.get_or_insert(cx.now.monotonic);
                    step.deadline = self.deadline();
                    return step;
                }
                Alarm::Whole(end) => {
                    self.take_alarm(&octets[..end], cx);
                    step.consumed = end;
                    self.partial_since = None;
                }
            }
        }
        loop {
            let mut limits = self.profile.limits;
            if !matches!(self.state, State::Up | State::Releasing) {
                limits.apdu = limits.apdu_before_association;
            }
            let start = step.consumed;
            let (taken, received) = match self.link.next(&octets[start..], &limits, cx.now.monotonic, cx.to_send) {
                Ok(found) => found,
                Err(error) => {
                    self.broken(&error, &mut step, cx);
                    break;
                }
            };
            step.consumed += taken;
            if taken > 0 {
                self.partial_since = None;
            }
            match received {
                Received::Apdu { source, destination, apdu } => {
                    if (source, destination) != (self.profile.server, self.profile.client) {
                        let found = format!("from {source} to {destination}");
                        let wanted = format!("from {} to {}", self.profile.server, self.profile.client);
                        let message = format!("a frame {found}, expected {wanted}");
                        // What answers the greeter's question may still come when the meter's session has the line.
                        let greeted = self.state == State::Associating
                            && (source, destination) == (self.profile.server, Profile::public().client);
                        if self.link.is_lossy() || greeted || self.profile.shared {
                            cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, message);
                            continue;
                        }
                        let error = ProtocolError::remote("wrapper", 2, "wrong-address", message);
                        self.broken(&error, &mut step, cx);
                        return step;
                    }
                    match apdu {
                        Apdu::Here(place) => {
                            self.take_apdu(&mut octets[start + place.start..start + place.end], &mut step, cx);
                        }
                        Apdu::Held(mut apdu) => self.take_apdu(&mut apdu, &mut step, cx),
                    }
                }
                Received::Nothing => {
                    if step.consumed < octets.len() {
                        self.partial_since.get_or_insert(cx.now.monotonic);
                    }
                    break;
                }
                Received::Progress => self.since = cx.now.monotonic,
                Received::Opened => {}
                Received::Closed(why) => {
                    if self.state == State::Releasing {
                        cx.batch.event(self.meter, cx.now.wall, EventKind::Released, 0, "");
                    }
                    self.abandon(&mut step, Outcome::Interrupted, why);
                }
                Received::Dropped(why) => {
                    cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, why);
                }
            }
            // A request is handed back one at a time: what follows is offered again.
            if step.transport == Transport::Close || step.finished.is_some() {
                break;
            }
        }
        if step.transport == Transport::Keep {
            step.deadline = self.deadline();
        }
        step
    }
}
