//! Opening, proving and releasing the association (Green Book, "Application association establishment").

use ipss_session::{Context, EventKind, Outcome, ProtocolError, Step, Transport};

use super::{HeadEnd, State, Work};
use crate::apdu::acse::{Aare, Aarq, Diagnostic, Release};
use crate::apdu::action::{self, ActionResponse};
use crate::apdu::ciphered::is_ciphered;
use crate::apdu::initiate::{ConfirmedServiceError, InitiateRequest, InitiateResponse};
use crate::apdu::list::DataOrResult;
use crate::apdu::tags::{self, KeyKind};
use crate::axdr::{Data, tag, write_length};
use crate::cosem::{LogicalName, MethodDescriptor};
use crate::profile::{Authentication, Profile, Referencing};
use crate::security::Key;
use crate::security::hls::{self, Challenges};

/// The method by which both ends exchange their proofs.
const REPLY_TO_HLS: MethodDescriptor =
    MethodDescriptor { class_id: 15, logical_name: LogicalName::CURRENT_ASSOCIATION, method: 1 };

impl HeadEnd {
    /// The connection is open: send the AARQ.
    pub(super) fn associate(&mut self, cx: &mut Context<'_>) -> Step<Work> {
        self.state = State::Associating;
        self.since = cx.now.monotonic;
        self.asking = false;
        self.repetitions = 0;
        self.invoke_id = 0;
        self.end_blocks();
        self.partial_since = None;
        self.link.open(cx.now.monotonic, cx.to_send);
        let mut step = Step::wait(None);
        if let Some(channel) = &mut self.channel {
            channel.begin();
        }
        match self.send_aarq(cx) {
            Ok(()) => step.deadline = self.deadline(),
            Err(_) => self.exhausted(&mut step, cx),
        }
        step
    }

    fn send_aarq(&mut self, cx: &mut Context<'_>) -> Result<(), crate::security::Exhausted> {
        let profile = self.profile.clone();
        let dedicated = profile.dedicated && profile.is_ciphered();
        let dedicated_key = dedicated.then(|| Key::random(profile.suite, cx.random));
        let mut initiate = Vec::with_capacity(64);
        initiate_request(&profile, dedicated_key.as_ref().map(Key::octets)).encode(&mut initiate);
        let mut title = None;
        if let Some(channel) = &mut self.channel {
            title = Some(channel.title().0);
            if profile.is_ciphered() {
                channel
                    .protect(&profile, profile.ciphering, KeyKind::Global, cx.random, &mut initiate, 0)
                    .map_err(|_| crate::security::Exhausted)?;
            }
            if let Some(key) = dedicated_key {
                channel.dedicate(key);
            }
        }
        let challenge = hls::challenge(profile.authentication, cx.random);
        let authentication_value = match profile.authentication {
            Authentication::None => None,
            Authentication::Low => Some(&self.password[..]),
            _ => Some(&challenge[..]),
        };
        let frame = self.link.begin(cx.to_send, profile.client, profile.server);
        let authenticated = profile.authentication != Authentication::None;
        Aarq {
            application_context: profile.application_context(),
            called_ap_title: None,
            calling_ap_title: title.as_ref().filter(|_| profile.needs_titles()).map(|title| &title[..]),
            calling_ae_qualifier: None,
            calling_ae_invocation_id: None,
            sender_acse_requirements: authenticated,
            mechanism: authenticated.then(|| profile.authentication.mechanism()),
            authentication_value,
            user_information: Some(&initiate),
        }
        .encode(cx.to_send);
        let challenges = Challenges { ours: challenge, theirs: Vec::new() };
        self.challenges = profile.authentication.is_high().then(|| Box::new(challenges));
        // An AARQ has some hundred octets; it fits.
        let _ = self.link.finish(cx.to_send, frame, cx.now.monotonic);
        self.note_counters(cx);
        Ok(())
    }

