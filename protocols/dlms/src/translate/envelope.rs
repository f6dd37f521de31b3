//! APDUs that others travel in or that open and close associations: ACSE, initiate, ciphering, block transfer, errors.

use ipss_session::ProtocolError;

use super::Pass;
use super::apdu::whole;
use super::keys::{Opening, try_open};
use crate::apdu::acse::{Aare, Aarq, ApplicationContext, Mechanism, Release};
use crate::apdu::ciphered::CipheredApdu;
use crate::apdu::exception::ExceptionResponse;
use crate::apdu::initiate::{ConfirmedServiceError, InitiateRequest, InitiateResponse};
use crate::apdu::tags;
use crate::axdr::Reader;
use crate::security::{Key, SystemTitle};

impl Pass<'_, '_> {
    pub(super) fn aarq(&mut self, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        let aarq = Aarq::decode(apdu)?;
        self.begin("aarq");
        self.context(aarq.application_context);
        self.optional_hex("called_ap_title", aarq.called_ap_title);
        self.optional_hex("calling_ap_title", aarq.calling_ap_title);
        self.optional_hex("calling_ae_qualifier", aarq.calling_ae_qualifier);
        if let Some(id) = aarq.calling_ae_invocation_id {
            self.apdus.member_integer("calling_ae_invocation_id", id);
        }
        self.apdus.member_boolean("sender_acse_requirements", aarq.sender_acse_requirements);
        self.mechanism(aarq.mechanism);
        self.optional_hex("authentication_value", aarq.authentication_value);
        if let Some(title) = aarq.calling_ap_title.and_then(|title| SystemTitle::from_slice(title).ok()) {
            self.session.learnt.client_title = Some(title);
        }
        self.user_information(aarq.user_information, nesting)
    }

    pub(super) fn aare(&mut self, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        let aare = Aare::decode(apdu)?;
        self.begin("aare");
        self.context(aare.application_context);
        self.apdus.member_named("result", aare.result_name(), aare.result);
        self.apdus.member_named("diagnostic", aare.diagnostic.name(), aare.diagnostic.number());
        self.optional_hex("responding_ap_title", aare.responding_ap_title);
        self.optional_hex("responding_ae_qualifier", aare.responding_ae_qualifier);
        if let Some(id) = aare.responding_ae_invocation_id {
            self.apdus.member_integer("responding_ae_invocation_id", id);
        }
        self.apdus.member_boolean("responder_acse_requirements", aare.responder_acse_requirements);
        self.mechanism(aare.mechanism);
        self.optional_hex("authentication_value", aare.authentication_value);
        if let Some(title) = aare.responding_ap_title.and_then(|title| SystemTitle::from_slice(title).ok()) {
            self.session.learnt.server_title = Some(title);
        }
        if aare.result != Aare::ACCEPTED && aare.user_information.is_none() {
            self.warn("the rejecting aare has no user-information");
        }
        self.user_information(aare.user_information, nesting)
    }

    pub(super) fn release(&mut self, tag: u8, name: &str, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        let release = Release::decode(apdu, tag)?;
        self.begin(name);
        if let Some(reason) = release.reason {
            let request = tag == tags::RLRQ;
            let text = match (reason, request) {
                (0, _) => Some("normal"),
                (1, true) => Some("urgent"),
                (1, false) => Some("not-finished"),
                (30, _) => Some("user-defined"),
                _ => None,
            };
            self.apdus.member_named("reason", text, reason);
        }
        self.user_information(release.user_information, nesting)
    }

    pub(super) fn initiate_request(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let request = InitiateRequest::decode(apdu)?;
        self.begin("initiate-request");
        if let Some(key) = request.dedicated_key {
            // A key: said to be there, not shown.
            self.apdus.member_integer("dedicated_key_length", key.len() as u32);
            self.session.learnt.dedicated_key = Key::from_slice(key).ok();
        }
        self.apdus.member_boolean("response_allowed", request.response_allowed);
        self.apdus.member_integer("dlms_version", request.dlms_version);
        self.conformance(request.conformance.names());
        self.apdus.member_integer("max_receive_pdu_size", request.max_receive_pdu_size);
        Ok(())
    }

