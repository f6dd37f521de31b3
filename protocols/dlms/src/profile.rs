//! What is pinned of a meter: how it is addressed, how both ends prove who they are, how APDUs are protected.
//!
//! The profile is policy; what the peer sends is input. An association that turns out weaker than, or different from,
//! its profile is ended before any of its data is used. Meters of one model share one profile.

use std::sync::Arc;
use std::time::Duration;

use ipss_session::{Limits, ProtocolError};

use crate::apdu::SelectionOptions;
use crate::apdu::acse::{ApplicationContext, Mechanism};
use crate::apdu::initiate::{Conformance, InitiateResponse};
use crate::quirks::{QUIRKS, QuirkValue, Quirks};
use crate::security::{Protection, Suite, SystemTitle, VendorMechanism};

/// How both ends prove who they are (Green Book, "Authentication mechanisms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// Mechanism 0: they do not.
    None,
    /// Mechanism 1: a password in the clear.
    Low,
    /// Mechanism 2: a manufacturer's own procedure ([`VendorMechanism`]).
    HlsVendor,
    /// Mechanism 3: MD5 of challenge and secret.
    HlsMd5,
    /// Mechanism 4: SHA-1 of challenge and secret.
    HlsSha1,
    /// Mechanism 5: GMAC of each other's challenge.
    HlsGmac,
    /// Mechanism 6: SHA-256 of secret, titles and challenges.
    HlsSha256,
    /// Mechanism 7: ECDSA signatures of titles and challenges.
    HlsEcdsa,
}

impl Authentication {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Low,
        Self::HlsVendor,
        Self::HlsMd5,
        Self::HlsSha1,
        Self::HlsGmac,
        Self::HlsSha256,
        Self::HlsEcdsa,
    ];

    /// The mechanism.
    pub fn mechanism(self) -> Mechanism {
        Mechanism::from_number(self as u8)
    }

    /// Whether both ends answer each other's challenge.
    pub fn is_high(self) -> bool {
        !matches!(self, Self::None | Self::Low)
    }

    /// Whether it hangs on a password or secret that both ends know.
    pub fn needs_secret(self) -> bool {
        matches!(self, Self::Low | Self::HlsVendor | Self::HlsMd5 | Self::HlsSha1 | Self::HlsSha256)
    }

    /// As configuration and command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::HlsVendor => "hls2",
            Self::HlsMd5 => "hls-md5",
            Self::HlsSha1 => "hls-sha1",
            Self::HlsGmac => "hls-gmac",
            Self::HlsSha256 => "hls-sha256",
            Self::HlsEcdsa => "hls-ecdsa",
        }
    }
}

/// The APDUs that carry protected ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ciphering {
    /// Service-specific: glo-get-request and its kin, ded-get-request under a dedicated key.
    ServiceSpecific,
    /// general-glo-ciphering, general-ded-ciphering under a dedicated key.
    General,
    /// general-ciphering, each APDU under the key that it names. What initiates the association travels
    /// service-specifically all the same.
    GeneralCiphering(KeyForm),
}

/// The key of a general-ciphering APDU (Green Book, "Key information").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyForm {
    /// The global unicast key, named.
    Identified,
    /// A fresh key, wrapped under the master key.
    Wrapped,
    /// Agreed by one-pass Diffie-Hellman, C(1e, 1s): fresh, from a signed ephemeral key.
    OnePass,
    /// Agreed by the static unified model, C(0e, 2s): from both ends' lasting keys and the transaction-id.
    StaticUnified,
}

