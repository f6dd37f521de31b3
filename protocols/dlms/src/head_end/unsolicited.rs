//! What a meter says that answers no question: exceptions, pushes, events, reports.

use ipss_session::{Cell, Context, EventKind, Line, Outcome, ProtocolError, Step, WallTime};

use super::rows::stamp;
use super::{HeadEnd, State, Work};
use crate::apdu::LongInvokeId;
use crate::apdu::exception::ExceptionResponse;
use crate::apdu::initiate::ConfirmedServiceError;
use crate::apdu::notification::{DataNotification, DataNotificationConfirm, EventNotification};
use crate::apdu::short_name::{InformationReport, Variable};
use crate::apdu::tags::{self, KeyKind};
use crate::axdr::{DateTime, tag};
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
        // Garbage for a list, or none at all: from now on one by one.
        self.lists_broken |= self.asking && self.progress.asked > 1;
        let kind = if counter.is_some() { EventKind::CounterBehind } else { EventKind::ProtocolViolation };
        cx.batch.event(self.meter, cx.now.wall, kind, counter.map_or(0, i64::from), detail.clone());
        // The meter does not say which question it means, and the association may be gone: start afresh, later.
        self.abandon(step, Outcome::Interrupted, detail);
        Ok(())
    }

    /// A push. A confirmed one waits until its content is durable: see [`super::Control::Confirm`].
    pub(super) fn take_notification(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let notification = DataNotification::decode(apdu)?;
        let mut line = self.unasked();
        stamp(&mut line, notification.date_time);
        let number = i64::from(notification.long_invoke_id_and_priority);
        let confirmed = LongInvokeId(notification.long_invoke_id_and_priority).has(LongInvokeId::CONFIRMED);
        let detail = if confirmed { CONFIRMED } else { "" };
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, number, detail);
        cx.batch.push_line(line, [Cell::Raw(notification.body)]);
        Ok(())
    }

    /// An event notification: a line with the structure class, logical name, attribute, value, as a push would have it.
    pub(super) fn take_event(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let event = EventNotification::decode(apdu)?;
        let mut line = self.unasked();
        stamp(&mut line, event.time);
        let mut value = vec![tag::STRUCTURE, 4, tag::LONG_UNSIGNED];
        value.extend_from_slice(&event.descriptor.class_id.to_be_bytes());
        value.extend_from_slice(&[tag::OCTET_STRING, 6]);
        value.extend_from_slice(&event.descriptor.logical_name.0);
        value.extend_from_slice(&[tag::INTEGER, event.descriptor.attribute as u8]);
        value.extend_from_slice(event.value);
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, 0, "event-notification");
        cx.batch.push_line(line, [Cell::Raw(&value)]);
        Ok(())
    }

    /// An information report: a line as an event's for each variable whose name is known, else structure name, value.
    pub(super) fn take_report(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let report = InformationReport::decode(apdu, &limits)?;
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, 0, "information-report");
        for (variable, octets) in report.variables.iter(&limits).zip(report.values.iter(&limits)) {
            let (Variable::Name(name) | Variable::Parameterized { name, .. }) = variable else { continue };
            let mut value = vec![tag::STRUCTURE, 2, tag::LONG_UNSIGNED];
            match self.names.as_ref().and_then(|names| names.resolve(name)) {
                Some(Named::Attribute(descriptor)) => {
                    value[1] = 4;
                    value.extend_from_slice(&descriptor.class_id.to_be_bytes());
                    value.extend_from_slice(&[tag::OCTET_STRING, 6]);
                    value.extend_from_slice(&descriptor.logical_name.0);
                    value.extend_from_slice(&[tag::INTEGER, descriptor.attribute as u8]);
                }
                _ => value.extend_from_slice(&name.to_be_bytes()),
            }
            value.extend_from_slice(octets);
            cx.batch.push_line(self.unasked(), [Cell::Raw(&value)]);
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
    fn unasked(&self) -> Line {
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

/// The detail of [`EventKind::Notified`] for a push that waits to be confirmed.
pub const CONFIRMED: &str = "confirmed";