    pub(super) fn initiate_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let response = InitiateResponse::decode(apdu)?;
        self.begin("initiate-response");
        self.apdus.member_integer("dlms_version", response.dlms_version);
        self.conformance(response.conformance.names());
        self.apdus.member_integer("max_receive_pdu_size", response.max_receive_pdu_size);
        self.apdus.member_hex("vaa_name", &response.vaa_name.to_be_bytes());
        Ok(())
    }

    pub(super) fn confirmed_service_error(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let error = ConfirmedServiceError::decode(apdu)?;
        self.begin("confirmed-service-error");
        self.apdus.member_named("service", error.service_name(), error.service);
        self.apdus.member_named("error_type", error.error_name().map(|(group, _)| group), error.group);
        self.apdus.member_named("error", error.error_name().map(|(_, value)| value), error.value);
        Ok(())
    }

    pub(super) fn exception_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let exception = ExceptionResponse::decode(apdu)?;
        self.begin("exception-response");
        self.apdus.member_named("state_error", exception.state_error_name(), exception.state_error);
        self.apdus.member_named("service_error", exception.service_error_name(), exception.service_error);
        if let Some(counter) = exception.invocation_counter {
            self.apdus.member_integer("invocation_counter", counter);
        }
        Ok(())
    }

    pub(super) fn ciphered(&mut self, name: &str, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        let frame = CipheredApdu::decode(apdu)?;
        self.begin(name);
        if let Some(place) = frame.system_title.clone() {
            self.apdus.member_hex("system_title", &apdu[place]);
        }
        self.apdus.member_hex("security_control", &[frame.security_control.0]);
        self.apdus.member_integer("invocation_counter", frame.invocation_counter);
        match try_open(self.keys, &self.session.learnt, &frame, apdu)? {
            Opening::Protected(why) => {
                self.protected = true;
                self.warn(why);
                Ok(())
            }
            Opening::Opened(plain, remark) => {
                if let Some(remark) = remark {
                    self.warn(remark);
                }
                self.apdus.key("plain");
                match (plain.first(), frame.plain_tag) {
                    // Some meters put a P1 telegram, which is text, into the general form.
                    (Some(b'/'), None) => {
                        self.begin("p1-telegram");
                        self.apdus.key("text");
                        self.apdus.text(&plain);
                        self.apdus.end();
                        Ok(())
                    }
                    (Some(found), Some(wanted)) if *found != wanted => {
                        let message = format!("the plain APDU has tag {found:02X}; {wanted:02X} was announced");
                        self.apdus.null();
                        Err(ProtocolError::remote("ciphering", 0, "unexpected-apdu", message))
                    }
                    _ => self.inner(&plain, nesting),
                }
            }
        }
    }

    /// A general-block-transfer APDU. Blocks are put together and shown with the last one.
    pub(super) fn general_block_transfer(&mut self, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        let mut reader = Reader::in_layer(apdu, "apdu");
        let [_, control] = reader.array()?;
        let (number, acknowledged) = (reader.u16()?, reader.u16()?);
        let block = reader.octet_string()?;
        reader.finish()?;
        let last = control & 0x80 != 0;
        self.begin("general-block-transfer");
        self.apdus.member_boolean("last_block", last);
        self.apdus.member_boolean("streaming", control & 0x40 != 0);
        self.apdus.member_integer("window", control & 0x3F);
        self.apdus.member_integer("block_number", number);
        self.apdus.member_integer("block_number_acknowledged", acknowledged);
        self.apdus.member_integer("length", block.len() as u32);
        let session = &mut self.session;
        if number == 1 && session.general_blocks_seen != 1 {
            session.general_blocks.clear();
            session.general_blocks_seen = 0;
        }
        if number != 0 && number == session.general_blocks_seen {
            self.warn("a block came twice; the second one is left out");
            return Ok(());
        }
        if number != session.general_blocks_seen.wrapping_add(1) {
            self.warn("a block without those before it: its APDU cannot be put together");
            return Ok(());
        }
        session.general_blocks_seen = number;
        session.general_blocks.extend_from_slice(block);
        if !last {
            return Ok(());
        }
        session.general_blocks_seen = 0;
        let whole = std::mem::take(&mut session.general_blocks);
        if whole.is_empty() {
            return Ok(()); // an acknowledgement
        }
        self.apdus.key("plain");
        self.inner(&whole, nesting)
    }

    fn user_information(&mut self, octets: Option<&[u8]>, nesting: usize) -> Result<(), ProtocolError> {
        let Some(octets) = octets else { return Ok(()) };
        self.apdus.key("user_information");
        self.inner(octets, nesting)
    }

    /// An APDU as the value of a member whose key was just written.
    fn inner(&mut self, apdu: &[u8], nesting: usize) -> Result<(), ProtocolError> {
        let before = self.apdus.values();
        let result = self.apdu(apdu, nesting + 1);
        if self.apdus.values() == before {
            self.apdus.null(); // the error came before anything could be shown
        }
        result.map_err(whole)
    }

    fn context(&mut self, context: ApplicationContext) {
        let name = match context {
            ApplicationContext::LogicalName => Some("logical-name-referencing"),
            ApplicationContext::ShortName => Some("short-name-referencing"),
            ApplicationContext::LogicalNameCiphered => Some("logical-name-referencing-with-ciphering"),
            ApplicationContext::ShortNameCiphered => Some("short-name-referencing-with-ciphering"),
            ApplicationContext::Other(_) => None,
        };
        self.apdus.member_named("application_context", name, context.number());
    }

    fn mechanism(&mut self, mechanism: Option<Mechanism>) {
        let Some(mechanism) = mechanism else { return };
        let names = ["lowest", "low", "high", "high-md5", "high-sha1", "high-gmac", "high-sha256", "high-ecdsa"];
        let name = names.get(usize::from(mechanism.number())).copied();
        self.apdus.member_named("mechanism", name, mechanism.number());
    }

    fn conformance(&mut self, names: impl Iterator<Item = &'static str>) {
        self.apdus.key("conformance");
        self.apdus.begin('[');
        for name in names {
            self.apdus.string(name);
        }
        self.apdus.end();
    }

    fn optional_hex(&mut self, key: &str, octets: Option<&[u8]>) {
        if let Some(octets) = octets {
            self.apdus.member_hex(key, octets);
        }
    }
}
