//! Which network features are of.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Tells a network from every other one of the process, also from those of the same architecture. Copies of a network
/// share it, and features carry that of the network which computed them.
///
/// ```
/// use image_losses_kernels::NetworkId;
///
/// let [one, other] = [NetworkId::unique(), NetworkId::unique()];
/// assert!(one.check("L", one).is_ok());
/// let refused = one.check("L", other).unwrap_err();
/// assert_eq!(refused.to_string(), format!("L: the target's features must be of {one}, got those of {other}"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetworkId(u64);

impl NetworkId {
    /// One that no other network has.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NetworkId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Refuses features of another network.
    ///
    /// # Errors
    /// [`Error::OtherNetwork`].
    pub fn check(self, operation: &'static str, features: NetworkId) -> Result<()> {
        if self == features {
            return Ok(());
        }
        Err(Error::OtherNetwork { operation, expected: self.to_string(), got: features.to_string() })
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "network {}", self.0)
    }
}
