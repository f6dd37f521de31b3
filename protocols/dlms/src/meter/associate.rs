//! The association, the meter's end: AARQ, proofs, release.

use std::hash::{DefaultHasher, Hasher};

use ipss_session::{Context, EventKind, Limits, ProtocolError};

use super::session::{SERVICE_NOT_ALLOWED, State};
use super::{Meter, Objects};
use crate::apdu::InvokeIdAndPriority;
use crate::apdu::acse::{Aare, Aarq, ApplicationContext, Diagnostic, Mechanism, Release};
use crate::apdu::action::{self, ActionRequest, MethodOutcome};
use crate::apdu::ciphered::CipheredApdu;
use crate::apdu::initiate::{InitiateRequest, InitiateResponse};
use crate::apdu::list::DataOrResult;
use crate::apdu::short_name::{ReadResult, begin_read_response};
use crate::apdu::tags::{self, KeyKind};
use crate::axdr::{Data, tag, write_length};
use crate::cosem::{ActionResult, LogicalName, MethodDescriptor};
use crate::profile::{Authentication, Profile, Referencing};
use crate::security::hls::{self, Challenges};
use crate::security::{Key, SystemTitle};

impl<O: Objects> Meter<O> {
    /// The association's release. Where it is protected, user information that cannot be opened ends nothing.
    pub(super) fn take_release(
        &mut self,
        apdu: &[u8],
        client: u16,
        server: u16,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let mut answer = None;
        let request = Release::decode(apdu, tags::RLRQ)?;
        if let Some(information) = request.user_information.filter(|_| self.profile().is_ciphered()) {
            let settings = self.settings.clone();
            let profile = &settings.clients[self.client];
            if self.channel.unprotect(profile, &mut information.to_vec()).is_err() {
                return self.refuse(client, server, SERVICE_NOT_ALLOWED, cx);
            }
            answer = Some(self.initiate_response(profile, cx)?);
        }
        self.end();
        let frame = self.link.begin(cx.to_send, server, client);
        Release { reason: Some(0), user_information: answer.as_deref() }.encode(cx.to_send, tags::RLRE);
        self.link.finish(cx.to_send, frame, cx.now.monotonic)
    }

    /// The InitiateResponse, protected where the profile is.
    fn initiate_response(&mut self, profile: &Profile, cx: &mut Context<'_>) -> Result<Vec<u8>, ProtocolError> {
        let mut initiate = Vec::with_capacity(64);
        InitiateResponse {
            quality_of_service: None,
            dlms_version: 6,
            conformance: self.conformance,
            max_receive_pdu_size: profile.max_pdu,
            vaa_name: profile.vaa_name(),
        }
        .encode(&mut initiate);
        if profile.is_ciphered() {
            self.channel.protect(profile, self.form, KeyKind::Global, cx.random, &mut initiate, 0)?;
        }
        Ok(initiate)
    }

