//! What was measured, as JSON that is made when it is told: most of it never is.

use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Something that was measured. Cheap to clone.
#[derive(Clone)]
pub struct Measured(Arc<dyn Fn() -> Value + Send + Sync>);

impl Measured {
    /// What this tells when it is asked.
    pub fn new(tell: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Measured(Arc::new(tell))
    }

    /// What is known now.
    pub fn tell(&self) -> Value {
        (self.0)()
    }
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measured")
    }
}

impl PartialEq for Measured {
    /// Whether it is the same measurement.
    fn eq(&self, other: &Measured) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
