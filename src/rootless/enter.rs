//! An ordinary user's process becomes root of a user namespace of its own.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Gid, Pid, Uid, User, fork, setgroups, setresgid, setresuid},
};

use crate::ranges::{Range, mapping, ranges_of};

/// Why a process can't have a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses one.
    #[error(
        "making a user namespace: {0}; this machine lets ordinary users have none: raise user.max_user_namespaces, set \
         kernel.unprivileged_userns_clone=1 where there is such a setting, and in a container allow unshare (seccomp, AppArmor)"
    )]
    Refused(nix::Error),
    /// One without mounts of its own is of no use.
    #[error(
        "mounts in the new user namespace: {0}; where AppArmor keeps ordinary users from it, set \
         kernel.apparmor_restrict_unprivileged_userns=0 or give this program a profile that says userns"
    )]
    Mounts(nix::Error),
    /// The user has no ids to give away.
    #[error(
        "{file} gives user {user} no ids, and files in images have owners: add the line \"{user}:100000:65536\" to it \
         (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user})"
    )]
    NoIds {
        /// Which file.
        file: &'static str,
        /// Whose.
        user: String,
    },
    /// A program that maps ids is not there.
    #[error("{0} is not installed; it is in Debian's package uidmap")]
    NoProgram(&'static str),
    /// A program that maps ids failed.
    #[error("{program} {arguments}: {said}")]
    Mapping {
        /// Which one.
        program: &'static str,
        /// What it was asked.
        arguments: String,
        /// What it said.
        said: String,
    },
    /// A system call on the way.
    #[error("{doing}: {source}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes this process root of a new user namespace, with mounts of its own that those of the machine go on to spread to.
/// Ids from 1 on are those that `/etc/subuid` and `/etc/subgid` give the user. There has to be one thread only.
///
/// # Errors
/// What is missing, with what to do about it; then nothing has changed, or the process is of no more use.
pub fn enter() -> Result<(), Error> {
    let (uid, gid) = (Uid::current().as_raw(), nix::unistd::Gid::current().as_raw());
    let name =
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let ids = |file: &'static str| {
        let ranges = ranges_of(&std::fs::read_to_string(file).unwrap_or_default(), &name, uid);
        if ranges.is_empty() { Err(Error::NoIds { file, user: name.clone() }) } else { Ok(ranges) }
    };
    let maps = [
        Map::new("newuidmap", uid, &ids("/etc/subuid")?)?,
        Map::new("newgidmap", gid, &ids("/etc/subgid")?)?,
    ];

    let call = |doing| move |source: io::Error| Error::Call { doing, source };
    let (mut go, going) = io::pipe().map_err(call("making a pipe"))?;
    let (mut answer, mut answering) = io::pipe().map_err(call("making a pipe"))?;
    let me = Pid::this();
    // SAFETY: there is one thread only, so that the child may do what any process may.
    let mapper = match unsafe { fork() }.map_err(|errno| call("forking")(errno.into()))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop(going);
            drop(answer);
            let mut byte = [0];
            let told = matches!(go.read(&mut byte), Ok(1));
            let failed = told
                .then(|| maps.iter().find_map(|map| map.write(me).err().map(|said| (map, said))))
                .flatten();
            if let Some((map, said)) = &failed {
                let _ = answering.write_all(format!("{} {said}", map.program).as_bytes());
            }
            // SAFETY: ends the child at once, without what the parent would do at its end.
            unsafe { libc::_exit(i32::from(failed.is_some())) }
        }
    };
    drop((go, answering));
    let outcome = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Error::Refused);
    let mut going = going;
    if outcome.is_ok() {
        going.write_all(b"1").map_err(call("waking the child"))?;
    }
    drop(going);
    let mut said = String::new();
    let _ = answer.read_to_string(&mut said);
    let ended = waitpid(mapper, None);
    outcome?;
    if ended != Ok(WaitStatus::Exited(mapper, 0)) {
        let (program, said) = said.split_once(' ').unwrap_or(("", "it was killed"));
        let map = maps.iter().find(|map| map.program == program).unwrap_or(&maps[0]);
        return Err(Error::Mapping {
            program: map.program,
            arguments: map.arguments.join(" "),
            said: said.trim().to_owned(),
        });
    }

    let failed = |doing| move |errno: nix::Error| Error::Call { doing, source: errno.into() };
    let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(group, group, group).map_err(failed("becoming root's group"))?;
    setresuid(root, root, root).map_err(failed("becoming root"))?;
    // Other groups of the user have no name in here.
    setgroups(&[group]).map_err(failed("leaving groups"))?;
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(Error::Mounts)
}

/// A map of ids, to be written by a program that may.
struct Map {
    program: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
}

impl Map {
    fn new(program: &'static str, own: u32, ranges: &[Range]) -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let along = std::env::split_paths(&path).chain(["/usr/bin".into(), "/bin".into()]);
        let found = along.map(|folder| folder.join(program)).find(|file| file.is_file());
        let path = found.ok_or(Error::NoProgram(program))?;
        Ok(Self { program, path, arguments: mapping(own, ranges) })
    }

    /// Writes it for a process; what went wrong in a sentence.
    fn write(&self, process: Pid) -> Result<(), String> {
        let output = Command::new(&self.path)
            .arg(process.to_string())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(if said.is_empty() { format!("it ended with {}", output.status) } else { said })
    }
}
