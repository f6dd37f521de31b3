//! Requests with short names (Green Book, "Read service", "Write service").

use ipss_session::ProtocolError;

use super::Objects;
use super::transfer::{Question, Service, Transfer, value_of};
use super::writing::Piece;
use crate::apdu::initiate::Conformance;
use crate::apdu::list::{AttributeAccess, DataBlock};
use crate::apdu::short_name::{
    ReadResult, Variable, WriteRequest, WriteResult, begin_read_response, decode_read_request, encode_write_response,
};
use crate::apdu::{InvokeIdAndPriority, SelectiveAccess, tags};
use crate::axdr::{Data, Reader, tag, write_length};
use crate::cosem::{ActionResult, AttributeDescriptor, DataAccessResult, LogicalName, Named, ShortNames};

impl Transfer {
    /// Serve a read-request.
    pub(super) fn read<O: Objects>(
        &mut self,
        question: &mut Question<'_, O>,
        apdu: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let limits = question.limits;
        let none = InvokeIdAndPriority(0);
        let variables: Vec<Variable<'_>> = decode_read_request(apdu, &limits)?.iter(&limits).collect();
        match variables[..] {
            [Variable::BlockNumber(number)] => {
                self.next(Service::Read, none, u32::from(number), question.largest, out);
                return Ok(());
            }
            [Variable::ReadBlock { last, number, raw }] => {
                let block = DataBlock { last, number: u32::from(number), raw };
                let first = (number == 1).then_some(&[tags::READ_REQUEST][..]);
                let refuse = |result: DataAccessResult, out: &mut Vec<u8>| {
                    begin_read_response(out, 1);
                    ReadResult::Error(result as u8).encode(out);
                };
                match self.piece(question, first, block) {
                    Piece::More => {
                        begin_read_response(out, 1);
                        ReadResult::BlockNumber(number).encode(out);
                    }
                    Piece::Whole(incoming) => {
                        let whole = [&[tags::READ_REQUEST], &incoming.octets[..]].concat();
                        return self.read(question, &whole, out);
                    }
                    Piece::Wrong => refuse(DataAccessResult::DataBlockNumberInvalid, out),
                    Piece::TooLong => refuse(DataAccessResult::LongGetAborted, out),
                }
                return Ok(());
            }
            _ => {}
        }
        let start = out.len();
        begin_read_response(out, variables.len());
        let first = out.len();
        for variable in &variables {
            let place = out.len();
            out.push(0);
            if let Err(result) = read_one(question, variable, out) {
                out.truncate(place);
                ReadResult::Error(result as u8).encode(out);
            }
        }
        if !question.fits(out.len() - start, Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ) {
            // Of one variable the value alone travels in blocks, of several the list.
            let octets = if variables.len() == 1 { out.split_off(first + 1) } else { out.split_off(start + 1) };
            out.truncate(start);
            self.begin(octets, Service::Read, none, question, out);
        }
        Ok(())
    }

    /// Serve a write-request, confirmed or not.
    pub(super) fn write<O: Objects>(
        &mut self,
        question: &mut Question<'_, O>,
        apdu: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let limits = question.limits;
        let request = WriteRequest::decode(apdu, &limits)?;
        let pairs: Vec<_> = request.variables.iter(&limits).zip(request.values.iter(&limits)).collect();
        if let [(Variable::WriteBlock { last, number }, value)] = pairs[..] {
            let raw = Data::from_octets(value, &limits)?;
            let raw = raw.as_octets().unwrap_or_default();
            let first = (number == 1).then_some(&[tags::WRITE_REQUEST][..]);
            let result = match self.piece(question, first, DataBlock { last, number: u32::from(number), raw }) {
                Piece::More => WriteResult::BlockNumber(number),
                Piece::Whole(incoming) => {
                    let whole = [&[tags::WRITE_REQUEST], &incoming.octets[..]].concat();
                    return self.write(question, &whole, out);
                }
                Piece::Wrong => WriteResult::Error(DataAccessResult::DataBlockNumberInvalid as u8),
                Piece::TooLong => WriteResult::Error(DataAccessResult::LongSetAborted as u8),
            };
            encode_write_response(out, &[result]);
            return Ok(());
        }
        let results: Vec<WriteResult> = pairs
            .into_iter()
            .map(|(variable, value)| match write_one(question, &variable, value) {
                DataAccessResult::Success => WriteResult::Success,
                result => WriteResult::Error(result as u8),
            })
            .collect();
        if request.confirmed {
            encode_write_response(out, &results);
        }
        Ok(())
    }
}