    /// The meter's answer to our AARQ.
    pub(super) fn take_aare(
        &mut self,
        apdu: &mut [u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        match apdu.first() {
            Some(&tags::AARE) => {}
            // Some meters answer so while an old association is open: back off, do not hammer.
            Some(&(tags::EXCEPTION_RESPONSE | tags::CONFIRMED_SERVICE_ERROR)) => {
                return self.take_exception(apdu, step, cx);
            }
            // Some protect their refusal under a key of their own: what it says is lost, that it is one is not.
            Some(tag) if PROTECTED_ERRORS.contains(tag) => {
                let opened = match &mut self.channel {
                    Some(channel) => channel.unprotect(&self.profile, apdu).ok(),
                    None => None,
                };
                if let Some(plain) = opened {
                    return self.take_exception(&apdu[plain.start..plain.end], step, cx);
                }
                let text = "the meter answers the AARQ with an error that cannot be deciphered".to_owned();
                cx.batch.event(self.meter, cx.now.wall, EventKind::ProtocolViolation, 0, text.clone());
                self.abandon(step, Outcome::Interrupted, text);
                return Ok(());
            }
            other => {
                let found = other.copied().unwrap_or_default();
                return Err(violation("unexpected-apdu", format!("tag {found:02X}, expected an AARE (61)")));
            }
        }
        let aare = Aare::decode(apdu)?;
        if aare.result != Aare::ACCEPTED {
            let name = aare.diagnostic.name().unwrap_or("no reason that the standard has");
            let number = aare.diagnostic.number();
            let mut text = format!("the meter refused the association: {name} ({number})");
            // Some say why in the user information, some send none, some send an InitiateResponse all the same.
            if let Some(Ok(error)) = aare.user_information.map(ConfirmedServiceError::decode) {
                let (group, name) = error.error_name().unwrap_or(("error", "unknown"));
                text.push_str(&format!("; {group}: {name}"));
            }
            let kind = EventKind::AssociationRejected;
            cx.batch.event(self.meter, cx.now.wall, kind, i64::from(number), text.clone());
            self.abandon(step, Outcome::AuthenticationFailed, text);
            return Ok(());
        }
        self.check_pinned(&aare)?;
        let challenge = aare.authentication_value.unwrap_or_default().to_vec();
        let information = aare.user_information.map(<[u8]>::to_vec);
        let proofs_follow = aare.diagnostic == Diagnostic::AUTHENTICATION_REQUIRED;
        let response = self.open_initiate(information, cx)?;
        self.conformance = response.conformance.and(self.profile.proposal());
        self.server_max_pdu = response.max_receive_pdu_size;
        if !self.profile.authentication.is_high() {
            if proofs_follow {
                return Err(weaker("the meter asks for proofs, but none are pinned for it"));
            }
            self.up(step, cx);
            return Ok(());
        }
        let Some(mut challenges) = self.challenges.take() else {
            return Err(violation("unexpected-apdu", "an AARE that no challenge waits for".into()));
        };
        challenges.theirs = challenge;
        hls::check_challenge(&self.profile, &challenges.ours, &challenges.theirs)?;
        self.prove(challenges, step, cx)?;
        Ok(())
    }

    /// Compare what the AARE says with what is pinned, before anything of it is used.
    fn check_pinned(&self, aare: &Aare<'_>) -> Result<(), ProtocolError> {
        if aare.application_context != self.profile.application_context() {
            return Err(weaker("the meter answers in another application context than is pinned"));
        }
        let mechanism = self.profile.authentication.mechanism();
        // Without authentication, meters leave the mechanism out or repeat the lowest one.
        if aare.mechanism.is_some_and(|found| found != mechanism) {
            return Err(weaker("the meter answers with another authentication mechanism than is pinned"));
        }
        if !self.password.is_empty() && aare.authentication_value == Some(&self.password) {
            return Err(violation("reflection", "the meter sends the secret back that it should know".into()));
        }
        let Some(channel) = &self.channel else { return Ok(()) };
        match aare.responding_ap_title {
            Some(title) if title == channel.title().0 => {
                Err(ProtocolError::remote("association", 0, "system-title", "the meter claims our own system title"))
            }
            Some(title) if title != channel.peer().0 => Err(ProtocolError::remote(
                "association",
                0,
                "system-title",
                format!("the meter claims another system title than {}, which is provisioned", channel.peer()),
            )),
            Some(_) => Ok(()),
            None if !self.profile.needs_titles() => Ok(()),
            None => Err(ProtocolError::remote("association", 0, "system-title", "the AARE names no system title")),
        }
    }

    /// The InitiateResponse in the AARE's user information, opened as the profile demands.
    fn open_initiate(
        &mut self,
        information: Option<Vec<u8>>,
        cx: &mut Context<'_>,
    ) -> Result<InitiateResponse, ProtocolError> {
        let Some(mut information) = information else {
            return Err(violation("no-initiate-response", "an accepted AARE without user information".into()));
        };
        let mut plain = 0..information.len();
        if let Some(channel) = self.channel.as_mut().filter(|_| self.profile.is_ciphered()) {
            if !information.first().is_some_and(|tag| is_ciphered(*tag)) {
                return Err(weaker("the InitiateResponse is in the clear, but protection is pinned for this meter"));
            }
            let opened = channel.unprotect(&self.profile, &mut information)?;
            self.believed(&opened, cx);
            plain = opened.start..opened.end;
        }
        InitiateResponse::decode(&information[plain])
    }

    /// Send our proof of the meter's challenge.
    fn prove(
        &mut self,
        challenges: Box<Challenges>,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        self.state = State::Proving;
        let proof = match hls::prove(&self.profile, self.channel.as_deref_mut(), &self.password, &challenges) {
            Err(error) if error.code == "counters-exhausted" => {
                self.exhausted(step, cx);
                return Ok(());
            }
            proof => proof?,
        };
        self.challenges = Some(challenges);
        let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
        let start = cx.to_send.len();
        let mut parameters = Vec::with_capacity(proof.len() + 2);
        parameters.push(tag::OCTET_STRING);
        write_length(&mut parameters, proof.len());
        parameters.extend_from_slice(&proof);
        let invoke = self.invoke();
        match self.profile.referencing {
            Referencing::LogicalName => {
                action::encode_request_normal(cx.to_send, invoke, &REPLY_TO_HLS, Some(&parameters));
            }
            Referencing::ShortName => Self::encode_short_proof(cx.to_send, &parameters),
        }
        // The dedicated key comes into use when both have proved who they are.
        if self.send(KeyKind::Global, frame, start, cx).is_err() {
            self.exhausted(step, cx);
        }
        Ok(())
    }

    /// The meter's proof of our challenge.
    pub(super) fn take_proof(
        &mut self,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let (result, returned) = if self.profile.referencing == Referencing::ShortName {
            Self::short_proof(apdu, &limits)?
        } else {
            match ActionResponse::decode(apdu, &limits)? {
                ActionResponse::Normal { outcome, .. } => (outcome.result, outcome.returned),
                _ => return Err(violation("unexpected-answer", "no answer to our HLS proof".into())),
            }
        };
        if result != 0 {
            if self.associate_again(step, cx) {
                return Ok(());
            }
            let text = format!("the meter refused our HLS proof: action-result {result}");
            cx.batch.event(self.meter, cx.now.wall, EventKind::AuthenticationFailed, 0, text.clone());
            self.abandon(step, Outcome::AuthenticationFailed, text);
            return Ok(());
        }
        let proof = match returned {
            Some(DataOrResult::Data(octets)) => Data::from_octets(octets, &self.profile.limits)?,
            _ => Data::Null,
        };
        let proof = proof.as_octets().unwrap_or_default();
        let challenges = self.challenges.take().ok_or_else(|| weaker("a proof that no challenge waits for"))?;
        let before = self.channel.as_ref().map(|channel| channel.peer_counter()).unwrap_or_default();
        let channel = self.channel.as_deref_mut();
        let verified = hls::verify(&self.profile, channel, &self.password, &challenges, proof);
        if verified.is_err() && self.associate_again(step, cx) {
            return Ok(());
        }
        if let Some(counter) = verified? {
            let highest = self.channel.as_ref().and_then(|channel| channel.peer_counter().highest());
            cx.batch.peer_counter(self.meter, counter.max(highest.unwrap_or_default()));
            if before.is_jump(counter) {
                cx.batch.event(self.meter, cx.now.wall, EventKind::CounterJump, i64::from(counter), "");
            }
        }
        self.up(step, cx);
        Ok(())
    }

    /// The association stands: serve the request that waits, if there is one.
    fn up(&mut self, step: &mut Step<Work>, cx: &mut Context<'_>) {
        self.state = State::Up;
        self.asking = false;
        self.repetitions = 0;
        self.since = cx.now.monotonic;
        self.challenges = None;
        cx.batch.event(self.meter, cx.now.wall, EventKind::Associated, 0, "");
        if self.current.is_some() {
            self.ask(step, cx);
        } else {
            step.deadline = self.deadline();
        }
    }

    /// Ask for the association's release; what is in work ends as interrupted.
    pub(super) fn release(&mut self, cx: &mut Context<'_>) -> Step<Work> {
        let mut step = self.settled(0);
        if self.state != State::Up || self.asking {
            self.abandon(&mut step, Outcome::Interrupted, "released");
            return step;
        }
        self.finish(&mut step, Outcome::Interrupted, "released");
        let profile = self.profile.clone();
        if profile.quirks.no_release {
            if self.link.close(cx.now.monotonic, cx.to_send) {
                cx.batch.event(self.meter, cx.now.wall, EventKind::Released, 0, "");
                step.transport = Transport::Close;
                step.deadline = None;
                return step;
            }
            self.state = State::Releasing;
            self.since = cx.now.monotonic;
            step.deadline = self.deadline();
            return step;
        }
        self.state = State::Releasing;
        self.since = cx.now.monotonic;
        let mut information = None;
        if let Some(channel) = self.channel.as_mut().filter(|_| profile.quirks.protected_release) {
            let mut initiate = Vec::with_capacity(64);
            initiate_request(&profile, None).encode(&mut initiate);
            // Without counters the meter gets a release that it may not like.
            let form = profile.ciphering;
            let sealed = channel.protect(&profile, form, KeyKind::Global, cx.random, &mut initiate, 0);
            information = sealed.is_ok().then_some(initiate).filter(|_| profile.is_ciphered());
        }
        let frame = self.link.begin(cx.to_send, profile.client, profile.server);
        Release { reason: Some(0), user_information: information.as_deref() }.encode(cx.to_send, tags::RLRQ);
        let _ = self.link.finish(cx.to_send, frame, cx.now.monotonic);
        step.deadline = self.deadline();
        step
    }
}

fn initiate_request<'k>(profile: &Profile, dedicated_key: Option<&'k [u8]>) -> InitiateRequest<'k> {
    InitiateRequest {
        dedicated_key,
        response_allowed: true,
        quality_of_service: None,
        dlms_version: 6,
        conformance: profile.proposal(),
        max_receive_pdu_size: profile.max_pdu,
    }
}

/// The tags of a confirmed-service-error, protected.
pub(super) const PROTECTED_ERRORS: [u8; 2] = [0x2E, 0x4E];

fn weaker(message: &str) -> ProtocolError {
    ProtocolError::remote("association", 0, "weaker-security", message)
}

fn violation(code: &'static str, message: String) -> ProtocolError {
    ProtocolError::remote("association", 0, code, message)
}
