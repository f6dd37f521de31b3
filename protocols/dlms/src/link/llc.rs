//! The LLC sublayer in front of an APDU: three octets over HDLC (Green Book, "The LLC sub-layer") and over PLC
//! (IEC 61334-4-32).

use ipss_session::Limits;

/// What a head-end puts in front of an APDU over HDLC.
pub const COMMAND: [u8; 3] = [0xE6, 0xE6, 0x00];
/// What a meter puts in front of an APDU over HDLC.
pub const RESPONSE: [u8; 3] = [0xE6, 0xE7, 0x00];
/// What stands in front of plain APDUs behind PLC concentrators (IEC 61334-4-32).
pub const PLC: [u8; 3] = [0x90, 0x01, 0x01];

/// What is behind an LLC header of either direction, if there is one.
pub fn after(octets: &[u8]) -> Option<&[u8]> {
    octets.strip_prefix(&COMMAND).or_else(|| octets.strip_prefix(&RESPONSE))
}

/// The APDUs in an LLC PDU that was put together: one as a rule; some meters push three in one frame, each behind its
/// own LLC header. An APDU without a header counts as one.
pub fn apdus<'a>(information: &'a [u8], limits: &Limits) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = information;
    let limits = *limits;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let apdu = after(rest).unwrap_or(rest);
        let length = match crate::translate::apdu_length(apdu, &limits) {
            length if apdu.get(length..).and_then(after).is_some() => length,
            _ => apdu.len(),
        };
        rest = &apdu[length..];
        Some(&apdu[..length])
    })
}
