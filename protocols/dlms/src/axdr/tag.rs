//! The type octets of COSEM data (Blue Book, "Common data types"; the CHOICE tags of Data in the Green Book).

#![allow(missing_docs)] // each is its name in the standard

pub const NULL_DATA: u8 = 0;
pub const ARRAY: u8 = 1;
pub const STRUCTURE: u8 = 2;
pub const BOOLEAN: u8 = 3;
pub const BIT_STRING: u8 = 4;
pub const DOUBLE_LONG: u8 = 5;
pub const DOUBLE_LONG_UNSIGNED: u8 = 6;
pub const FLOATING_POINT: u8 = 7;
pub const OCTET_STRING: u8 = 9;
pub const VISIBLE_STRING: u8 = 10;
pub const UTF8_STRING: u8 = 12;
pub const BCD: u8 = 13;
pub const INTEGER: u8 = 15;
pub const LONG: u8 = 16;
pub const UNSIGNED: u8 = 17;
pub const LONG_UNSIGNED: u8 = 18;
pub const COMPACT_ARRAY: u8 = 19;
pub const LONG64: u8 = 20;
pub const LONG64_UNSIGNED: u8 = 21;
pub const ENUM: u8 = 22;
pub const FLOAT32: u8 = 23;
pub const FLOAT64: u8 = 24;
pub const DATE_TIME: u8 = 25;
pub const DATE: u8 = 26;
pub const TIME: u8 = 27;
pub const DELTA_INTEGER: u8 = 28;
pub const DELTA_LONG: u8 = 29;
pub const DELTA_DOUBLE_LONG: u8 = 30;
pub const DELTA_UNSIGNED: u8 = 31;
pub const DELTA_LONG_UNSIGNED: u8 = 32;
pub const DELTA_DOUBLE_LONG_UNSIGNED: u8 = 33;
pub const DONT_CARE: u8 = 255;

/// The type's name in the standard, lower case with hyphens.
pub fn name(tag: u8) -> Option<&'static str> {
    Some(match tag {
        NULL_DATA => "null-data",
        ARRAY => "array",
        STRUCTURE => "structure",
        BOOLEAN => "boolean",
        BIT_STRING => "bit-string",
        DOUBLE_LONG => "double-long",
        DOUBLE_LONG_UNSIGNED => "double-long-unsigned",
        FLOATING_POINT => "floating-point",
        OCTET_STRING => "octet-string",
        VISIBLE_STRING => "visible-string",
        UTF8_STRING => "utf8-string",
        BCD => "bcd",
        INTEGER => "integer",
        LONG => "long",
        UNSIGNED => "unsigned",
        LONG_UNSIGNED => "long-unsigned",
        COMPACT_ARRAY => "compact-array",
        LONG64 => "long64",
        LONG64_UNSIGNED => "long64-unsigned",
        ENUM => "enum",
        FLOAT32 => "float32",
        FLOAT64 => "float64",
        DATE_TIME => "date-time",
        DATE => "date",
        TIME => "time",
        DELTA_INTEGER => "delta-integer",
        DELTA_LONG => "delta-long",
        DELTA_DOUBLE_LONG => "delta-double-long",
        DELTA_UNSIGNED => "delta-unsigned",
        DELTA_LONG_UNSIGNED => "delta-long-unsigned",
        DELTA_DOUBLE_LONG_UNSIGNED => "delta-double-long-unsigned",
        DONT_CARE => "dont-care",
        _ => return None,
    })
}

/// How many octets follow the type octet: [`SIZES`]`[tag]` if it is at most 12.
pub(crate) const SIZES: [u8; 256] = {
    let mut sizes = [UNKNOWN; 256];
    let fixed: &[(u8, u8)] = &[
        (NULL_DATA, 0),
        (BOOLEAN, 1),
        (DOUBLE_LONG, 4),
        (DOUBLE_LONG_UNSIGNED, 4),
        (FLOATING_POINT, 4),
        (BCD, 1),
        (INTEGER, 1),
        (LONG, 2),
        (UNSIGNED, 1),
        (LONG_UNSIGNED, 2),
        (LONG64, 8),
        (LONG64_UNSIGNED, 8),
        (ENUM, 1),
        (FLOAT32, 4),
        (FLOAT64, 8),
        (DATE_TIME, 12),
        (DATE, 5),
        (TIME, 4),
        (DELTA_INTEGER, 1),
        (DELTA_LONG, 2),
        (DELTA_DOUBLE_LONG, 4),
        (DELTA_UNSIGNED, 1),
        (DELTA_LONG_UNSIGNED, 2),
        (DELTA_DOUBLE_LONG_UNSIGNED, 4),
        (DONT_CARE, 0),
        (OCTET_STRING, OCTETS),
        (VISIBLE_STRING, OCTETS),
        (UTF8_STRING, OCTETS),
        (BIT_STRING, BITS),
        (ARRAY, ELEMENTS),
        (STRUCTURE, ELEMENTS),
        (COMPACT_ARRAY, COMPACT),
    ];
    let mut index = 0;
    while index < fixed.len() {
        sizes[fixed[index].0 as usize] = fixed[index].1;
        index += 1;
    }
    sizes
};

/// In [`SIZES`]: a length in octets, then the octets.
pub(crate) const OCTETS: u8 = 0xF0;
/// In [`SIZES`]: a length in bits, then the octets that hold them.
pub(crate) const BITS: u8 = 0xF1;
/// In [`SIZES`]: a count, then that many values.
pub(crate) const ELEMENTS: u8 = 0xF2;
/// In [`SIZES`]: a type description, then an octet string.
pub(crate) const COMPACT: u8 = 0xF3;
/// In [`SIZES`]: no such type.
pub(crate) const UNKNOWN: u8 = 0xFF;
