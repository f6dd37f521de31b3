//! Pushes that did not come over the meter's own connection: found out of octets that nobody could open, and opened
//! later by the session that can.

use ipss_session::{Context, EventKind, Limits, ProtocolError};

use super::{HeadEnd, kind_of};
use crate::apdu::ciphered::CipheredApdu;
use crate::apdu::general::GeneralCiphering;
use crate::apdu::tags;
use crate::wrapper::{Wpdu, next_wpdu};

/// A protected push in its WPDU, and who says that it sent it. Nothing is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unopened<'a> {
    /// The sender's system title, as the APDU says.
    pub system_title: &'a [u8],
    /// The sender's service access point: what a profile calls the server.
    pub source: u16,
    /// Ours: the client.
    pub destination: u16,
    /// The whole WPDU, header included.
    pub wpdu: &'a [u8],
}

impl<'a> Unopened<'a> {
    /// The push that stands in front of `octets`, if one stands there whole that names its sender.
    pub fn first(octets: &'a [u8]) -> Option<Self> {
        let limits = Limits { apdu: Limits::default().apdu_before_association, ..Limits::default() };
        let Wpdu { source, destination, apdu } = next_wpdu(octets, &limits).ok()??;
        let system_title = match *apdu.first()? {
            tags::GENERAL_GLO_CIPHERING => &apdu[CipheredApdu::decode(apdu).ok()?.system_title?],
            tags::GENERAL_CIPHERING => GeneralCiphering::decode(apdu).ok()?.header.originator,
            _ => return None,
        };
        let wpdu = octets.get(..HEADER + apdu.len())?;
        // What is no system title is nobody's: kept, it could be as long as the APDU.
        (system_title.len() == 8).then_some(Self { system_title, source, destination, wpdu })
    }

    /// All that stand one behind the other in `octets`; what follows the last is left out.
    pub fn all(octets: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = octets;
        std::iter::from_fn(move || {
            let found = Self::first(rest)?;
            rest = &rest[found.wpdu.len()..];
            Some(found)
        })
    }
}

impl HeadEnd {
    /// Open a push that the owner kept, as one that comes before the association; whatever the association does
    /// meanwhile.
    pub(super) fn hear(&mut self, number: i64, wpdu: &mut [u8], cx: &mut Context<'_>) {
        let events = cx.batch.events.len();
        let mark = cx.batch.mark();
        let detail = match self.open_heard(wpdu, cx) {
            Ok(()) => String::new(),
            Err(error) => {
                cx.batch.rewind(mark);
                let detail = format!("{}: {error}", error.code);
                cx.batch.event(self.meter, cx.now.wall, kind_of(&error), 0, detail.clone());
                detail
            }
        };
        // The connection that it came over is gone: there is nobody to confirm it to.
        let told = cx.batch.events[events..].iter_mut().filter(|event| event.kind == EventKind::Notified);
        told.for_each(|event| event.detail.clear());
        cx.batch.event(self.meter, cx.now.wall, EventKind::PushHeard, number, detail);
    }

    fn open_heard(&mut self, wpdu: &mut [u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let length = match next_wpdu(wpdu, &self.profile.limits)? {
            Some(whole) if HEADER + whole.apdu.len() == wpdu.len() => whole.apdu.len(),
            _ => return Err(ProtocolError::remote("wrapper", 0, "truncated", "not one whole WPDU")),
        };
        self.take_early(&mut wpdu[HEADER..HEADER + length], cx)
    }
}

/// Octets in front of the APDU (Green Book, "COSEM transport layer wrapper").
const HEADER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: [u8; 27] =
        [0, 1, 0, 1, 0, 16, 0, 19, 0xDB, 8, 0x4D, 0x4D, 0x4D, 0, 0, 0xBC, 0x61, 0x4E, 8, 0x30, 0, 0, 0, 1, 1, 2, 3];

    #[test]
    fn a_push_is_found_with_its_sender_and_addresses_and_cut_off_it_is_none() {
        let found = Unopened::first(&PUSH).unwrap();

        assert_eq!(found.system_title, &PUSH[10..18]);
        assert_eq!((found.source, found.destination), (1, 16));
        assert_eq!(found.wpdu, PUSH);
        for cut in 0..PUSH.len() {
            assert_eq!(Unopened::first(&PUSH[..cut]), None, "{cut} octets");
        }
    }

    #[test]
    fn several_pushes_are_found_until_something_else_stands_there() {
        let octets = [&PUSH[..], &PUSH, b"else", &PUSH].concat();

        assert_eq!(Unopened::all(&octets).count(), 2);
        assert_eq!(Unopened::all(b"").count(), 0);
    }

    #[test]
    fn general_ciphering_of_an_originator_that_is_no_title_is_nobodys() {
        let push = |title: &[u8]| {
            let mut apdu = vec![tags::GENERAL_CIPHERING, 1, 7];
            for field in [title, &[8; 8], &[], &[]] {
                crate::axdr::write_length(&mut apdu, field.len());
                apdu.extend_from_slice(field);
            }
            apdu.extend_from_slice(&[0, 5, 0x30, 0, 0, 0, 1]);
            let mut wpdu = vec![0, 1, 0, 1, 0, 16];
            wpdu.extend_from_slice(&u16::try_from(apdu.len()).unwrap().to_be_bytes());
            wpdu.extend_from_slice(&apdu);
            wpdu
        };

        assert_eq!(Unopened::first(&push(b"MMM\0\0\0\0\x01")).unwrap().system_title, b"MMM\0\0\0\0\x01");
        assert_eq!(Unopened::first(&push(b"MMM")), None);
        assert_eq!(Unopened::first(&push(&[0xA5; 3_000])), None);
    }

    #[test]
    fn nothing_without_a_title_and_no_other_apdu_is_a_push_of_somebody() {
        let mut nameless = PUSH[..19].to_vec();
        (nameless[7], nameless[9]) = (11, 0);
        let plain = [0, 1, 0, 1, 0, 16, 0, 2, 0x0F, 0];

        assert_eq!(Unopened::first(&nameless), None);
        assert_eq!(Unopened::first(&plain), None);
    }
}
