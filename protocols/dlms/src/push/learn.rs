//! Learning a layout: from a push setup's object list, or from a sample whose readings somebody has written beside it.

use ipss_session::{Limits, ProtocolError};

use super::layout::{Column, Layout};
use crate::axdr::{Data, tag};
use crate::axdr::{Reader, Visitor, walk};
use crate::cosem::classes::push_setup::push_object_list;
use crate::cosem::units::scaled;

/// The layout that a push setup's object list (class 40, attribute 2) announces.
///
/// # Errors
/// `type-mismatch`: no object list.
pub fn from_object_list(name: &str, list: &Data) -> Result<Layout, ProtocolError> {
    let objects = push_object_list(list)?;
    let columns = objects.into_iter().map(|object| {
        Some(Column { descriptor: object.descriptor, data_index: object.data_index, scaler: None, unit: None })
    });
    Ok(Layout { name: name.to_owned(), begins: None, columns: columns.collect() })
}

/// The layout of a bare list whose readings are known: each label is a column and the value that a person sees, in the
/// column's unit. Places that no label explains stay without meaning.
///
/// # Errors
/// Local `no-such-value` and `ambiguous`: a label fits no place, or several with different columns before and behind.
pub fn from_sample(
    name: &str,
    body: &[u8],
    labels: &[(Column, String)],
    limits: &Limits,
) -> Result<Layout, ProtocolError> {
    let mut places = Places::default();
    walk(&mut Reader::new(body), limits, &mut places)?;
    let mut columns: Vec<Option<Column>> = vec![None; places.texts.len()];
    let mut from = 0;
    for (column, value) in labels {
        let fits = |(integer, text): &(Option<i128>, String)| match integer {
            Some(integer) => same_number(&scaled(*integer, column.scaler.unwrap_or(0)), value),
            None => text == value,
        };
        let free = |place: &usize| columns[*place].is_none() && fits(&places.texts[*place]);
        // Labels are mostly in the list's order: the next place that fits counts before earlier ones.
        let found = (from..columns.len()).find(free).or_else(|| (0..from).find(free));
        let Some(place) = found else {
            let message = format!("{}: no place of the list has the value {value}", column.text());
            return Err(ProtocolError::local("push", "no-such-value", message));
        };
        columns[place] = Some(column.clone());
        from = place + 1;
    }
    Ok(Layout { name: name.to_owned(), begins: None, columns })
}

/// The layout as a profile has it.
pub fn as_toml(layout: &Layout) -> String {
    let mut text = format!("[[push]]\nname = \"{}\"\n", layout.name.escape_default());
    if let Some(begins) = &layout.begins {
        text += &format!("begins = \"{}\"\n", begins.escape_default());
    }
    text += "columns = [\n";
    for column in &layout.columns {
        text += &format!("    \"{}\",\n", column.as_ref().map_or("-".into(), Column::text));
    }
    text + "]\n"
}

/// Whether two decimal numbers are the same, whatever zeros they are written with.
fn same_number(left: &str, right: &str) -> bool {
    fn parts(text: &str) -> (bool, &str, &str) {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        (negative, whole.trim_start_matches('0'), fraction.trim_end_matches('0'))
    }
    parts(left) == parts(right)
}

/// The elements of the outermost list.
#[derive(Default)]
struct Places {
    depth: usize,
    texts: Vec<(Option<i128>, String)>,
}

impl Visitor for Places {
    fn simple(&mut self, tag: u8, octets: &[u8], _: usize) {
        if self.depth <= 1 {
            let text = match tag {
                tag::OCTET_STRING | tag::VISIBLE_STRING | tag::UTF8_STRING => super::finder::text(octets),
                _ => String::new(),
            };
            self.texts.push((crate::axdr::integer(tag, octets), text));
        }
    }

    fn open(&mut self, _: u8, _: Option<usize>) {
        if self.depth == 1 {
            self.texts.push((None, String::new()));
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::layout::Shape;

    fn column(text: &str) -> Column {
        Column::parse(text).unwrap().unwrap()
    }

    #[test]
    fn an_object_list_is_the_layout_of_its_pushes() {
        let list = Data::Array(
            [(8_u16, [0, 0, 1, 0, 0, 255]), (3, [1, 0, 1, 8, 0, 255])]
                .into_iter()
                .map(|(class, name)| {
                    Data::Structure(vec![
                        Data::LongUnsigned(class),
                        Data::OctetString(name.to_vec()),
                        Data::Integer(2),
                        Data::LongUnsigned(0),
                    ])
                })
                .collect(),
        );

        let layout = from_object_list("list", &list).unwrap();

        assert_eq!(layout.columns, [Some(column("8/0.0.1.0.0.255")), Some(column("3/1.0.1.8.0.255"))]);
        assert_eq!(from_object_list("list", &Data::Boolean(true)).unwrap_err().code, "type-mismatch");
    }

    #[test]
    fn a_labelled_sample_is_a_layout() {
        // Text, 560 W, 230.1 V twice, and a number that nobody explains.
        let body = [2, 5, 9, 3, b'A', b'B', b'C', 6, 0, 0, 2, 48, 18, 8, 253, 18, 8, 253, 17, 9];
        let labels = [
            (column("1/0.0.96.1.0.255"), "ABC".to_owned()),
            (column("3/1.0.1.7.0.255 0 W"), "560".to_owned()),
            (column("3/1.0.32.7.0.255 -1 V"), "230.1".to_owned()),
            (column("3/1.0.52.7.0.255 -1 V"), "230.10".to_owned()),
        ];

        let layout = from_sample("sample", &body, &labels, &Limits::default()).unwrap();

        let expected: Vec<_> = labels.iter().map(|(column, _)| Some(column.clone())).chain([None]).collect();
        assert_eq!(layout.columns, expected);
        let mut shape = Shape::default();
        walk(&mut Reader::new(&body), &Limits::default(), &mut shape).unwrap();
        assert!(layout.fits(&shape));
        assert!(as_toml(&layout).contains("\"3/1.0.32.7.0.255:2 -1 V\",\n"));
        let wrong = [(column("3/1.0.1.7.0.255 1 W"), "560".to_owned())];
        assert_eq!(from_sample("s", &body, &wrong, &Limits::default()).unwrap_err().code, "no-such-value");
    }
}