/// The pinned profile of a meter's association.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The head-end's service access point (16: public client).
    pub client: u16,
    /// The meter's service access point (1: management logical device).
    pub server: u16,
    /// How both ends prove who they are.
    pub authentication: Authentication,
    /// The procedure of mechanism 2; without one it is refused.
    pub vendor: Option<Arc<dyn VendorMechanism>>,
    /// Octets of the shortest challenge accepted. Below 16, a table of proofs could be built: only for a model that
    /// was signed off, and never below 8 (Green Book). Mechanism 7 has 32 whatever stands here.
    pub shortest_challenge: u8,
    /// The security suite.
    pub suite: Suite,
    /// Whether the meter may compress. It is understood, but not undone: such an APDU is refused either way, with
    /// another reason.
    pub compression: bool,
    /// How every APDU is protected; other than none makes it a ciphered context.
    pub protection: Protection,
    /// In which APDUs.
    pub ciphering: Ciphering,
    /// Whether every protected APDU is signed as well (general-signing), but for what initiates the association.
    pub signing: bool,
    /// Whether each association gets a fresh dedicated key.
    pub dedicated: bool,
    /// The head-end's own system title.
    pub client_title: SystemTitle,
    /// What the head-end proposes; the meter may only take away from it.
    pub conformance: Conformance,
    /// The largest APDU that the head-end takes, in octets, proposed to the meter.
    pub max_pdu: u16,
    /// Attributes asked in one GET with-list, 0 or 1 for none.
    pub with_list: u16,
    /// How the ends of a range are written.
    pub selection: SelectionOptions,
    /// Send a sign of life after this long without an exchange.
    pub heartbeat: Duration,
    /// What the meter may make us hold and wait.
    pub limits: Limits,
    /// How objects are named on the wire.
    pub referencing: Referencing,
    /// Other meters are spoken to over the same connection: what comes from their addresses is passed over.
    pub shared: bool,
    /// What meters of this model do in their own way.
    pub quirks: Quirks,
}

/// How objects are named on the wire (Green Book, "Logical name and short name referencing").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Referencing {
    /// By class, logical name and attribute: GET, SET, ACTION, ACCESS.
    #[default]
    LogicalName,
    /// By short names, 16 bits for an attribute or method: read, write.
    ShortName,
}

/// What this implementation can do with short names.
const PROPOSED_SHORT: Conformance = Conformance::GENERAL_PROTECTION
    .with(Conformance::GENERAL_BLOCK_TRANSFER)
    .with(Conformance::READ)
    .with(Conformance::WRITE)
    .with(Conformance::UNCONFIRMED_WRITE)
    .with(Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ)
    .with(Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE)
    .with(Conformance::MULTIPLE_REFERENCES)
    .with(Conformance::INFORMATION_REPORT)
    .with(Conformance::DATA_NOTIFICATION)
    .with(Conformance::PARAMETERIZED_ACCESS);

/// What this implementation can do, by logical names.
const PROPOSED: Conformance = Conformance::GENERAL_PROTECTION
    .with(Conformance::PRIORITY_MGMT_SUPPORTED)
    .with(Conformance::GENERAL_BLOCK_TRANSFER)
    .with(Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ)
    .with(Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE)
    .with(Conformance::BLOCK_TRANSFER_WITH_ACTION)
    .with(Conformance::MULTIPLE_REFERENCES)
    .with(Conformance::DATA_NOTIFICATION)
    .with(Conformance::EVENT_NOTIFICATION)
    .with(Conformance::ACCESS)
    .with(Conformance::GET)
    .with(Conformance::SET)
    .with(Conformance::SELECTIVE_ACCESS)
    .with(Conformance::ACTION);

impl Profile {
    /// The public client's profile: no authentication, no protection, addresses 16 and 1.
    pub fn public() -> Self {
        Self {
            client: 16,
            server: 1,
            authentication: Authentication::None,
            vendor: None,
            shortest_challenge: 16,
            suite: Suite::Zero,
            compression: false,
            protection: Protection::None,
            ciphering: Ciphering::ServiceSpecific,
            signing: false,
            dedicated: false,
            client_title: SystemTitle::default(),
            conformance: PROPOSED,
            max_pdu: 65_535,
            with_list: 16,
            selection: SelectionOptions::default(),
            // Networks drop idle TCP connections after 10 to 15 minutes, some earlier.
            heartbeat: Duration::from_secs(480),
            limits: Limits::default(),
            referencing: Referencing::LogicalName,
            shared: false,
            quirks: Quirks::default(),
        }
    }