fn read_one<O: Objects>(
    question: &mut Question<'_, O>,
    variable: &Variable<'_>,
    out: &mut Vec<u8>,
) -> Result<(), DataAccessResult> {
    let (name, part) = match *variable {
        Variable::Name(name) => (name, None),
        Variable::Parameterized { name, selector, parameter } => (name, Some((selector, parameter))),
        _ => return Err(DataAccessResult::OtherReason),
    };
    let Some(names) = question.names.clone() else { return Err(DataAccessResult::OtherReason) };
    match name {
        ShortNames::ASSOCIATION => {
            out.extend_from_slice(&[tag::OCTET_STRING, 6]);
            out.extend_from_slice(&LogicalName::CURRENT_ASSOCIATION.0);
            Ok(())
        }
        ShortNames::OBJECT_LIST => {
            names.encode_object_list(out);
            Ok(())
        }
        ShortNames::READ_BY_LOGICAL_NAME => by_logical_name(question, part.map(|(_, parameter)| parameter), out),
        name => match names.resolve(name) {
            Some(Named::Attribute(descriptor)) => {
                let access = part.map(|(selector, parameters)| SelectiveAccess { selector, parameters });
                value_of(question, &AttributeAccess { descriptor, access }, out)
            }
            Some(Named::Method(method)) => {
                let place = out.len();
                let parameters = part.map(|(_, parameter)| parameter);
                match question.objects.act(question.access, method, parameters, question.now, out) {
                    ActionResult::Success => {
                        if out.len() == place {
                            out.push(tag::NULL_DATA);
                        }
                        Ok(())
                    }
                    // The two enumerations have the same numbers for the same things.
                    result => Err(DataAccessResult::from_number(result as u8).unwrap_or(DataAccessResult::OtherReason)),
                }
            }
            None => Err(DataAccessResult::ObjectUndefined),
        },
    }
}

/// read_by_logicalname (Blue Book, "Association SN"): an array of class, logical name and attribute; a value for each.
fn by_logical_name<O: Objects>(
    question: &mut Question<'_, O>,
    parameter: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), DataAccessResult> {
    let wrong = DataAccessResult::TypeUnmatched;
    let wanted = Data::from_octets(parameter.ok_or(wrong)?, &question.limits).map_err(|_| wrong)?;
    let wanted = wanted.elements().ok_or(wrong)?;
    out.push(tag::STRUCTURE);
    write_length(out, wanted.len());
    for element in wanted {
        let descriptor = element.elements().and_then(|parts| match parts {
            [class_id, name, attribute] => Some(AttributeDescriptor {
                class_id: u16::try_from(class_id.as_integer()?).ok()?,
                logical_name: LogicalName(name.as_octets()?.try_into().ok()?),
                attribute: i8::try_from(attribute.as_integer()?).ok()?,
            }),
            _ => None,
        });
        value_of(question, &AttributeAccess { descriptor: descriptor.ok_or(wrong)?, access: None }, out)?;
    }
    Ok(())
}

fn write_one<O: Objects>(question: &mut Question<'_, O>, variable: &Variable<'_>, value: &[u8]) -> DataAccessResult {
    let Variable::Name(name) = *variable else { return DataAccessResult::ScopeOfAccessViolated };
    match question.names.as_ref().and_then(|names| names.resolve(name)) {
        Some(Named::Attribute(descriptor)) => question.objects.set(question.access, descriptor, value, question.now),
        Some(Named::Method(method)) => {
            let result = question.objects.act(question.access, method, Some(value), question.now, &mut Vec::new());
            DataAccessResult::from_number(result as u8).unwrap_or(DataAccessResult::OtherReason)
        }
        None => DataAccessResult::ObjectUndefined,
    }
}

/// The one variable and value of our HLS proof: the method's parameters.
pub(super) fn proof<'a>(apdu: &'a [u8], limits: &ipss_session::Limits) -> Result<Option<&'a [u8]>, ProtocolError> {
    let list = decode_read_request(apdu, limits)?;
    // Walked once more with the octets' own lifetime.
    let mut reader = Reader::in_layer(apdu, "apdu");
    reader.take(2)?;
    if list.len() != 1 || reader.u8()? != 4 || reader.u16()? != ShortNames::REPLY_TO_HLS {
        return Ok(None);
    }
    reader.u8()?;
    Ok(Some(reader.rest()))
}