    pub(super) fn take_aarq(
        &mut self,
        apdu: &mut [u8],
        client: u16,
        server: u16,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let octets = Heard::digest(apdu);
        let aarq = Aarq::decode(apdu)?;
        if self.link.is_lossy() && self.is_late(&aarq, octets) {
            self.pass_over(cx);
            return Ok(());
        }
        self.end();
        let clients = &self.settings.clients;
        let same = |profile: &Profile| (profile.client, profile.server) == (client, server);
        // A client may have a profile with logical names and one with short names.
        let found = clients
            .iter()
            .position(|profile| same(profile) && profile.application_context() == aarq.application_context)
            .or_else(|| clients.iter().position(same));
        let Some(index) = found else {
            return self.reject(client, server, Diagnostic::CALLING_AP_TITLE_NOT_RECOGNIZED, cx);
        };
        self.client = index;
        let settings = self.settings.clone();
        let profile = &settings.clients[index];
        if aarq.application_context != profile.application_context() {
            return self.reject(client, server, Diagnostic::APPLICATION_CONTEXT_NAME_NOT_SUPPORTED, cx);
        }
        if aarq.mechanism.unwrap_or(Mechanism::Lowest) != profile.authentication.mechanism() {
            return self.reject(client, server, Diagnostic::AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED, cx);
        }
        if profile.needs_titles() {
            let Ok(title) = SystemTitle::from_slice(aarq.calling_ap_title.unwrap_or_default()) else {
                return self.reject(client, server, Diagnostic::CALLING_AP_TITLE_NOT_RECOGNIZED, cx);
            };
            if title == self.channel.title() {
                return self.reject(client, server, Diagnostic::CALLING_AP_TITLE_NOT_RECOGNIZED, cx);
            }
            self.channel.meet(title);
        }
        let theirs = aarq.authentication_value.unwrap_or_default().to_vec();
        match profile.authentication {
            Authentication::Low if !bool::from(subtle::ConstantTimeEq::ct_eq(&theirs[..], &self.password[..])) => {
                return self.reject(client, server, Diagnostic::AUTHENTICATION_FAILURE, cx);
            }
            // A challenge of ours does not exist yet: the comparison with it follows when there is one.
            authentication if authentication.is_high() && hls::check_challenge(profile, &[], &theirs).is_err() => {
                return self.reject(client, server, Diagnostic::AUTHENTICATION_FAILURE, cx);
            }
            _ => {}
        }
        self.channel.begin();
        let Some(mut information) = aarq.user_information.map(<[u8]>::to_vec) else {
            return self.reject(client, server, Diagnostic::User(1), cx);
        };
        if settings.log_nonces && profile.is_ciphered() {
            self.note_nonce(&information, cx);
        }
        let mut plain = 0..information.len();
        if profile.is_ciphered() {
            match self.channel.unprotect(profile, &mut information) {
                Ok(opened) => plain = opened.start..opened.end,
                // From a datagram that was late: the ones that overtook it were answered.
                Err(error) if error.code == "replay" && self.link.is_lossy() => return Ok(()),
                Err(_) => return self.reject(client, server, Diagnostic::AUTHENTICATION_FAILURE, cx),
            }
        }
        let request = InitiateRequest::decode(&information[plain])?;
        self.conformance = profile.proposal().and(request.conformance);
        self.client_max_pdu = match request.max_receive_pdu_size {
            0 => usize::from(u16::MAX),
            octets => usize::from(octets),
        };
        let dedicated = request.dedicated_key.map(|key| Key::for_suite(profile.suite, key)).transpose()?;
        self.accept(theirs, cx)?;
        if let Some(key) = dedicated {
            self.channel.dedicate(key);
        }
        Ok(())
    }

    /// Whether a datagram's AARQ is no new one: the network sent it twice, or others overtook it. It must not end the
    /// association that stands. Without fresh octets in it, one is as good as another.
    fn is_late(&mut self, aarq: &Aarq<'_>, digest: u64) -> bool {
        let fresh = aarq.application_context.is_ciphered() || aarq.authentication_value.is_some();
        if fresh && aarq.mechanism != Some(Mechanism::Low) && self.heard.again(digest) {
            return true;
        }
        let Some(information) = aarq.user_information.filter(|_| aarq.application_context.is_ciphered()) else {
            return false;
        };
        // Nothing is proven here: a counter as low as this one would be refused whatever the tag says.
        let known = aarq.calling_ap_title == Some(&self.channel.peer().0[..]);
        let highest = self.channel.peer_counter().highest().filter(|_| known);
        let counter = CipheredApdu::decode(information).map(|frame| frame.invocation_counter);
        highest.zip(counter.ok()).is_some_and(|(highest, counter)| counter <= highest)
    }

