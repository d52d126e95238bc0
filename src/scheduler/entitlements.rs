use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use crosskit_api::pb;

/// What a step may do beyond its sandbox, or what a worker lets steps do: a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Entitlements(u8);

impl Entitlements {
    /// Nothing.
    pub const NONE: Entitlements = Entitlements(0);
    /// The worker's own network.
    pub const HOST_NETWORK: Entitlements = Entitlements(1);
    /// No sandbox at all.
    pub const INSECURE: Entitlements = Entitlements(1 << 1);
    /// Devices of the worker.
    pub const DEVICES: Entitlements = Entitlements(1 << 2);
    /// Secrets in the environment, which some workers write to their disk.
    pub const SECRET_ENVIRONMENT: Entitlements = Entitlements(1 << 3);
    /// Everything.
    pub const ALL: Entitlements = Entitlements((1 << NAMES.len()) - 1);

    /// What a step asks for.
    pub fn of(step: &pb::ExecOp) -> Self {
        let mut asked = Entitlements::NONE;
        for (entitlement, wanted) in [
            (Entitlements::HOST_NETWORK, step.network() == pb::NetMode::Host),
            (Entitlements::INSECURE, step.security() == pb::SecurityMode::Insecure),
            (Entitlements::DEVICES, step.cdi_devices.iter().any(|device| !device.optional)),
            (Entitlements::SECRET_ENVIRONMENT, !step.secretenv.is_empty()),
        ] {
            if wanted {
                asked |= entitlement;
            }
        }
        asked
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of the other are in this one.
    pub fn contains(self, other: Entitlements) -> bool {
        other.without(self).is_empty()
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(self, other: Entitlements) -> Self {
        Entitlements(self.0 & !other.0)
    }
}

/// In the order of the bits; the first three as BuildKit's clients know them.
const NAMES: [&str; 4] = ["network.host", "security.insecure", "device", "secrets in the environment"];

impl BitOr for Entitlements {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Entitlements(self.0 | other.0)
    }
}

impl BitOrAssign for Entitlements {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Entitlements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        let names: Vec<_> = names.map(|(_, name)| *name).collect();
        f.pad(&names.join(", "))
    }
}

impl fmt::Debug for Entitlements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}
