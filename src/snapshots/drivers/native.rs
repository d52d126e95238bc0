//! Whole copies: works on any filesystem and kernel.

use super::{Driver, MountPlan};
use crate::{Error, Result};
use std::path::Path;

pub(crate) struct Native;

impl Driver for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn stacks(&self) -> bool {
        false
    }

    fn mount(&self, plan: &MountPlan<'_>) -> Result<()> {
        Err(Error::Mount {
            path: plan.target.to_path_buf(),
            step: "stacking folders".into(),
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }

    fn copy_tree(&self, from: &Path, to: &Path) -> Result<()> {
        crate::clone::clone_tree(from, to, crate::clone::Files::Copy, &Default::default())
    }
}
