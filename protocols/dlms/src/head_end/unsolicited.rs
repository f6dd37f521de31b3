//! What a meter says that answers no question: exceptions, pushes, events, reports.

use ipss_session::{Cell, Context, EventKind, Line, Outcome, ProtocolError, Step, WallTime};

use super::rows::stamp;
use super::{HeadEnd, State, Work};
use crate::apdu::LongInvokeId;
use crate::apdu::ciphered::is_protected;
use crate::apdu::exception::ExceptionResponse;
use crate::apdu::initiate::ConfirmedServiceError;
use crate::apdu::notification::{DataNotification, DataNotificationConfirm, EventNotification};
use crate::apdu::short_name::{InformationReport, Variable};
use crate::apdu::tags::{self, KeyKind};
use crate::axdr::DateTime;
use crate::cosem::Named;

impl HeadEnd {
    /// An exception-response or confirmed-service-error, protected or not: it ends an exchange and gives no value.
    pub(super) fn take_exception(
        &mut self,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let (detail, counter) = if apdu.first() == Some(&tags::CONFIRMED_SERVICE_ERROR) {
            let error = ConfirmedServiceError::decode(apdu)?;
            let (group, name) = error.error_name().unwrap_or(("error", "unknown"));
            (format!("confirmed-service-error: {group}: {name}"), None)
        } else {
            let exception = ExceptionResponse::decode(apdu)?;
            let state = exception.state_error_name().unwrap_or("unknown state");
            let service = exception.service_error_name().unwrap_or("unknown error");
            (format!("exception-response: {state}, {service}"), exception.invocation_counter)
        };
        if self.complains_of_another(counter) {
            cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, detail);
            return Ok(());
        }
        // Garbage for a list, or none at all: from now on one by one.
        self.lists_broken |= self.asking && self.progress.asked > 1;
        let kind = if counter.is_some() { EventKind::CounterBehind } else { EventKind::ProtocolViolation };
        cx.batch.event(self.meter, cx.now.wall, kind, counter.map_or(0, i64::from), detail.clone());
        // The meter does not say which question it means, and the association may be gone: start afresh, later.
        self.abandon(step, Outcome::Interrupted, detail);
        Ok(())
    }

    /// A push that came before the association stands: opened as the profile demands, and nothing but a push.
    pub(super) fn take_early(&mut self, apdu: &mut [u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let mut place = 0..apdu.len();
        if let Some(channel) = self.channel.as_mut().filter(|_| self.profile.is_ciphered()) {
            let tag = apdu.first().copied().unwrap_or_default();
            if !is_protected(tag) {
                let message =
                    format!("a push with tag {tag:02X} in the clear, but protection is pinned for this meter");
                return Err(ProtocolError::remote("ciphering", 0, "weaker-security", message));
            }
            let plain = channel.unprotect(&self.profile, apdu)?;
            self.believed(&plain, cx);
            place = plain.start..plain.end;
        }
        let plain = &apdu[place];
        match plain.first() {
            Some(&tags::DATA_NOTIFICATION) => self.take_notification(plain, cx),
            Some(&tags::EVENT_NOTIFICATION_REQUEST) => self.take_event(plain, cx),
            _ => {
                let message = "neither an AARE nor a push before the association";
                Err(ProtocolError::remote("association", 0, "unexpected-apdu", message))
            }
        }
    }

    /// A push: a line of one cell, the plain APDU as it came. What is in it is for who knows the meter's push layouts
    /// ([`crate::push::read`]); events and reports are handed on alike. A confirmed one waits until its content is durable: see [`super::Control::Confirm`].
    pub(super) fn take_notification(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let notification = DataNotification::decode(apdu)?;
        let mut line = self.unasked();
        stamp(&mut line, notification.date_time);
        let number = i64::from(notification.long_invoke_id_and_priority);
        let confirmed = LongInvokeId(notification.long_invoke_id_and_priority).has(LongInvokeId::CONFIRMED);
        let detail = if confirmed { CONFIRMED } else { "" };
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, number, detail);
        cx.batch.push_line(line, [Cell::Raw(apdu)]);
        Ok(())
    }

    /// An event notification.
    pub(super) fn take_event(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let event = EventNotification::decode(apdu)?;
        let mut line = self.unasked();
        stamp(&mut line, event.time);
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, 0, "event-notification");
        cx.batch.push_line(line, [Cell::Raw(apdu)]);
        Ok(())
    }

    /// An information report: each variable whose name is known as the event notification that would say the same. A
    /// report with others stays whole.
    pub(super) fn take_report(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let report = InformationReport::decode(apdu, &limits)?;
        let time = report.time.and_then(|octets| octets.try_into().ok()).map(DateTime);
        let mut line = self.unasked();
        stamp(&mut line, time);
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, 0, "information-report");
        let names = self.names.as_ref();
        let mut unknown = names.is_none();
        for (variable, value) in report.variables.iter(&limits).zip(report.values.iter(&limits)) {
            let (Variable::Name(name) | Variable::Parameterized { name, .. }) = variable else { continue };
            match names.and_then(|names| names.resolve(name)) {
                Some(Named::Attribute(descriptor)) => {
                    let mut said = Vec::with_capacity(24 + value.len());
                    EventNotification { time, time_tagged: false, descriptor, value }.encode(&mut said);
                    cx.batch.push_line(line, [Cell::Raw(&said)]);
                }
                _ => unknown = true,
            }
        }
        if unknown {
            cx.batch.push_line(line, [Cell::Raw(apdu)]);
        }
        Ok(())
    }

    /// Tell the meter that its push is durable.
    pub(super) fn confirm(&mut self, long_invoke_id_and_priority: u32, cx: &mut Context<'_>) {
        if self.state != State::Up {
            return; // the meter will push again
        }
        let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
        let start = cx.to_send.len();
        let date_time = Some(DateTime::from_wall(cx.now.wall, 0));
        DataNotificationConfirm { long_invoke_id_and_priority, date_time }.encode(cx.to_send);
        // Without counters the meter learns nothing, and pushes again.
        let _ = self.send(KeyKind::Dedicated, frame, start, cx);
    }

    /// The head of a line that nobody asked for.
    pub(super) fn unasked(&self) -> Line {
        Line {
            meter: self.meter,
            request: 0,
            item: 0,
            layout: 0,
            capture_time: WallTime::UNKNOWN,
            deviation: Line::NO_DEVIATION,
            clock_status: 0xFF,
        }
    }
}

/// The first octets of what may be a push before the association stands.
pub(super) const EARLY: [u8; 5] = [
    tags::DATA_NOTIFICATION,
    tags::EVENT_NOTIFICATION_REQUEST,
    tags::GENERAL_GLO_CIPHERING,
    tags::GENERAL_CIPHERING,
    tags::GENERAL_SIGNING,
];

/// The detail of [`EventKind::Notified`] for a push that waits to be confirmed.
pub const CONFIRMED: &str = "confirmed";
