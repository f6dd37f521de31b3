//! What meters of one model do in their own way: named switches and limits, set from data files by name.
//!
//! Each stands for something that real meters do and others must not be forgiven. The defaults are the standard's way.

/// The switches and limits of one model of meters. `with_list_limit`, `deviation_in_ranges`, `range_date`,
/// `day_of_week_in_ranges`, `short_challenge_allowed` and `compression_allowed` have names here too, and live in
/// [`crate::profile::Profile`]: see [`QUIRKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches, each named in data files")]
pub struct Quirks {
    /// Several attributes may be asked for at once. Some meters negotiate it and answer garbage behind the first item.
    pub with_list_allowed: bool,
    /// Octets of the largest APDU to send, whatever the meter says it takes; 0 for what it says.
    pub max_pdu: u16,
    /// Which selective access to a profile's buffer the meter serves.
    pub selective_access: SelectiveAccessSupport,
    /// Columns of a profile may be selected.
    pub column_selection: bool,
    /// The block numbers of a transfer go on from those of the one before, in place of beginning at 1.
    pub block_number_continues: bool,
    /// An answer in the clear to a protected question is taken. Loses what protection gives; sign it off.
    pub plain_response_allowed: bool,
    /// Attribute descriptors stand inside structures without a type (EGD, Sagemcom XT211).
    pub accept_untagged_descriptors: bool,
    /// The deviation is what to take away from local time to get UTC, against the standard's sign.
    pub deviation_reversed: bool,
    /// A time without deviation is in standard time all the year.
    pub standard_time_all_year: bool,
    /// float32 and float64 have their octets the wrong way round.
    pub floats_swapped: bool,
    /// The security control octet of a push names any suite.
    pub suite_number_ignored: bool,
    /// General block transfer may be proposed.
    pub general_block_transfer: bool,
    /// Blocks of a general block transfer that we take before we acknowledge them, 1 to 63.
    pub block_window: u8,
    /// The association is not released, the connection just closed.
    pub no_release: bool,
    /// The release carries a protected InitiateRequest, without which the meter does not release.
    pub protected_release: bool,
    /// Least milliseconds from an answer to the next question.
    pub request_gap_ms: u16,
    /// Alarms come without wrapper header, in the clear (DSMR 4, SMR 5). They are kept as events and prove nothing.
    pub plain_alarms: bool,
    /// The wired M-Bus length field counts modulo 256 (Sagemcom T210-D).
    pub mbus_length_wraps: bool,
}

/// Which selective access to buffers a meter serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SelectiveAccessSupport {
    /// By range and by entry.
    Both,
    /// By range only.
    Range,
    /// By entry only.
    Entry,
    /// None: buffers come whole.
    None,
}

/// A quirk's value, as data files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuirkValue<'a> {
    /// A switch.
    Flag(bool),
    /// A limit.
    Number(u32),
    /// One of a few words.
    Word(&'a str),
}

/// A quirk's name, what its value is, and what it stands for.
#[derive(Clone, Copy, Debug)]
pub struct QuirkName {
    /// The name in data files.
    pub name: &'static str,
    /// What its value is: `true, false`, a range of numbers, or the words it may be.
    pub values: &'static str,
    /// What it stands for.
    pub meaning: &'static str,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            with_list_allowed: true,
            max_pdu: 0,
            selective_access: SelectiveAccessSupport::Both,
            column_selection: true,
            block_number_continues: false,
            plain_response_allowed: false,
            accept_untagged_descriptors: false,
            deviation_reversed: false,
            standard_time_all_year: false,
            floats_swapped: false,
            suite_number_ignored: false,
            general_block_transfer: true,
            block_window: 8,
            no_release: false,
            protected_release: false,
            request_gap_ms: 0,
            plain_alarms: false,
            mbus_length_wraps: false,
        }
    }
}

impl Quirks {
    /// Set a quirk of this struct by its name; false for a name that is not one of its fields, or a value that it
    /// cannot have.
    pub fn set(&mut self, name: &str, value: QuirkValue<'_>) -> bool {
        use QuirkValue::{Flag, Number, Word};
        let flag = match name {
            "with_list_allowed" => &mut self.with_list_allowed,
            "column_selection" => &mut self.column_selection,
            "block_number_continues" => &mut self.block_number_continues,
            "plain_response_allowed" => &mut self.plain_response_allowed,
            "accept_untagged_descriptors" => &mut self.accept_untagged_descriptors,
            "deviation_reversed" => &mut self.deviation_reversed,
            "standard_time_all_year" => &mut self.standard_time_all_year,
            "floats_swapped" => &mut self.floats_swapped,
            "suite_number_ignored" => &mut self.suite_number_ignored,
            "general_block_transfer" => &mut self.general_block_transfer,
            "no_release" => &mut self.no_release,
            "protected_release" => &mut self.protected_release,
            "plain_alarms" => &mut self.plain_alarms,
            "mbus_length_wraps" => &mut self.mbus_length_wraps,
            _ => {
                match (name, value) {
                    ("max_pdu", Number(octets @ (0 | 64..=65_535))) => self.max_pdu = octets as u16,
                    ("block_window", Number(blocks @ 1..=63)) => self.block_window = blocks as u8,
                    ("request_gap_ms", Number(gap @ 0..=60_000)) => self.request_gap_ms = gap as u16,
                    ("selective_access", Word(word)) => match SelectiveAccessSupport::from_name(word) {
                        Some(support) => self.selective_access = support,
                        None => return false,
                    },
                    _ => return false,
                }
                return true;
            }
        };
        let Flag(set) = value else { return false };
        *flag = set;
        true
    }
}

