//! Data read out as text (IEC 62056-21 mode C, modes A and B alike): a data block and what its lines say.

use ipss_session::{Limits, ProtocolError};

/// One data set: `1-0:1.8.0*255(000123.4*kWh)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLine<'a> {
    /// The identification code, as the meter writes it; empty for further values of the set before.
    pub address: &'a str,
    /// The value as text.
    pub value: &'a str,
    /// The unit as text; empty if there is none.
    pub unit: &'a str,
}

impl DataLine<'_> {
    /// The logical name, where the address has the form `A-B:C.D.E*F`; what is left out is 1-0 and 255 (IEC 62056-6-1).
    pub fn logical_name(&self) -> Option<crate::cosem::LogicalName> {
        let (medium, rest) = match self.address.split_once(':') {
            Some((medium, rest)) => (medium.split_once('-')?, rest),
            None => (("1", "0"), self.address),
        };
        let (rest, previous) = match rest.split_once(['*', '&']) {
            Some((rest, previous)) => (rest, previous),
            None => (rest, "255"),
        };
        let mut groups = rest.split('.');
        let (c, d, e) = (groups.next()?, groups.next()?, groups.next().unwrap_or("255"));
        if groups.next().is_some() {
            return None;
        }
        let number = |text: &str| match text {
            "C" => Some(96),
            "F" => Some(97),
            "L" => Some(98),
            "P" => Some(99),
            text => text.parse::<u8>().ok(),
        };
        let mut name = [0; 6];
        for (place, text) in name.iter_mut().zip([medium.0, medium.1, c, d, e, previous]) {
            *place = number(text)?;
        }
        Some(crate::cosem::LogicalName(name))
    }

    /// The value as an exact integer and the power of ten that it is scaled by; `None` if it is no number.
    pub fn number(&self) -> Option<(i64, i8)> {
        let (whole, fraction) = self.value.split_once('.').unwrap_or((self.value, ""));
        let digits: String = [whole, fraction].concat();
        let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(&digits);
        if unsigned.is_empty() || unsigned.len() > 18 || !unsigned.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        Some((digits.parse().ok()?, -i8::try_from(fraction.len()).ok()?))
    }
}

/// A data block whose check character is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readout<'a> {
    text: &'a str,
}

impl<'a> Readout<'a> {
    /// The data sets, in order. What does not parse is passed over.
    pub fn lines(&self) -> impl Iterator<Item = DataLine<'a>> + use<'a> {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            loop {
                let (before, behind) = rest.split_once('(')?;
                let (content, after) = behind.split_once(')')?;
                rest = after;
                let address = before.rsplit(['\r', '\n', ')']).next().unwrap_or_default().trim();
                if address == "!" || before.contains('!') {
                    return None;
                }
                let (value, unit) = content.split_once('*').unwrap_or((content, ""));
                if address.len() <= LONGEST_ADDRESS {
                    return Some(DataLine { address, value, unit });
                }
            }
        })
    }
}

/// The data block at the front of `octets`: STX, data, ETX (or EOT), check character; and how many octets it takes.
/// `Ok(None)` until it is whole. Parity bits must be cleared.
///
/// # Errors
/// Remote: `bad-bcc`, `no-text`, `length-over-limit`.
pub fn data_block<'a>(octets: &'a [u8], limits: &Limits) -> Result<Option<(Readout<'a>, usize)>, ProtocolError> {
    let Some(start) = octets.iter().position(|octet| *octet == STX) else { return Ok(None) };
    let body = &octets[start + 1..];
    let Some(end) = body.iter().position(|octet| matches!(*octet, ETX | EOT)) else {
        if body.len() > limits.reassembly {
            let message = format!("a data block of more than {} octets", limits.reassembly);
            return Err(ProtocolError::remote("optical", start, "length-over-limit", message));
        }
        return Ok(None);
    };
    let Some(&found) = body.get(end + 1) else { return Ok(None) };
    let wanted = check_character(&body[..=end]);
    if found & 0x7F != wanted {
        let message = format!("check character {found:02X}, {wanted:02X} expected");
        return Err(ProtocolError::remote("optical", start + 1 + end + 1, "bad-bcc", message));
    }
    let text = std::str::from_utf8(&body[..end])
        .map_err(|error| ProtocolError::remote("optical", start + 1 + error.valid_up_to(), "no-text", "not ASCII"))?;
    Ok(Some((Readout { text }, start + 1 + end + 2)))
}

