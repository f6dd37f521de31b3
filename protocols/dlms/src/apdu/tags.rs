//! The first octet of every APDU, and its name (Green Book, "COSEM PDUs").

#![allow(missing_docs)] // each is its name in the standard

pub const INITIATE_REQUEST: u8 = 0x01;
pub const READ_REQUEST: u8 = 0x05;
pub const WRITE_REQUEST: u8 = 0x06;
pub const INITIATE_RESPONSE: u8 = 0x08;
pub const READ_RESPONSE: u8 = 0x0C;
pub const WRITE_RESPONSE: u8 = 0x0D;
pub const CONFIRMED_SERVICE_ERROR: u8 = 0x0E;
pub const DATA_NOTIFICATION: u8 = 0x0F;
pub const DATA_NOTIFICATION_CONFIRM: u8 = 0x10;
pub const UNCONFIRMED_WRITE_REQUEST: u8 = 0x16;
pub const INFORMATION_REPORT_REQUEST: u8 = 0x18;
pub const AARQ: u8 = 0x60;
pub const AARE: u8 = 0x61;
pub const RLRQ: u8 = 0x62;
pub const RLRE: u8 = 0x63;
pub const GET_REQUEST: u8 = 0xC0;
pub const SET_REQUEST: u8 = 0xC1;
pub const EVENT_NOTIFICATION_REQUEST: u8 = 0xC2;
pub const ACTION_REQUEST: u8 = 0xC3;
pub const GET_RESPONSE: u8 = 0xC4;
pub const SET_RESPONSE: u8 = 0xC5;
pub const ACTION_RESPONSE: u8 = 0xC7;
pub const EXCEPTION_RESPONSE: u8 = 0xD8;
pub const ACCESS_REQUEST: u8 = 0xD9;
pub const ACCESS_RESPONSE: u8 = 0xDA;
pub const GENERAL_GLO_CIPHERING: u8 = 0xDB;
pub const GENERAL_DED_CIPHERING: u8 = 0xDC;
pub const GENERAL_CIPHERING: u8 = 0xDD;
pub const GENERAL_SIGNING: u8 = 0xDF;
pub const GENERAL_BLOCK_TRANSFER: u8 = 0xE0;

/// Whose key a ciphered APDU uses, as far as its tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The global unicast (or broadcast) key, `glo-`.
    Global,
    /// The association's dedicated key, `ded-`.
    Dedicated,
}

/// The tag under which the APDU with tag `plain` travels service-specifically ciphered.
#[inline]
pub fn ciphered(plain: u8, key: KeyKind) -> Option<u8> {
    let (global, dedicated) = match plain {
        0x01 | 0x05 | 0x06 | 0x08 | 0x0C | 0x0D | 0x0E | 0x16 | 0x18 => (plain + 0x20, plain + 0x40),
        GET_REQUEST..=SET_RESPONSE | ACTION_RESPONSE => (plain + 0x08, plain + 0x10),
        _ => return None,
    };
    Some(match key {
        KeyKind::Global => global,
        KeyKind::Dedicated => dedicated,
    })
}

/// The inverse of [`ciphered`].
#[inline]
pub fn plain(ciphered: u8) -> Option<(u8, KeyKind)> {
    let (plain, key) = match ciphered {
        0x20..0x40 => (ciphered - 0x20, KeyKind::Global),
        0x40..0x60 => (ciphered - 0x40, KeyKind::Dedicated),
        0xC8..0xD0 => (ciphered - 0x08, KeyKind::Global),
        0xD0..0xD8 => (ciphered - 0x10, KeyKind::Dedicated),
        _ => return None,
    };
    // Some numbers between are nobody's.
    self::ciphered(plain, key).filter(|tag| *tag == ciphered).map(|_| (plain, key))
}

