//! APDUs as JSON objects: the services, and what they share. Those around them are in [`super::envelope`].

use std::borrow::Cow;

use ipss_session::ProtocolError;

use super::Pass;
use super::named::{has_names, write_named};
use super::readings::reading;
use crate::apdu::action::{ActionRequest, ActionResponse, MethodOutcome};
use crate::apdu::ciphered;
use crate::apdu::get::{GetRequest, GetResponse};
use crate::apdu::list::AttributeAccess;
use crate::apdu::notification::{DataNotification, EventNotification};
use crate::apdu::set::{SetRequest, SetResponse};
use crate::apdu::{DataBlock, DataOrResult, InvokeIdAndPriority, SelectiveAccess, tags};
use crate::axdr::{DateTime, Reader, skip, walk};
use crate::cosem::classes;
use crate::cosem::{ActionResult, AttributeDescriptor, DataAccessResult, MethodDescriptor};
use crate::push::{Finder, Found, Shape, untagged};

/// APDUs inside APDUs (ciphering, blocks, user-information) are followed so deep.
const MAX_NESTING: usize = 8;

impl Pass<'_, '_> {
    /// One APDU as one object; what was shown before an error stays, and is closed.
    pub(super) fn apdu(&mut self, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        let Some(&tag) = apdu.first() else {
            return Err(ProtocolError::remote("apdu", 0, "truncated", "an APDU without an octet"));
        };
        if nesting > MAX_NESTING {
            return Err(ProtocolError::remote("apdu", 0, "depth-over-limit", "APDUs inside APDUs without end"));
        }
        let Some(name) = tags::name(tag) else {
            return Err(ProtocolError::remote("apdu", 0, "unknown-apdu", format!("no APDU has the tag {tag:02X}")));
        };
        let depth = self.apdus.depth();
        let result = self.known(tag, name, apdu, nesting);
        self.apdus.end_to(depth);
        result
    }

    fn known(&mut self, tag: u8, name: &str, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        match tag {
            tags::GET_REQUEST => self.get_request(apdu),
            tags::GET_RESPONSE => self.get_response(apdu),
            tags::SET_REQUEST => self.set_request(apdu),
            tags::SET_RESPONSE => self.set_response(apdu),
            tags::ACTION_REQUEST => self.action_request(apdu),
            tags::ACTION_RESPONSE => self.action_response(apdu),
            tags::DATA_NOTIFICATION => self.data_notification(apdu),
            tags::EVENT_NOTIFICATION_REQUEST => self.event_notification(apdu),
            tags::DATA_NOTIFICATION_CONFIRM => self.data_notification_confirm(apdu),
            tags::ACCESS_REQUEST => self.access_request(apdu),
            tags::ACCESS_RESPONSE => self.access_response(apdu),
            tags::READ_REQUEST => self.read_request(apdu),
            tags::READ_RESPONSE => self.read_response(apdu),
            tags::WRITE_REQUEST | tags::UNCONFIRMED_WRITE_REQUEST => self.write_request(name, apdu),
            tags::WRITE_RESPONSE => self.write_response(apdu),
            tags::INFORMATION_REPORT_REQUEST => self.information_report(apdu),
            tags::AARQ => self.aarq(apdu, nesting),
            tags::AARE => self.aare(apdu, nesting),
            tags::RLRQ | tags::RLRE => self.release(tag, name, apdu, nesting),
            tags::INITIATE_REQUEST => self.initiate_request(apdu),
            tags::INITIATE_RESPONSE => self.initiate_response(apdu),
            tags::CONFIRMED_SERVICE_ERROR => self.confirmed_service_error(apdu),
            tags::EXCEPTION_RESPONSE => self.exception_response(apdu),
            tags::GENERAL_BLOCK_TRANSFER => self.general_block_transfer(apdu, nesting),
            tag if ciphered::is_ciphered(tag) => self.ciphered(name, apdu, nesting),
            _ => {
                self.begin(name);
                self.apdus.member_hex("raw", apdu);
                self.warn(&format!("{name} is not decoded further"));
                Ok(())
            }
        }
    }