    /// Set a quirk by its name (see [`crate::quirks::QUIRKS`]), as data files have it.
    ///
    /// # Errors
    /// Local, `unknown-quirk`, `bad-quirk`: no such name, or a value that it cannot have.
    pub fn set_quirk(&mut self, name: &str, value: QuirkValue<'_>) -> Result<(), ProtocolError> {
        use QuirkValue::{Flag, Number, Word};
        let known = QUIRKS.iter().find(|quirk| quirk.name == name);
        let Some(known) = known else {
            return Err(ProtocolError::local("profile", "unknown-quirk", format!("no quirk is called {name}")));
        };
        match (name, value) {
            ("with_list_limit", Number(limit @ 0..=65_535)) => self.with_list = limit as u16,
            ("short_challenge_allowed", Flag(allowed)) => self.shortest_challenge = if allowed { 8 } else { 16 },
            ("compression_allowed", Flag(allowed)) => self.compression = allowed,
            ("deviation_in_ranges", Word(word @ ("set" | "unset"))) => self.selection.send_deviation = word == "set",
            ("day_of_week_in_ranges", Word(word @ ("set" | "unset"))) => {
                self.selection.send_day_of_week = word == "set";
            }
            ("range_date", Word(word @ ("octet-string" | "date-time"))) => {
                self.selection.date_time_type = word == "date-time";
            }
            _ if self.quirks.set(name, value) => {}
            _ => {
                let message = format!("{name} cannot be {value:?}; it is one of {}", known.values);
                return Err(ProtocolError::local("profile", "bad-quirk", message));
            }
        }
        Ok(())
    }

    /// The same with short names, and the services that belong to them.
    #[must_use]
    pub fn with_short_names(self) -> Self {
        Self { referencing: Referencing::ShortName, conformance: PROPOSED_SHORT, ..self }
    }

    /// What is proposed to the meter.
    pub fn proposal(&self) -> Conformance {
        if self.quirks.general_block_transfer {
            self.conformance
        } else {
            self.conformance.without(Conformance::GENERAL_BLOCK_TRANSFER)
        }
    }

    /// The name of the virtual application association, which tells the referencing.
    pub fn vaa_name(&self) -> u16 {
        match self.referencing {
            Referencing::LogicalName => InitiateResponse::VAA_NAME_LN,
            Referencing::ShortName => InitiateResponse::VAA_NAME_SN,
        }
    }

    /// Whether the application context is one with ciphering.
    pub fn is_ciphered(&self) -> bool {
        self.protection != Protection::None
    }

    /// The application context.
    pub fn application_context(&self) -> ApplicationContext {
        match (self.referencing, self.is_ciphered()) {
            (Referencing::LogicalName, false) => ApplicationContext::LogicalName,
            (Referencing::LogicalName, true) => ApplicationContext::LogicalNameCiphered,
            (Referencing::ShortName, false) => ApplicationContext::ShortName,
            (Referencing::ShortName, true) => ApplicationContext::ShortNameCiphered,
        }
    }

    /// Octets that protection adds around an APDU, at most.
    pub fn overhead(&self) -> usize {
        let coordinate = self.suite.coordinate_octets().unwrap_or_default();
        // Tag, lengths, titles and transaction-id of the general forms.
        let signing = if self.signing { 40 + 2 * coordinate } else { 0 };
        let ciphering = match self.ciphering {
            Ciphering::ServiceSpecific | Ciphering::General => 16,
            Ciphering::GeneralCiphering(KeyForm::OnePass) => 48 + 4 * coordinate,
            Ciphering::GeneralCiphering(_) => 48 + self.suite.key_octets() + 8,
        };
        self.protection.overhead() + ciphering + signing
    }

    /// Whether symmetric keys, and with them both ends' titles, are needed.
    pub fn needs_keys(&self) -> bool {
        self.is_ciphered() || self.authentication == Authentication::HlsGmac
    }

    /// Whether both ends' system titles are needed.
    pub fn needs_titles(&self) -> bool {
        self.needs_keys() || matches!(self.authentication, Authentication::HlsSha256 | Authentication::HlsEcdsa)
    }
}
