//! What this machine can run, and how.

use std::path::PathBuf;

use crosskit_platforms::{Architecture, Platform, host, native};

use crate::{Emulator, Emulators, PrivateBinfmt, Registration, Result, probe};

/// How programs of a platform run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// By the processor itself.
    Native,
    /// By an entry of the machine's binfmt_misc, seen working.
    Kernel,
    /// By this emulator, registered in a private binfmt_misc that was seen working.
    Private {
        /// The emulator.
        emulator: PathBuf,
    },
}

/// What was found out about this machine.
#[derive(Debug)]
pub struct Detection {
    /// Platforms in the order in which they are listed, the native one first.
    pub platforms: Vec<(Platform, Support)>,
    /// The private binfmt_misc that those of [`Support::Private`] need; None where none is needed or none can be made.
    pub private: Option<PrivateBinfmt>,
    /// Why platforms that have an emulator here do not run all the same: OCI architecture and sentence.
    pub problems: Vec<(String, String)>,
}

/// Which ways of emulation to consider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ways {
    /// The machine's entries where they work, else private ones.
    #[default]
    All,
    /// Only the machine's entries.
    KernelOnly,
    /// Only private ones, also where the machine's work.
    PrivateOnly,
}

/// Finds out what runs by executing a tiny program of each architecture: under the machine's binfmt_misc, and where
/// that fails, or programs do not see the name that they are called by, under a private one with the emulators given.
/// Blocks for 10–50 ms.
pub fn detect(emulators: &Emulators, ways: Ways) -> Detection {
    let own = native();
    let mut platforms: Vec<(Platform, Support)> = host().into_iter().map(|p| (p, Support::Native)).collect();
    let mut missing: Vec<&'static Architecture> = Vec::new();
    // They run, but without their own name: better so than not at all.
    let mut nameless: Vec<(&'static Architecture, u8)> = Vec::new();
    let listed = |known: &&Architecture| known.name != own.architecture && !known.beyond;
    let foreign: Vec<_> = Architecture::all().iter().filter(listed).collect();
    if own.os == "linux" {
        for (architecture, ran) in at_once(&foreign, probe::run_named) {
            let sibling = Architecture::native().is_some_and(|host| host.may_run_natively(architecture));
            match (ran, ways) {
                (Ok((level, _)), _) if sibling => add(&mut platforms, architecture, level, &Support::Native),
                (Ok((level, true)), Ways::All) | (Ok((level, _)), Ways::KernelOnly) => {
                    add(&mut platforms, architecture, level, &Support::Kernel)
                }
                (Ok((level, false)), Ways::All) => {
                    nameless.push((architecture, level));
                    missing.push(architecture);
                }
                _ => missing.push(architecture),
            }
        }
    }
    let mut problems = Vec::new();
    let mut private = None;
    if ways != Ways::KernelOnly && !missing.is_empty() {
        let usable = usable(&missing, emulators, &mut problems);
        if !usable.is_empty() {
            match private_with(&usable) {
                Ok(made) => private = Some(made),
                Err(error) => {
                    problems
                        .extend(usable.iter().map(|(known, _, _)| (known.name.clone(), error.to_string())));
                }
            }
        }
        if let Some(made) = &private {
            let wanted: Vec<_> = usable.iter().map(|(known, _, _)| *known).collect();
            for (architecture, ran) in at_once(&wanted, |known| probe::run_in(made, known)) {
                let emulator = usable.iter().find(|(known, _, _)| known.name == architecture.name);
                match (ran, emulator) {
                    (Ok(level), Some((_, emulator, _))) => {
                        let support = Support::Private { emulator: emulator.path.clone() };
                        add(&mut platforms, architecture, level, &support);
                    }
                    (Err(error), Some((_, emulator, _))) => {
                        let error = error.under(&emulator.path);
                        problems.push((architecture.name.clone(), error.to_string()));
                    }
                    (_, None) => {}
                }
            }
        }
    }
    for (architecture, level) in nameless {
        if platforms.iter().all(|(platform, _)| platform.architecture != architecture.name) {
            add(&mut platforms, architecture, level, &Support::Kernel);
            problems.retain(|(name, _)| *name != architecture.name);
        }
    }
    let place = |platform: &Platform| {
        let foreign = platform.architecture != own.architecture;
        let known = Architecture::all().iter().position(|known| known.name == platform.architecture);
        (foreign, known)
    };
    platforms.sort_by_key(|(platform, _)| place(platform)); // stable: levels keep their order
    Detection { platforms, private, problems }
}

/// The platforms that this machine runs by itself and through its binfmt_misc entries, in the order in which `binfmt`
/// lists them.
pub fn supported_platforms() -> Vec<Platform> {
    detect(&Emulators::default(), Ways::KernelOnly)
        .platforms
        .into_iter()
        .map(|(platform, _)| platform)
        .collect()
}

impl Detection {
    /// How programs of this platform run; None if they do not.
    pub fn support(&self, platform: &Platform) -> Option<&Support> {
        let wanted = platform.normalize();
        self.platforms.iter().find(|(known, _)| known.normalize() == wanted).map(|(_, support)| support)
    }
}

/// An architecture as the platforms it is listed as.
fn add(platforms: &mut Vec<(Platform, Support)>, architecture: &Architecture, level: u8, support: &Support) {
    let plain = Platform::linux(&architecture.name).normalize();
    platforms.push((plain.clone(), support.clone()));
    match architecture.name.as_str() {
        // QEMU's default ARM processor is a v7 one, and runs v6; nobody lists v5.
        "arm" => platforms.push((Platform { variant: "v6".to_owned(), ..plain }, support.clone())),
        "amd64" => {
            for level in 2..=level {
                let platform = Platform { variant: format!("v{level}"), ..plain.clone() };
                platforms.push((platform, support.clone()));
            }
        }
        _ => {}
    }
}

/// Asks something about several architectures at the same time: it is mostly waiting for processes.
fn at_once<'a, T: Send>(
    architectures: &[&'a Architecture],
    ask: impl Fn(&'a Architecture) -> Result<T> + Sync,
) -> Vec<(&'a Architecture, Result<T>)> {
    let ask = &ask;
    std::thread::scope(|scope| {
        let running: Vec<_> =
            architectures.iter().map(|known| (*known, scope.spawn(move || ask(known)))).collect();
        running
            .into_iter()
            .map(|(known, thread)| {
                let panicked = |_| {
                    let reason = "the probe panicked".to_owned();
                    Err(crate::Error::DoesNotRun { architecture: known.name.clone(), reason })
                };
                (known, thread.join().unwrap_or_else(panicked))
            })
            .collect()
    })
}

type Usable<'a> = Vec<(&'a Architecture, Emulator, crate::Version)>;

/// Emulators of these architectures that pass their check; why others do not.
fn usable<'a>(
    architectures: &[&'a Architecture],
    emulators: &Emulators,
    problems: &mut Vec<(String, String)>,
) -> Usable<'a> {
    let there: Vec<_> = architectures.iter().copied().filter(|known| emulators.get(known).is_ok()).collect();
    let mut usable = Vec::new();
    for (known, checked) in at_once(&there, |known| {
        let emulator = emulators.get(known)?;
        Ok((emulator.clone(), emulator.check()?))
    }) {
        match checked {
            Ok((emulator, version)) => usable.push((known, emulator, version)),
            Err(error) => problems.push((known.name.clone(), error.to_string())),
        }
    }
    usable
}

fn private_with(usable: &Usable<'_>) -> Result<PrivateBinfmt> {
    let wanted: Vec<Registration> = usable
        .iter()
        .map(|(known, emulator, version)| {
            Registration::new(known, &emulator.path, Emulator::keeps_argv0(*version))
        })
        .collect();
    PrivateBinfmt::new(&wanted)
}