    fn get_request(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        match GetRequest::decode(apdu, &limits)? {
            GetRequest::Normal { invoke, descriptor, access } => {
                self.begin("get-request-normal");
                self.invoke(invoke);
                self.attribute(&descriptor);
                self.selection(access)?;
                self.session.asked[usize::from(invoke.id())] = Some(descriptor);
                self.session.blocks.clear();
                self.session.blocks_seen = 0;
            }
            GetRequest::Next { invoke, block_number } => {
                self.begin("get-request-next");
                self.invoke(invoke);
                self.apdus.member_integer("block_number", block_number);
            }
            GetRequest::WithList { invoke, items } => {
                self.begin("get-request-with-list");
                self.invoke(invoke);
                self.attributes(items.iter(&limits))?;
                self.session.asked[usize::from(invoke.id())] = None;
            }
        }
        Ok(())
    }

    fn get_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        match GetResponse::decode(apdu, &limits)? {
            GetResponse::Normal { invoke, result } => {
                self.begin("get-response-normal");
                self.invoke(invoke);
                let asked = self.session.asked[usize::from(invoke.id())].take();
                self.data_or_result(result, asked)
            }
            GetResponse::WithDatablock { invoke, last, block_number, result } => {
                self.begin("get-response-with-datablock");
                self.invoke(invoke);
                self.apdus.member_boolean("last_block", last);
                self.apdus.member_integer("block_number", block_number);
                match result {
                    DataOrResult::Data(raw) => self.block(invoke, DataBlock { last, number: block_number, raw }),
                    DataOrResult::Result(result) => {
                        self.session.blocks.clear();
                        self.session.blocks_seen = 0;
                        self.access_result(result);
                        Ok(())
                    }
                }
            }
            GetResponse::WithList { invoke, results } => {
                self.begin("get-response-with-list");
                self.invoke(invoke);
                self.apdus.key("results");
                self.apdus.begin('[');
                for result in results.iter(&limits) {
                    self.apdus.begin('{');
                    self.data_or_result(result, None)?;
                    self.apdus.end();
                }
                self.apdus.end();
                Ok(())
            }
        }
    }

    /// A piece of a long answer; with the last one, the value that they make together.
    fn block(&mut self, invoke: InvokeIdAndPriority, block: DataBlock<'_>) -> Result<(), ProtocolError> {
        self.apdus.member_hex("raw_data", block.raw);
        if block.number == 1 {
            self.session.blocks.clear();
            self.session.blocks_seen = 0;
        }
        if block.number == 0 || block.number != self.session.blocks_seen.wrapping_add(1) {
            self.warn("a block without those before it: its value cannot be put together");
            return Ok(());
        }
        self.session.blocks_seen = block.number;
        self.session.blocks.extend_from_slice(block.raw);
        if !block.last {
            return Ok(());
        }
        self.session.blocks_seen = 0;
        let value = std::mem::take(&mut self.session.blocks);
        let asked = self.session.asked[usize::from(invoke.id())].take();
        self.apdus.key("data");
        self.value(&value, asked, None).map_err(whole)
    }

    fn set_request(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        match SetRequest::decode(apdu, &limits)? {
            SetRequest::Normal { invoke, descriptor, access, value } => {
                self.begin("set-request-normal");
                self.invoke(invoke);
                self.attribute(&descriptor);
                self.selection(access)?;
                self.apdus.key("data");
                self.quiet_value(value)?;
                self.name_parts(descriptor, value);
            }
            SetRequest::WithFirstDatablock { invoke, descriptor, access, block } => {
                self.begin("set-request-with-first-datablock");
                self.invoke(invoke);
                self.attribute(&descriptor);
                self.selection(access)?;
                self.data_block(block);
            }
            SetRequest::WithDatablock { invoke, block } => {
                self.begin("set-request-with-datablock");
                self.invoke(invoke);
                self.data_block(block);
            }
            SetRequest::WithList { invoke, items, values } => {
                self.begin("set-request-with-list");
                self.invoke(invoke);
                self.attributes(items.iter(&limits))?;
                self.values(values.iter(&limits))?;
            }
            SetRequest::WithListAndFirstDatablock { invoke, items, block } => {
                self.begin("set-request-with-list-and-first-datablock");
                self.invoke(invoke);
                self.attributes(items.iter(&limits))?;
                self.data_block(block);
            }
        }
        Ok(())
    }

    fn set_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        match SetResponse::decode(apdu, &limits)? {
            SetResponse::Normal { invoke, result } => {
                self.begin("set-response-normal");
                self.invoke(invoke);
                self.access_result(result);
            }
            SetResponse::Datablock { invoke, block_number } => {
                self.begin("set-response-datablock");
                self.invoke(invoke);
                self.apdus.member_integer("block_number", block_number);
            }
            SetResponse::LastDatablock { invoke, result, block_number } => {
                self.begin("set-response-last-datablock");
                self.invoke(invoke);
                self.access_result(result);
                self.apdus.member_integer("block_number", block_number);
            }
            SetResponse::LastDatablockWithList { invoke, results, block_number } => {
                self.begin("set-response-last-datablock-with-list");
                self.invoke(invoke);
                self.access_results(results.iter(&limits));
                self.apdus.member_integer("block_number", block_number);
            }
            SetResponse::WithList { invoke, results } => {
                self.begin("set-response-with-list");
                self.invoke(invoke);
                self.access_results(results.iter(&limits));
            }
        }
        Ok(())
    }

    fn action_request(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        match ActionRequest::decode(apdu, &limits)? {
            ActionRequest::Normal { invoke, method, parameters } => {
                self.begin("action-request-normal");
                self.invoke(invoke);
                self.method(&method);
                if let Some(parameters) = parameters {
                    self.apdus.key("data");
                    self.quiet_value(parameters)?;
                }
            }
            ActionRequest::NextPblock { invoke, block_number } => {
                self.begin("action-request-next-pblock");
                self.invoke(invoke);
                self.apdus.member_integer("block_number", block_number);
            }
            ActionRequest::WithList { invoke, methods, parameters } => {
                self.begin("action-request-with-list");
                self.invoke(invoke);
                self.methods(methods.iter(&limits));
                self.values(parameters.iter(&limits))?;
            }
            ActionRequest::WithFirstPblock { invoke, method, block } => {
                self.begin("action-request-with-first-pblock");
                self.invoke(invoke);
                self.method(&method);
                self.data_block(block);
            }
            ActionRequest::WithListAndFirstPblock { invoke, methods, block } => {
                self.begin("action-request-with-list-and-first-pblock");
                self.invoke(invoke);
                self.methods(methods.iter(&limits));
                self.data_block(block);
            }
            ActionRequest::WithPblock { invoke, block } => {
                self.begin("action-request-with-pblock");
                self.invoke(invoke);
                self.data_block(block);
            }
        }
        Ok(())
    }

    fn action_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        match ActionResponse::decode(apdu, &limits)? {
            ActionResponse::Normal { invoke, outcome } => {
                self.begin("action-response-normal");
                self.invoke(invoke);
                self.outcome(outcome)?;
            }
            ActionResponse::WithPblock { invoke, block } => {
                self.begin("action-response-with-pblock");
                self.invoke(invoke);
                self.data_block(block);
            }
            ActionResponse::WithList { invoke, outcomes } => {
                self.begin("action-response-with-list");
                self.invoke(invoke);
                self.apdus.key("results");
                self.apdus.begin('[');
                for outcome in outcomes.iter(&limits) {
                    self.apdus.begin('{');
                    self.outcome(outcome)?;
                    self.apdus.end();
                }
                self.apdus.end();
            }
            ActionResponse::NextPblock { invoke, block_number } => {
                self.begin("action-response-next-pblock");
                self.invoke(invoke);
                self.apdus.member_integer("block_number", block_number);
            }
        }
        Ok(())
    }

    fn data_notification(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let notification = DataNotification::decode(apdu)?;
        self.begin("data-notification");
        let long_invoke_id = notification.long_invoke_id_and_priority;
        self.apdus.member_hex("long_invoke_id_and_priority", &long_invoke_id.to_be_bytes());
        self.date_time("date_time", notification.date_time);
        if notification.date_time_tagged {
            self.warn("date-time of the notification is tagged as an octet string");
        }
        self.apdus.key("data");
        self.value(notification.body, None, notification.date_time)
    }

    fn event_notification(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let notification = EventNotification::decode(apdu)?;
        self.begin("event-notification-request");
        self.date_time("time", notification.time);
        if notification.time_tagged {
            self.warn("time of the event notification is tagged as an octet string");
        }
        self.attribute(&notification.descriptor);
        self.apdus.key("data");
        self.value(notification.value, Some(notification.descriptor), notification.time)
    }

    pub(super) fn begin(&mut self, name: &str) {
        self.apdus.begin('{');
        self.apdus.member_string("apdu", name);
    }

    fn invoke(&mut self, invoke: InvokeIdAndPriority) {
        self.apdus.member_hex("invoke_id_and_priority", &[invoke.0]);
        self.apdus.member_integer("invoke_id", invoke.id());
    }

    pub(super) fn attribute(&mut self, descriptor: &AttributeDescriptor) {
        self.apdus.member_integer("class_id", descriptor.class_id);
        self.apdus.member_string("logical_name", &descriptor.logical_name.to_string());
        self.apdus.member_integer("attribute", descriptor.attribute);
    }

    pub(super) fn method(&mut self, descriptor: &MethodDescriptor) {
        self.apdus.member_integer("class_id", descriptor.class_id);
        self.apdus.member_string("logical_name", &descriptor.logical_name.to_string());
        self.apdus.member_integer("method", descriptor.method);
    }

    fn attributes<'x>(&mut self, items: impl Iterator<Item = AttributeAccess<'x>>) -> Result<(), ProtocolError> {
        self.apdus.key("items");
        self.apdus.begin('[');
        for item in items {
            self.apdus.begin('{');
            self.attribute(&item.descriptor);
            self.selection(item.access)?;
            self.apdus.end();
        }
        self.apdus.end();
        Ok(())
    }

    fn methods(&mut self, methods: impl Iterator<Item = MethodDescriptor>) {
        self.apdus.key("items");
        self.apdus.begin('[');
        for method in methods {
            self.apdus.begin('{');
            self.method(&method);
            self.apdus.end();
        }
        self.apdus.end();
    }

    fn values<'x>(&mut self, values: impl Iterator<Item = &'x [u8]>) -> Result<(), ProtocolError> {
        self.apdus.key("values");
        self.apdus.begin('[');
        for value in values {
            self.quiet_value(value)?;
        }
        self.apdus.end();
        Ok(())
    }

    pub(super) fn selection(&mut self, access: Option<SelectiveAccess<'_>>) -> Result<(), ProtocolError> {
        let Some(access) = access else { return Ok(()) };
        self.apdus.key("selection");
        self.apdus.begin('{');
        self.apdus.member_integer("selector", access.selector);
        self.apdus.key("parameters");
        self.quiet_value(access.parameters)?;
        self.apdus.end();
        Ok(())
    }

    fn data_or_result(
        &mut self,
        result: DataOrResult<'_>,
        descriptor: Option<AttributeDescriptor>,
    ) -> Result<(), ProtocolError> {
        match result {
            DataOrResult::Data(octets) => {
                self.apdus.key("data");
                self.value(octets, descriptor, None)
            }
            DataOrResult::Result(result) => {
                self.access_result(result);
                Ok(())
            }
        }
    }

    fn outcome(&mut self, outcome: MethodOutcome<'_>) -> Result<(), ProtocolError> {
        let name = ActionResult::from_number(outcome.result).map(ActionResult::name);
        self.apdus.member_named("action_result", name, outcome.result);
        match outcome.returned {
            Some(returned) => self.data_or_result(returned, None),
            None => Ok(()),
        }
    }

    pub(super) fn access_result(&mut self, result: u8) {
        let name = DataAccessResult::from_number(result).map(DataAccessResult::name);
        self.apdus.member_named("data_access_result", name, result);
    }

    fn access_results(&mut self, results: impl Iterator<Item = u8>) {
        self.apdus.key("results");
        self.apdus.begin('[');
        for result in results {
            self.apdus.begin('{');
            self.access_result(result);
            self.apdus.end();
        }
        self.apdus.end();
    }

    fn data_block(&mut self, block: DataBlock<'_>) {
        self.apdus.member_boolean("last_block", block.last);
        self.apdus.member_integer("block_number", block.number);
        self.apdus.member_hex("raw_data", block.raw);
    }

    pub(super) fn date_time(&mut self, key: &str, date_time: Option<DateTime>) {
        self.apdus.key(key);
        match date_time {
            Some(date_time) => super::json::date_time(&mut self.apdus, date_time),
            None => self.apdus.null(),
        }
    }

    /// A value that holds no readings of the meter.
    pub(super) fn quiet_value(&mut self, octets: &[u8]) -> Result<(), ProtocolError> {
        self.one_value(octets, None)
    }

    /// A value with whatever readings it holds.
    pub(super) fn value(
        &mut self,
        octets: &[u8],
        descriptor: Option<AttributeDescriptor>,
        capture_time: Option<DateTime>,
    ) -> Result<(), ProtocolError> {
        self.one_value(octets, Some((descriptor, capture_time)))
    }

    /// The value of an attribute once more, with the names of its parts where its class gives any.
    fn name_parts(&mut self, descriptor: AttributeDescriptor, octets: &[u8]) {
        let AttributeDescriptor { class_id, logical_name, attribute } = descriptor;
        if !has_names(class_id, attribute) {
            return;
        }
        self.named = true;
        let out = &mut self.attributes;
        if !out.is_active() {
            return;
        }
        let class = classes::class(class_id);
        out.begin('{');
        out.member_integer("class_id", class_id);
        out.member_string("class", class.map_or("", |class| class.name));
        out.member_string("logical_name", &logical_name.to_string());
        out.member_integer("attribute", attribute);
        let name = class.and_then(|class| class.attribute(attribute)).map_or("", |known| known.name);
        out.member_string("name", name);
        out.key("value");
        // An error in the value is told where the value itself is shown.
        let _ = write_named(class_id, attribute, octets, &self.limits, out);
        out.end_to(0);
    }

    fn one_value(
        &mut self,
        octets: &[u8],
        readings: Option<(Option<AttributeDescriptor>, Option<DateTime>)>,
    ) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let (depth, before) = (self.apdus.depth(), self.apdus.values());
        // A notification's body, which some meters write with untagged descriptors.
        if let Some((Some(descriptor), _)) = readings {
            self.name_parts(descriptor, octets);
        }
        let body = match readings {
            Some((None, _)) => untagged::tagged(octets, &limits).unwrap_or(Cow::Borrowed(octets)),
            _ => Cow::Borrowed(octets),
        };
        if matches!(body, Cow::Owned(_)) {
            self.warn("attribute descriptors in the value are not tagged");
        }
        let mut reader = Reader::new(&body);
        let result = match readings {
            _ if self.apdus.is_active() => walk(&mut reader, &limits, &mut self.apdus),
            Some((descriptor, capture_time)) if self.readings.is_active() => {
                let json = &mut self.readings;
                let mut sink = |found: &Found<'_>| reading(json, found);
                let mut finder = Finder::new(&mut sink, self.companion, capture_time);
                match descriptor {
                    Some(descriptor) => finder.expect(descriptor),
                    None if self.companion.is_some() => {
                        let mut shape = Shape::default();
                        if walk(&mut Reader::new(&body), &limits, &mut shape).is_ok() {
                            finder.lay_out_as(&shape);
                        }
                    }
                    None => {}
                }
                walk(&mut reader, &limits, &mut finder)
            }
            _ => walk(&mut reader, &limits, &mut self.apdus),
        };
        self.apdus.end_to(depth);
        if self.apdus.values() == before {
            self.apdus.null();
        }
        self.readings.end_to(0);
        result.and_then(|()| reader.finish())
    }
}

