//! ACCESS, services with short names, and the confirmation of pushes, as JSON objects.

use ipss_session::ProtocolError;

use super::Pass;
use crate::apdu::access::{AccessRequest, AccessResponse, AccessSpecification};
use crate::apdu::list::List;
use crate::apdu::notification::DataNotificationConfirm;
use crate::apdu::short_name::{
    InformationReport, ReadResult, Variable, WriteRequest, WriteResult, decode_read_request, decode_read_response,
    decode_write_response,
};
use crate::cosem::ActionResult;

impl Pass<'_, '_> {
    pub(super) fn data_notification_confirm(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let confirm = DataNotificationConfirm::decode(apdu)?;
        self.begin("data-notification-confirm");
        self.apdus.member_hex("long_invoke_id_and_priority", &confirm.long_invoke_id_and_priority.to_be_bytes());
        self.date_time("date_time", confirm.date_time);
        Ok(())
    }

    pub(super) fn access_request(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let request = AccessRequest::decode(apdu, &limits)?;
        self.begin("access-request");
        self.apdus.member_hex("long_invoke_id_and_priority", &request.invoke.0.to_be_bytes());
        self.date_time("date_time", request.date_time);
        self.specifications(request.specifications)?;
        self.list_of_values(request.values)
    }

    pub(super) fn access_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let response = AccessResponse::decode(apdu, &limits)?;
        self.begin("access-response");
        self.apdus.member_hex("long_invoke_id_and_priority", &response.invoke.0.to_be_bytes());
        self.date_time("date_time", response.date_time);
        if let Some(specifications) = response.specifications {
            self.specifications(specifications)?;
        }
        // What was asked for says what the values belong to, where the answer repeats it.
        let mut asked = response.specifications.map(|list| list.iter(&limits));
        self.apdus.key("values");
        self.apdus.begin('[');
        for value in response.values.iter(&limits) {
            let descriptor = match asked.as_mut().and_then(Iterator::next) {
                Some(AccessSpecification::Get(descriptor, _)) => Some(descriptor),
                _ => None,
            };
            self.value(value, descriptor, response.date_time)?;
        }
        self.apdus.end();
        self.result_list(&response);
        Ok(())
    }

    fn result_list(&mut self, response: &AccessResponse<'_>) {
        let limits = self.limits;
        self.apdus.key("results");
        self.apdus.begin('[');
        for result in response.results.iter(&limits) {
            self.apdus.begin('{');
            if result.choice == 3 {
                let name = ActionResult::from_number(result.result).map(ActionResult::name);
                self.apdus.member_named("action_result", name, result.result);
            } else {
                self.access_result(result.result);
            }
            self.apdus.end();
        }
        self.apdus.end();
    }

    fn specifications(&mut self, list: List<'_, AccessSpecification<'_>>) -> Result<(), ProtocolError> {
        let limits = self.limits;
        self.apdus.key("items");
        self.apdus.begin('[');
        for specification in list.iter(&limits) {
            self.apdus.begin('{');
            match specification {
                AccessSpecification::Get(descriptor, part) | AccessSpecification::Set(descriptor, part) => {
                    let get = matches!(specification, AccessSpecification::Get(..));
                    self.apdus.member_string("access", if get { "get" } else { "set" });
                    self.attribute(&descriptor);
                    self.selection(part)?;
                }
                AccessSpecification::Action(method) => {
                    self.apdus.member_string("access", "action");
                    self.method(&method);
                }
            }
            self.apdus.end();
        }
        self.apdus.end();
        Ok(())
    }

    fn list_of_values(&mut self, values: List<'_, &[u8]>) -> Result<(), ProtocolError> {
        let limits = self.limits;
        self.apdus.key("values");
        self.apdus.begin('[');
        for value in values.iter(&limits) {
            self.quiet_value(value)?;
        }
        self.apdus.end();
        Ok(())
    }

    pub(super) fn read_request(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let variables = decode_read_request(apdu, &limits)?;
        self.begin("read-request");
        self.variables(variables)
    }

    pub(super) fn write_request(&mut self, name: &str, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let request = WriteRequest::decode(apdu, &limits)?;
        self.begin(name);
        self.variables(request.variables)?;
        self.list_of_values(request.values)
    }

    pub(super) fn information_report(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let report = InformationReport::decode(apdu, &limits)?;
        self.begin("information-report-request");
        if let Some(time) = report.time {
            self.apdus.member_string("time", &String::from_utf8_lossy(time));
        }
        self.variables(report.variables)?;
        self.list_of_values(report.values)
    }

    fn variables(&mut self, variables: List<'_, Variable<'_>>) -> Result<(), ProtocolError> {
        let limits = self.limits;
        self.apdus.key("items");
        self.apdus.begin('[');
        for variable in variables.iter(&limits) {
            self.apdus.begin('{');
            match variable {
                Variable::Name(name) => self.apdus.member_hex("variable_name", &name.to_be_bytes()),
                Variable::Parameterized { name, selector, parameter } => {
                    self.apdus.member_hex("variable_name", &name.to_be_bytes());
                    self.apdus.member_integer("selector", selector);
                    self.apdus.key("parameter");
                    self.quiet_value(parameter)?;
                }
                Variable::BlockNumber(number) => self.apdus.member_integer("block_number", number),
                Variable::ReadBlock { last, number, raw } => self.short_block(last, number, Some(raw)),
                Variable::WriteBlock { last, number } => self.short_block(last, number, None),
            }
            self.apdus.end();
        }
        self.apdus.end();
        Ok(())
    }

    fn short_block(&mut self, last: bool, number: u16, raw: Option<&[u8]>) {
        self.apdus.member_boolean("last_block", last);
        self.apdus.member_integer("block_number", number);
        if let Some(raw) = raw {
            self.apdus.member_hex("raw_data", raw);
        }
    }

    pub(super) fn read_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let results = decode_read_response(apdu, &limits)?;
        self.begin("read-response");
        self.apdus.key("results");
        self.apdus.begin('[');
        for result in results.iter(&limits) {
            self.apdus.begin('{');
            match result {
                ReadResult::Data(octets) => {
                    self.apdus.key("data");
                    self.value(octets, None, None)?;
                }
                ReadResult::Error(error) => self.access_result(error),
                ReadResult::Block { last, number, raw } => self.short_block(last, number, Some(raw)),
                ReadResult::BlockNumber(number) => self.apdus.member_integer("block_number", number),
            }
            self.apdus.end();
        }
        self.apdus.end();
        Ok(())
    }

    pub(super) fn write_response(&mut self, apdu: &[u8]) -> Result<(), ProtocolError> {
        let limits = self.limits;
        let results = decode_write_response(apdu, &limits)?;
        self.begin("write-response");
        self.apdus.key("results");
        self.apdus.begin('[');
        for result in results.iter(&limits) {
            self.apdus.begin('{');
            match result {
                WriteResult::Success => self.access_result(0),
                WriteResult::Error(error) => self.access_result(error),
                WriteResult::BlockNumber(number) => self.apdus.member_integer("block_number", number),
            }
            self.apdus.end();
        }
        self.apdus.end();
        Ok(())
    }
}
