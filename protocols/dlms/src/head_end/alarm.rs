//! Alarms that are no APDU in a wrapper (quirk `plain_alarms`): DSMR 4 sends a text and four octets, SMR 5 eight zero
//! octets where the wrapper's header belongs, then a notification. They prove nothing and are kept whole.

use ipss_session::{Cell, Context, EventKind, Limits};

use super::HeadEnd;
use crate::apdu::notification::DataNotification;

/// What stands at the front of a connection that carries no association yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// No alarm.
    None,
    /// The beginning of one.
    Part,
    /// One of this many octets.
    Whole(usize),
}

/// Octets of the longest text alarm: an equipment identifier has 17 characters.
const LONGEST_TEXT: usize = 64;
/// Octets behind a text alarm's comma.
const TEXT_TAIL: usize = 4;
const NO_HEADER: [u8; 8] = [0; 8];

impl Alarm {
    /// Look for one. An alarm is taken to end where what arrived ends.
    pub(super) fn find(octets: &[u8], limits: &Limits) -> Self {
        match octets {
            [] => Self::Part,
            [0, ..] => Self::without_header(octets, limits),
            _ => Self::text(octets),
        }
    }

    fn without_header(octets: &[u8], limits: &Limits) -> Self {
        if octets.iter().zip(NO_HEADER).any(|(octet, zero)| *octet != zero) {
            return Self::None;
        }
        let apdu = octets.get(NO_HEADER.len()..).unwrap_or_default();
        match DataNotification::decode(apdu) {
            Ok(_) if apdu.len() <= limits.apdu_before_association => Self::Whole(octets.len()),
            Err(error) if error.code == "truncated" && apdu.len() < limits.apdu_before_association => Self::Part,
            _ => Self::None,
        }
    }

    fn text(octets: &[u8]) -> Self {
        let comma = octets.iter().take(LONGEST_TEXT).position(|octet| *octet == b',');
        let id = &octets[..comma.unwrap_or(octets.len())];
        if id.is_empty() || octets.len() > LONGEST_TEXT || !id.iter().all(u8::is_ascii_graphic) {
            return Self::None;
        }
        match comma {
            Some(comma) if octets.len() > comma + TEXT_TAIL => Self::Whole(octets.len()),
            _ => Self::Part,
        }
    }
}

impl HeadEnd {
    /// A line of one cell, the octets as they came.
    pub(super) fn take_alarm(&self, octets: &[u8], cx: &mut Context<'_>) {
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, 0, "an alarm that is no APDU");
        cx.batch.push_line(self.unasked(), [Cell::Raw(octets)]);
    }
}
