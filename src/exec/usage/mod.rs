//! What steps use of the machine, for those who want it told.
//!
//! A step takes ten milliseconds, and must not take longer for this: nothing is read of one that ends within two seconds but
//! what the kernel has counted of its processes anyway, which costs one system call at its end. Longer ones are looked at
//! now and then, less often the longer they take.

mod accounted;
mod cgroups;
mod figures;
mod machine;
mod meter;
mod parse;
mod rhythm;

pub(crate) use accounted::Accounted;
pub use figures::{Disks, Memory, Pressure, Processes, Processor, Sample, Traffic, Usage, Waited};
pub use machine::{MachineMemory, MachineProcesses, MachineSample, Processors, machine};
pub use meter::Meter;
pub(crate) use meter::{Interfaces, Metering};
pub(crate) use parse::traffic;
pub use rhythm::Rhythm;
