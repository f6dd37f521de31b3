//! Who signed what, and how many must (R15): the requester proposes, others approve, all with Ed25519.

use ed25519_dalek::VerifyingKey;
use thiserror::Error;

use super::order::Order;

/// Orders for more meters than this need two approvers.
pub const BULK: usize = 25;

/// Somebody whom the configuration names.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The name, unique.
    pub name: String,
    /// The Ed25519 public key.
    pub key: [u8; 32],
    /// May ask for commands. A service or a plugin may no more than that.
    pub may_request: bool,
    /// May approve what others ask for.
    pub may_approve: bool,
}

/// Whose word counts, and how much of it is needed.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Whom the configuration names.
    pub principals: Vec<Principal>,
    /// Orders for more meters than this need two approvers; never above [`BULK`].
    pub bulk: usize,
}

/// What a signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// "I ask for this."
    Propose,
    /// "I have seen this and want it done."
    Approve,
}

impl Purpose {
    /// The name in what is signed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Approve => "approve",
        }
    }
}

/// One signature beside an order.
#[derive(Clone, Debug)]
pub struct Signature {
    /// What it says.
    pub purpose: Purpose,
    /// Whose it is said to be.
    pub principal: String,
    /// The stop switch's generation that the signer knew: a stop makes earlier approvals void (R17).
    pub generation: u64,
    /// The 64 octets.
    pub octets: [u8; 64],
}

/// Why an order's signatures do not suffice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoQuorum {
    /// No such principal.
    #[error("the configuration knows no principal {0}")]
    Unknown(String),
    /// The principal may not say that.
    #[error("{0} may not {1} commands")]
    NotAllowed(String, &'static str),
    /// The signature is not the principal's under these octets.
    #[error("the signature of {0} does not fit: the order, or it, was changed")]
    Forged(String),
    /// The requester did not sign.
    #[error("the requester {0} has not signed")]
    NotProposed(String),
    /// The requester approved, too.
    #[error("{0} asked for it and cannot approve it")]
    OwnApproval(String),
    /// Not enough approvers.
    #[error("approved by {found} of the {needed} people needed since the last stop")]
    TooFew {
        /// How many did.
        found: usize,
        /// How many must.
        needed: usize,
    },
}

/// The octets that a principal signs for an order with this digest.
pub fn message(purpose: Purpose, generation: u64, principal: &str, hash: &[u8; 32]) -> Vec<u8> {
    let mut message = Vec::with_capacity(96 + principal.len());
    message.extend_from_slice(b"ipss-headend signature, form 1\0");
    message.extend_from_slice(purpose.name().as_bytes());
    message.push(0);
    message.extend_from_slice(&generation.to_be_bytes());
    message.extend_from_slice(principal.as_bytes());
    message.push(0);
    message.extend_from_slice(hash);
    message
}

impl Policy {
    /// How many approvers an order needs.
    pub fn approvers(&self, targets: usize) -> usize {
        if targets > self.bulk.min(BULK) { 2 } else { 1 }
    }

    /// Whether these signatures let this order go, at this generation of the stop switch.
    ///
    /// # Errors
    /// [`NoQuorum`], also for one signature too many that does not fit: somebody tampers.
    pub fn check(&self, order: &Order, signatures: &[Signature], generation: u64) -> Result<(), NoQuorum> {
        let mut proposed = None;
        let mut approved: Vec<&Principal> = Vec::new();
        for signature in signatures {
            let principal = self.verified(order, signature)?;
            match signature.purpose {
                Purpose::Propose if principal.name == order.requester => proposed = Some(principal),
                Purpose::Propose => return Err(NoQuorum::Forged(principal.name.clone())),
                Purpose::Approve if principal.name == order.requester => {
                    return Err(NoQuorum::OwnApproval(principal.name.clone()));
                }
                Purpose::Approve => {
                    let known = approved.iter().any(|one| one.name == principal.name || one.key == principal.key);
                    if signature.generation == generation && !known {
                        approved.push(principal);
                    }
                }
            }
        }
        let requester = proposed.ok_or_else(|| NoQuorum::NotProposed(order.requester.clone()))?;
        // Two names with one key are one person.
        if let Some(same) = approved.iter().find(|one| one.key == requester.key) {
            return Err(NoQuorum::OwnApproval(same.name.clone()));
        }
        let (found, needed) = (approved.len(), self.approvers(order.targets.len()));
        if found < needed { Err(NoQuorum::TooFew { found, needed }) } else { Ok(()) }
    }

    fn verified(&self, order: &Order, signature: &Signature) -> Result<&Principal, NoQuorum> {
        let name = &signature.principal;
        let found = self.principals.iter().find(|principal| principal.name == *name);
        let principal = found.ok_or_else(|| NoQuorum::Unknown(name.clone()))?;
        let (allowed, what) = match signature.purpose {
            Purpose::Propose => (principal.may_request, "request"),
            Purpose::Approve => (principal.may_approve, "approve"),
        };
        if !allowed {
            return Err(NoQuorum::NotAllowed(name.clone(), what));
        }
        let message = message(signature.purpose, signature.generation, name, &order.hash);
        let octets = ed25519_dalek::Signature::from_bytes(&signature.octets);
        VerifyingKey::from_bytes(&principal.key)
            .and_then(|key| key.verify_strict(&message, &octets))
            .map_err(|_| NoQuorum::Forged(name.clone()))?;
        Ok(principal)
    }
}
