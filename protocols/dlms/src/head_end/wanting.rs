//! What a session needs beside its profile.

use crate::profile::{Authentication, Ciphering, KeyForm, Profile};
use crate::security::Channel;

/// What is wanting for this profile, if anything.
pub(super) fn wanting(profile: &Profile, channel: Option<&Channel>, password: &[u8]) -> Option<&'static str> {
    let authentication = profile.authentication;
    let credentials = channel.and_then(Channel::credentials);
    if profile.needs_titles() && channel.is_none() {
        return Some("the profile has ciphering or a mechanism with system titles, but no keys and titles were given");
    }
    if let Some(channel) = channel {
        if channel.title() == channel.peer() {
            return Some("the meter's system title is the head-end's own");
        }
        if profile.needs_keys() && !channel.is_keyed() {
            return Some("the profile has ciphering or HLS-GMAC, but no keys were given");
        }
        if profile.needs_keys() && channel.suite() != profile.suite {
            return Some("the keys are of another security suite than the profile");
        }
    }
    if authentication == Authentication::HlsVendor && profile.vendor.is_none() {
        return Some("mechanism 2 is a manufacturer's own procedure, and none was given");
    }
    if authentication.is_high() && authentication.needs_secret() && password.is_empty() {
        return Some("the authentication mechanism needs a secret, and none was given");
    }
    let signs = credentials.is_some_and(|both| both.signing.is_some() && both.peer_signing.is_some());
    let agrees = credentials.is_some_and(|both| both.agreement.is_some() && both.peer_agreement.is_some());
    let one_pass = profile.ciphering == Ciphering::GeneralCiphering(KeyForm::OnePass);
    if (authentication == Authentication::HlsEcdsa || profile.signing || one_pass) && !signs {
        return Some("signatures need our private key and the meter's public key for them");
    }
    if (one_pass || profile.ciphering == Ciphering::GeneralCiphering(KeyForm::StaticUnified)) && !agrees {
        return Some("key agreement needs our private key and the meter's public key for it");
    }
    let master = credentials.is_some_and(|both| both.master.is_some());
    if profile.ciphering == Ciphering::GeneralCiphering(KeyForm::Wrapped) && !master {
        return Some("wrapped keys need the meter's master key");
    }
    None
}
