//! What a meter holds, as the meter-role session asks for it.

use std::sync::Arc;

use ipss_session::{Now, Random};

use crate::cosem::{ActionResult, AttributeDescriptor, DataAccessResult, MethodDescriptor, Selection, ShortNames};
use crate::security::setup::NewKeys;

/// Who asks, as the association established it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The client's service access point: 16 is the public client, 1 the management client.
    pub client: u16,
    /// Whether the client proved who it is (LLS or HLS).
    pub authenticated: bool,
}

/// The objects of one logical device.
///
/// Values are A-XDR encoded `Data`, type octet first: the session copies them into APDUs and blocks as they are. The
/// session itself answers for the association's own methods (reply_to_HLS_authentication).
pub trait Objects {
    /// Append the attribute's value to `out`. On a *no*, `out` is as it was.
    ///
    /// # Errors
    /// The data-access-result that the meter answers instead.
    fn get(
        &mut self,
        access: Access,
        descriptor: AttributeDescriptor,
        selection: Option<&Selection>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult>;

    /// Replace the attribute's value by `value`.
    fn set(&mut self, access: Access, descriptor: AttributeDescriptor, value: &[u8], now: Now) -> DataAccessResult;

    /// Invoke a method with its parameters; append return parameters, if it has any, to `out`.
    fn act(
        &mut self,
        access: Access,
        method: MethodDescriptor,
        parameters: Option<&[u8]>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> ActionResult;

    /// [`Objects::act`] with a source of randomness, for methods that make keys (security setup).
    fn act_with_random(
        &mut self,
        access: Access,
        method: MethodDescriptor,
        parameters: Option<&[u8]>,
        now: Now,
        _random: &mut dyn Random,
        out: &mut Vec<u8>,
    ) -> ActionResult {
        self.act(access, method, parameters, now, out)
    }

    /// Keys that a method just served replaced: asked after each whole answer, in use from the next frame on.
    fn new_keys(&mut self) -> Option<NewKeys> {
        None
    }

    /// The body (A-XDR) of a push that what was just served brought about; asked after each frame.
    fn push_due(&mut self, _now: Now) -> Option<Vec<u8>> {
        None
    }

    /// The short names of the objects, for head-ends that associate with short-name referencing; a model without them
    /// serves none.
    fn short_names(&mut self) -> Option<Arc<ShortNames>> {
        None
    }

    /// The highest invocation counter believed of the head-end, told before each request is answered: what a meter
    /// shows as 0-0:43.1.0*255. A model without that object need not listen.
    fn counter_believed(&mut self, _counter: u32) {}
}

/// Objects to which a source of randomness is lent while a request is served.
pub(super) struct Lent<'a, O> {
    pub(super) objects: &'a mut O,
    pub(super) random: &'a mut dyn Random,
}

impl<O: Objects> Objects for Lent<'_, O> {
    fn get(
        &mut self,
        access: Access,
        descriptor: AttributeDescriptor,
        selection: Option<&Selection>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        self.objects.get(access, descriptor, selection, now, out)
    }

    fn set(&mut self, access: Access, descriptor: AttributeDescriptor, value: &[u8], now: Now) -> DataAccessResult {
        self.objects.set(access, descriptor, value, now)
    }

    fn act(
        &mut self,
        access: Access,
        method: MethodDescriptor,
        parameters: Option<&[u8]>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> ActionResult {
        self.objects.act_with_random(access, method, parameters, now, self.random, out)
    }
}
