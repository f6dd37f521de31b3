//! What a meter says unasked (Green Book, "Unsolicited services").

use ipss_session::Context;

use super::session::State;
use super::{Meter, Objects};
use crate::apdu::notification::{DataNotification, EventNotification};
use crate::apdu::short_name::{Variable, encode_information_report};
use crate::apdu::tags::KeyKind;
use crate::apdu::{GeneralBlock, LongInvokeId};
use crate::axdr::DateTime;
use crate::block_transfer;
use crate::cosem::AttributeDescriptor;

impl<O: Objects> Meter<O> {
    /// Push: a body of A-XDR.
    pub(super) fn notify(&mut self, body: &[u8], confirmed: bool, cx: &mut Context<'_>) {
        let confirmed = if confirmed { LongInvokeId::CONFIRMED } else { 0 };
        let notification = DataNotification {
            long_invoke_id_and_priority: confirmed | (self.answers & 0x00FF_FFFF),
            date_time: Some(DateTime::from_wall(cx.now.wall, 0)),
            date_time_tagged: false,
            body,
        };
        self.unasked(|out| notification.encode(out), cx);
    }

    /// Tell of an event: an attribute and its value.
    pub(super) fn notify_event(&mut self, descriptor: AttributeDescriptor, value: &[u8], cx: &mut Context<'_>) {
        let time = Some(DateTime::from_wall(cx.now.wall, 0));
        self.unasked(|out| EventNotification { time, time_tagged: false, descriptor, value }.encode(out), cx);
    }

    /// Report variables by their short names.
    pub(super) fn report(&mut self, values: &[(u16, Vec<u8>)], cx: &mut Context<'_>) {
        let items = values.iter().map(|(name, value)| (Variable::Name(*name), &value[..]));
        self.unasked(|out| encode_information_report(out, None, items), cx);
    }

    /// Send what nobody asked for, in unconfirmed blocks if the head-end does not take it whole.
    fn unasked(&mut self, encode: impl FnOnce(&mut Vec<u8>), cx: &mut Context<'_>) {
        if self.state == State::Down {
            return;
        }
        let (client, server) = (self.profile().client, self.profile().server);
        let frame = self.link.begin(cx.to_send, server, client);
        let start = cx.to_send.len();
        encode(cx.to_send);
        if self.state == State::Up && self.seal(frame, start, KeyKind::Dedicated, cx).is_err() {
            return;
        }
        let most = self.most();
        if cx.to_send.len() - start <= most || self.state != State::Up {
            if self.link.finish_notification(cx.to_send, frame, server, client).is_err() {
                cx.to_send.truncate(frame);
            }
            return;
        }
        let apdu = cx.to_send.split_off(start);
        cx.to_send.truncate(frame);
        block_transfer::push(&apdu, most - GeneralBlock::OVERHEAD, |block| {
            let frame = self.link.begin(cx.to_send, server, client);
            block.encode(cx.to_send);
            if self.link.finish_notification(cx.to_send, frame, server, client).is_err() {
                cx.to_send.truncate(frame);
            }
        });
    }
}