impl SelectiveAccessSupport {
    /// By its name in data files.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "both" => Self::Both,
            "range" => Self::Range,
            "entry" => Self::Entry,
            "none" => Self::None,
            _ => return None,
        })
    }

    /// Whether ranges are served.
    pub fn has_range(self) -> bool {
        matches!(self, Self::Both | Self::Range)
    }

    /// Whether entries are served.
    pub fn has_entry(self) -> bool {
        matches!(self, Self::Both | Self::Entry)
    }
}

const SWITCH: &str = "true, false";

const fn quirk(name: &'static str, values: &'static str, meaning: &'static str) -> QuirkName {
    QuirkName { name, values, meaning }
}

/// Every quirk that [`crate::profile::Profile::set_quirk`] knows.
pub const QUIRKS: &[QuirkName] = &[
    quirk("with_list_allowed", SWITCH, "several attributes in one question"),
    quirk("with_list_limit", "0 to 65535", "attributes in one question, 0 or 1 for none"),
    quirk("max_pdu", "0, 64 to 65535", "octets of the largest APDU to send, 0 for what the meter says"),
    quirk("selective_access", "both, range, entry, none", "selective access to profile buffers"),
    quirk("column_selection", SWITCH, "columns of a profile may be selected"),
    quirk("deviation_in_ranges", "set, unset", "whether moments of a range have a deviation"),
    quirk("range_date", "octet-string, date-time", "how moments of a range are written"),
    quirk("day_of_week_in_ranges", "set, unset", "whether moments of a range have a day of the week"),
    quirk("block_number_continues", SWITCH, "block numbers do not begin at 1 again"),
    quirk("plain_response_allowed", SWITCH, "answers in the clear to protected questions"),
    quirk("short_challenge_allowed", SWITCH, "HLS challenges of 8 to 15 octets"),
    quirk("compression_allowed", SWITCH, "APDUs may be compressed"),
    quirk("accept_untagged_descriptors", SWITCH, "attribute descriptors without a type inside structures"),
    quirk("deviation_reversed", SWITCH, "deviation with the opposite sign"),
    quirk("standard_time_all_year", SWITCH, "times without deviation are in standard time"),
    quirk("floats_swapped", SWITCH, "octets of floats the wrong way round"),
    quirk("suite_number_ignored", SWITCH, "pushes name any security suite"),
    quirk("general_block_transfer", SWITCH, "general block transfer may be proposed"),
    quirk("block_window", "1 to 63", "blocks of a general block transfer in one window"),
    quirk("no_release", SWITCH, "close without releasing"),
    quirk("protected_release", SWITCH, "release with protected user information"),
    quirk("request_gap_ms", "0 to 60000", "least time from an answer to the next question"),
    quirk("plain_alarms", SWITCH, "alarms in the clear without a wrapper header, kept as events"),
    quirk("mbus_length_wraps", SWITCH, "wired M-Bus length modulo 256"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn every_named_quirk_can_be_set_and_nothing_else() {
        for quirk in QUIRKS {
            let mut profile = Profile::public();
            let values: Vec<QuirkValue<'_>> = match quirk.values {
                SWITCH => vec![QuirkValue::Flag(true), QuirkValue::Flag(false)],
                "1 to 63" => vec![QuirkValue::Number(1), QuirkValue::Number(63)],
                numbers if numbers.starts_with('0') => vec![QuirkValue::Number(0), QuirkValue::Number(64)],
                words => words.split(", ").map(QuirkValue::Word).collect(),
            };
            for value in values {
                assert!(profile.set_quirk(quirk.name, value).is_ok(), "{} = {value:?}", quirk.name);
            }
            assert!(profile.set_quirk(quirk.name, QuirkValue::Word("nonsense")).is_err(), "{}", quirk.name);
        }
        assert!(Profile::public().set_quirk("nonsense", QuirkValue::Flag(true)).is_err());
    }

    #[test]
    fn set_quirks_are_found_where_they_are_used() {
        let mut profile = Profile::public();

        profile.set_quirk("with_list_limit", QuirkValue::Number(3)).unwrap();
        profile.set_quirk("deviation_in_ranges", QuirkValue::Word("unset")).unwrap();
        profile.set_quirk("range_date", QuirkValue::Word("date-time")).unwrap();
        profile.set_quirk("selective_access", QuirkValue::Word("entry")).unwrap();

        assert_eq!((profile.with_list, profile.selection.send_deviation), (3, false));
        assert!(profile.selection.date_time_type && !profile.quirks.selective_access.has_range());
    }
}