/// Where one APDU ends and the next begins in a payload that may hold several; the whole if that cannot be told.
pub(crate) fn length(octets: &[u8], limits: &ipss_session::Limits) -> usize {
    let mut reader = Reader::in_layer(octets, "apdu");
    let found = match octets.first() {
        Some(&tags::DATA_NOTIFICATION) => DataNotification::decode(octets).and_then(|notification| {
            let head = octets.len() - notification.body.len();
            let mut body = Reader::new(notification.body);
            skip(&mut body, limits).map(|()| head + body.offset())
        }),
        Some(&(tags::GENERAL_GLO_CIPHERING | tags::GENERAL_DED_CIPHERING)) => {
            reader.u8().and_then(|_| reader.octet_string()).and_then(|_| reader.octet_string()).map(|_| reader.offset())
        }
        Some(&tag) if tags::plain(tag).is_some() || (tags::AARQ..=tags::RLRE).contains(&tag) => {
            reader.u8().and_then(|_| reader.octet_string()).map(|_| reader.offset())
        }
        _ => Ok(octets.len()),
    };
    found.unwrap_or(octets.len())
}

/// An error inside something whose length is known: more octets will not mend it.
pub(super) fn whole(error: ProtocolError) -> ProtocolError {
    match error.code {
        "truncated" => ProtocolError { code: "truncated-inside", ..error },
        _ => error,
    }
}