    /// Count a datagram that came twice or late, and say nothing to it.
    pub(super) fn pass_over(&self, cx: &mut Context<'_>) {
        let detail = "a datagram that came twice, or behind later ones";
        cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, detail);
    }

    fn accept(&mut self, theirs: Vec<u8>, cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let settings = self.settings.clone();
        let profile = &settings.clients[self.client];
        let initiate = self.initiate_response(profile, cx)?;
        let hls = profile.authentication.is_high();
        let ours = hls::challenge(profile.authentication, cx.random);
        let title = self.channel.title().0;
        let frame = self.link.begin(cx.to_send, profile.server, profile.client);
        Aare {
            application_context: profile.application_context(),
            result: Aare::ACCEPTED,
            diagnostic: if hls { Diagnostic::AUTHENTICATION_REQUIRED } else { Diagnostic::NONE },
            responding_ap_title: profile.needs_titles().then_some(&title[..]),
            responding_ae_qualifier: None,
            responding_ae_invocation_id: None,
            responder_acse_requirements: hls,
            mechanism: hls.then(|| profile.authentication.mechanism()),
            authentication_value: hls.then_some(&ours[..]),
            user_information: Some(&initiate),
        }
        .encode(cx.to_send);
        self.link.finish(cx.to_send, frame, cx.now.monotonic)?;
        self.challenges = hls.then(|| Box::new(Challenges { ours, theirs }));
        self.state = if hls { State::Proving } else { State::Up };
        if !hls {
            cx.batch.event(self.meter, cx.now.wall, EventKind::Associated, i64::from(profile.client), "");
        }
        Ok(())
    }

    fn reject(
        &mut self,
        client: u16,
        server: u16,
        diagnostic: Diagnostic,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let number = i64::from(diagnostic.number());
        cx.batch.event(self.meter, cx.now.wall, EventKind::AssociationRejected, number, "");
        self.state = State::Idle;
        let frame = self.link.begin(cx.to_send, server, client);
        Aare {
            application_context: ApplicationContext::LogicalName,
            result: Aare::REJECTED_PERMANENT,
            diagnostic,
            responding_ap_title: None,
            responding_ae_qualifier: None,
            responding_ae_invocation_id: None,
            responder_acse_requirements: false,
            mechanism: None,
            authentication_value: None,
            user_information: None,
        }
        .encode(cx.to_send);
        self.link.finish(cx.to_send, frame, cx.now.monotonic)
    }

    /// The head-end's proof of our challenge; we answer with ours of its challenge.
    pub(super) fn take_proof(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let limits = Limits::default();
        let (client, server) = (self.profile().client, self.profile().server);
        let asked = apdu.first().copied().unwrap_or_default();
        if self.link.is_lossy() && !matches!(asked, tags::ACTION_REQUEST | tags::READ_REQUEST) {
            self.pass_over(cx);
            return Ok(());
        }
        let challenges = self.challenges.take();
        let short = self.profile().referencing == Referencing::ShortName;
        let (invoke, parameters) = if short {
            let Some(parameters) = super::short_name::proof(apdu, &limits)? else {
                return self.refuse(client, server, SERVICE_NOT_ALLOWED, cx);
            };
            (InvokeIdAndPriority(0), Some(parameters))
        } else {
            match ActionRequest::decode(apdu, &limits)? {
                ActionRequest::Normal { invoke, method, parameters } if method == REPLY_TO_HLS => (invoke, parameters),
                _ => return self.refuse(client, server, SERVICE_NOT_ALLOWED, cx),
            }
        };
        let proof = parameters.map(|octets| Data::from_octets(octets, &limits)).transpose()?.unwrap_or(Data::Null);
        let proof = proof.as_octets().unwrap_or_default();
        let settings = self.settings.clone();
        let profile = &settings.clients[self.client];
        let genuine = challenges.as_ref().is_some_and(|both| {
            both.ours != both.theirs
                && hls::verify(profile, Some(&mut self.channel), &self.password, both, proof).is_ok()
        });
        let mut data = Vec::with_capacity(20);
        if let (true, Some(both)) = (genuine, challenges) {
            let proof = hls::prove(profile, Some(&mut self.channel), &self.password, &both)?;
            data.push(tag::OCTET_STRING);
            write_length(&mut data, proof.len());
            data.extend_from_slice(&proof);
            self.state = State::Up;
            cx.batch.event(self.meter, cx.now.wall, EventKind::Associated, i64::from(client), "");
        } else {
            self.state = State::Idle;
            cx.batch.event(self.meter, cx.now.wall, EventKind::AuthenticationFailed, i64::from(client), "");
        }
        let frame = self.link.begin(cx.to_send, server, client);
        let start = cx.to_send.len();
        let result = if genuine { ActionResult::Success } else { ActionResult::OtherReason } as u8;
        let returned = genuine.then_some(DataOrResult::Data(&data));
        if short {
            begin_read_response(cx.to_send, 1);
            if genuine { ReadResult::Data(&data) } else { ReadResult::Error(result) }.encode(cx.to_send);
        } else {
            action::encode_response_normal(cx.to_send, invoke, MethodOutcome { result, returned });
        }
        self.protect(frame, start, KeyKind::Global, cx)
    }
}

/// The method by which both ends exchange their proofs.
const REPLY_TO_HLS: MethodDescriptor =
    MethodDescriptor { class_id: 15, logical_name: LogicalName::CURRENT_ASSOCIATION, method: 1 };

/// The last AARQs and blocks that came as datagrams, by a digest of their octets.
#[derive(Debug, Default)]
pub(super) struct Heard {
    digests: [u64; 4],
    next: usize,
}

impl Heard {
    fn digest(octets: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(octets);
        hasher.finish() | 1 // 0 stands for none
    }

    /// Whether it is a request for a block, or a block of one, that was heard before: no two of a transfer are alike.
    pub(super) fn is_block_again(&mut self, apdu: &[u8]) -> bool {
        let block = matches!(
            apdu,
            [tags::GET_REQUEST, 2, ..] | [tags::SET_REQUEST, 2 | 3 | 5, ..] | [tags::ACTION_REQUEST, 2 | 4..=6, ..]
        );
        block && self.again(Self::digest(apdu))
    }

    /// Whether it was heard before; from now on it was.
    fn again(&mut self, digest: u64) -> bool {
        let before = self.digests.contains(&digest);
        if !before {
            self.digests[self.next] = digest;
            self.next = (self.next + 1) % self.digests.len();
        }
        before
    }
}
