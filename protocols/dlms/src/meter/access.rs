//! Lists of reads, writes and invocations (Green Book, "ACCESS service").

use ipss_session::ProtocolError;

use super::Objects;
use super::transfer::{Question, value_of};
use crate::apdu::access::{self, AccessRequest, AccessResult, AccessSpecification};
use crate::apdu::list::AttributeAccess;
use crate::apdu::{LongInvokeId, SelectionOptions};
use crate::axdr::DateTime;
use crate::cosem::{ActionResult, DataAccessResult};

/// Serve an access-request.
///
/// # Errors
/// Remote: the request is broken.
pub(super) fn answer<O: Objects>(
    question: &mut Question<'_, O>,
    apdu: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let limits = question.limits;
    let request = AccessRequest::decode(apdu, &limits)?;
    let mut values = Vec::new();
    let mut results = Vec::with_capacity(request.specifications.len());
    let mut described = Vec::new();
    let mut broken_off = false;
    for (specification, value) in request.specifications.iter(&limits).zip(request.values.iter(&limits)) {
        let place = values.len();
        let (choice, result) = match specification {
            AccessSpecification::Get(descriptor, part) => {
                let item = AttributeAccess { descriptor, access: part };
                let done = if broken_off {
                    Err(DataAccessResult::OtherReason)
                } else {
                    value_of(question, &item, &mut values)
                };
                access::encode_get(&mut described, &descriptor, None, &SelectionOptions::default());
                (1, done.map_or_else(|result| result as u8, |()| 0))
            }
            AccessSpecification::Set(descriptor, part) => {
                access::encode_set(&mut described, &descriptor);
                let result = match part {
                    _ if broken_off => DataAccessResult::OtherReason,
                    None => question.objects.set(question.access, descriptor, value, question.now),
                    Some(_) => DataAccessResult::ScopeOfAccessViolated,
                };
                (2, result as u8)
            }
            AccessSpecification::Action(method) => {
                access::encode_action(&mut described, &method);
                let parameters = (value != access::NO_VALUE).then_some(value);
                let result = if broken_off {
                    ActionResult::OtherReason
                } else {
                    question.objects.act(question.access, method, parameters, question.now, &mut values)
                };
                (3, result as u8)
            }
        };
        if result != 0 {
            values.truncate(place);
        }
        if values.len() == place {
            values.extend_from_slice(access::NO_VALUE);
        }
        broken_off |= result != 0 && request.invoke.has(LongInvokeId::BREAK_ON_ERROR);
        results.push(AccessResult { choice, result });
    }
    if !request.invoke.has(LongInvokeId::CONFIRMED) {
        return Ok(());
    }
    let date_time = Some(DateTime::from_wall(question.now.wall, 0));
    let described =
        request.invoke.has(LongInvokeId::SELF_DESCRIPTIVE).then_some((request.specifications.len(), &described[..]));
    access::encode_response(out, request.invoke, date_time, described, &values, &results);
    Ok(())
}