/// The APDU's name in the standard, lower case with hyphens; services with choices without them (`get-request`).
pub fn name(tag: u8) -> Option<&'static str> {
    Some(match tag {
        INITIATE_REQUEST => "initiate-request",
        READ_REQUEST => "read-request",
        WRITE_REQUEST => "write-request",
        INITIATE_RESPONSE => "initiate-response",
        READ_RESPONSE => "read-response",
        WRITE_RESPONSE => "write-response",
        CONFIRMED_SERVICE_ERROR => "confirmed-service-error",
        DATA_NOTIFICATION => "data-notification",
        DATA_NOTIFICATION_CONFIRM => "data-notification-confirm",
        UNCONFIRMED_WRITE_REQUEST => "unconfirmed-write-request",
        INFORMATION_REPORT_REQUEST => "information-report-request",
        AARQ => "aarq",
        AARE => "aare",
        RLRQ => "rlrq",
        RLRE => "rlre",
        GET_REQUEST => "get-request",
        SET_REQUEST => "set-request",
        EVENT_NOTIFICATION_REQUEST => "event-notification-request",
        ACTION_REQUEST => "action-request",
        GET_RESPONSE => "get-response",
        SET_RESPONSE => "set-response",
        ACTION_RESPONSE => "action-response",
        EXCEPTION_RESPONSE => "exception-response",
        ACCESS_REQUEST => "access-request",
        ACCESS_RESPONSE => "access-response",
        GENERAL_GLO_CIPHERING => "general-glo-ciphering",
        GENERAL_DED_CIPHERING => "general-ded-ciphering",
        GENERAL_CIPHERING => "general-ciphering",
        GENERAL_SIGNING => "general-signing",
        GENERAL_BLOCK_TRANSFER => "general-block-transfer",
        0x21 => "glo-initiate-request",
        0x25 => "glo-read-request",
        0x26 => "glo-write-request",
        0x28 => "glo-initiate-response",
        0x2C => "glo-read-response",
        0x2D => "glo-write-response",
        0x2E => "glo-confirmed-service-error",
        0x36 => "glo-unconfirmed-write-request",
        0x38 => "glo-information-report-request",
        0x41 => "ded-initiate-request",
        0x45 => "ded-read-request",
        0x46 => "ded-write-request",
        0x48 => "ded-initiate-response",
        0x4C => "ded-read-response",
        0x4D => "ded-write-response",
        0x4E => "ded-confirmed-service-error",
        0x56 => "ded-unconfirmed-write-request",
        0x58 => "ded-information-report-request",
        0xC8 => "glo-get-request",
        0xC9 => "glo-set-request",
        0xCA => "glo-event-notification-request",
        0xCB => "glo-action-request",
        0xCC => "glo-get-response",
        0xCD => "glo-set-response",
        0xCF => "glo-action-response",
        0xD0 => "ded-get-request",
        0xD1 => "ded-set-request",
        0xD2 => "ded-event-notification-request",
        0xD3 => "ded-action-request",
        0xD4 => "ded-get-response",
        0xD5 => "ded-set-response",
        0xD7 => "ded-action-response",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphered_tags_and_plain_ones_are_each_others_inverse() {
        for (plain_tag, global, dedicated) in
            [(0xC0, 0xC8, 0xD0), (0xC4, 0xCC, 0xD4), (0xC7, 0xCF, 0xD7), (0x01, 0x21, 0x41), (0x0E, 0x2E, 0x4E)]
        {
            assert_eq!(ciphered(plain_tag, KeyKind::Global), Some(global));
            assert_eq!(ciphered(plain_tag, KeyKind::Dedicated), Some(dedicated));
        }
        for tag in 0..=255 {
            if let Some((plain_tag, key)) = plain(tag) {
                assert_eq!(ciphered(plain_tag, key), Some(tag));
                let prefix = if key == KeyKind::Global { "glo-" } else { "ded-" };
                assert_eq!(name(tag), Some(&*format!("{prefix}{}", name(plain_tag).unwrap())));
            }
        }
        for tag in [0xC6, 0xCE, 0xD6, 0xD8, 0xDB, 0x0F, 0x2F, 0x60] {
            assert_eq!(plain(tag), None, "{tag:02X}");
        }
    }
}