/// The block check character of what follows STX or SOH, end character included: exclusive-or of seven bits each
/// (ISO/IEC 1155).
pub fn check_character(octets: &[u8]) -> u8 {
    octets.iter().fold(0, |check, octet| check ^ octet) & 0x7F
}

/// The programming-mode command that answers a meter's request for its password: P1, as it stands.
pub fn password_command(password: &str) -> Vec<u8> {
    command("P1", &format!("({password})"))
}

/// The programming-mode command that reads one data set: R5 (or R1).
pub fn read_command(address: &str, formatted: bool) -> Vec<u8> {
    command(if formatted { "R5" } else { "R1" }, &format!("{address}()"))
}

fn command(name: &str, data: &str) -> Vec<u8> {
    let mut octets = vec![SOH];
    octets.extend_from_slice(name.as_bytes());
    octets.push(STX);
    octets.extend_from_slice(data.as_bytes());
    octets.push(ETX);
    octets.push(check_character(&octets[1..]));
    octets
}

const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const ETX: u8 = 0x03;
const EOT: u8 = 0x04;
/// Characters of an identification code (IEC 62056-21, "Data set": 16).
const LONGEST_ADDRESS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::LogicalName;

    fn block(text: &str) -> Vec<u8> {
        let mut octets = vec![STX];
        octets.extend_from_slice(text.as_bytes());
        octets.push(ETX);
        octets.push(check_character(&octets[1..]));
        octets
    }

    #[test]
    fn a_readout_gives_names_values_and_units() {
        let octets = block(concat!(
            "F.F(00000000)\r\n0.0.0(12345678)\r\n1.8.0(000123.45*kWh)\r\n1-0:2.8.0*255(-7.5*kWh)\r\n",
            "1.6.0(03.117*kW)(2601171845)\r\n!\r\n"
        ));
        let (readout, taken) = data_block(&octets, &Limits::default()).unwrap().unwrap();
        assert_eq!(taken, octets.len());
        let lines: Vec<DataLine<'_>> = readout.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[2].logical_name(), Some(LogicalName([1, 0, 1, 8, 0, 255])));
        assert_eq!((lines[2].number(), lines[2].unit), (Some((12_345, -2)), "kWh"));
        assert_eq!(
            (lines[3].number(), lines[3].logical_name()),
            (Some((-75, -1)), Some(LogicalName([1, 0, 2, 8, 0, 255])))
        );
        assert_eq!((lines[5].address, lines[5].value), ("", "2601171845"));
        assert_eq!(lines[0].logical_name(), Some(LogicalName([1, 0, 97, 97, 255, 255])));
    }

    #[test]
    fn a_block_is_whole_or_waited_for_and_a_wrong_check_character_shows() {
        let octets = block("1.8.0(1*kWh)\r\n");
        for end in 0..octets.len() {
            assert_eq!(data_block(&octets[..end], &Limits::default()), Ok(None));
        }
        let mut wrong = octets.clone();
        wrong[3] ^= 1;
        assert_eq!(data_block(&wrong, &Limits::default()).unwrap_err().code, "bad-bcc");
        let limits = Limits { reassembly: 10, ..Limits::default() };
        assert_eq!(data_block(&[&[STX][..], &[b'1'; 20]].concat(), &limits).unwrap_err().code, "length-over-limit");
    }

    #[test]
    fn commands_of_programming_mode_carry_their_check_character() {
        // Published in many readers of Elster and Iskra meters.
        assert_eq!(password_command("00000000"), b"\x01P1\x02(00000000)\x03a");
        let read = read_command("1.8.0", true);
        assert_eq!(&read[..4], b"\x01R5\x02");
        assert_eq!(read.last().copied(), Some(check_character(&read[1..read.len() - 1])));
    }
}
