use crosskit_api::pb::{self, file_action::Action, user_opt::User};

use crate::Output;
use crate::paths::{rooted, rooted_keep_slash};

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// By number.
    Id(u32),
    /// By name, looked up in the filesystem that the action changes.
    Name(String),
}

impl Owner {
    fn parse(text: &str) -> Self {
        match text.parse::<i32>() {
            Ok(id) => Owner::Id(id as u32),
            Err(_) if text == "root" => Owner::Id(0),
            Err(_) => Owner::Name(text.to_owned()),
        }
    }

    fn to_pb(&self, base: i64) -> pb::UserOpt {
        let user = match self {
            Owner::Id(id) => User::ById(*id),
            Owner::Name(name) if name.is_empty() => User::ById(0),
            Owner::Name(name) => User::ByName(pb::NamedUserOpt { name: name.clone(), input: base }),
        };
        pb::UserOpt { user: Some(user) }
    }
}

/// User and group of what an action makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chown {
    /// The user.
    pub user: Option<Owner>,
    /// The group.
    pub group: Option<Owner>,
}

impl Chown {
    /// `user`, `user:group`, each a name or a number.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, group)) => Chown { user: Some(Owner::parse(user)), group: Some(Owner::parse(group)) },
            None => Chown { user: Some(Owner::parse(text)), group: None },
        }
    }

    fn to_pb(&self, base: i64) -> pb::ChownOpt {
        pb::ChownOpt {
            user: self.user.as_ref().map(|user| user.to_pb(base)),
            group: self.group.as_ref().map(|group| group.to_pb(base)),
        }
    }
}

/// Permissions for what a copy makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Bits.
    Bits(u32),
    /// As `chmod` takes them, such as `u+x`.
    Symbolic(String),
}

/// A copy.
#[derive(Debug, Clone, Default)]
pub struct CopyAction {
    /// What is copied from; none for something empty.
    pub from: Option<Output>,
    /// The path in it.
    pub src: String,
    /// Where to. A trailing slash means: into this folder.
    pub dest: String,
    /// Whose it becomes.
    pub owner: Option<Chown>,
    /// Its permissions; none for those that it has.
    pub mode: Option<Mode>,
    /// Whether links in `src` are followed.
    pub follow_symlinks: bool,
    /// Whether of a folder only the content is copied.
    pub dir_contents_only: bool,
    /// Whether archives are unpacked.
    pub attempt_unpack: bool,
    /// Whether missing folders on the way are made.
    pub create_dest_path: bool,
    /// Whether `src` is a pattern.
    pub allow_wildcard: bool,
    /// Whether a pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// Whether something else of that name is replaced.
    pub always_replace: bool,
    /// Only what matches is copied.
    pub include_patterns: Vec<String>,
    /// What is not copied.
    pub exclude_patterns: Vec<String>,
    /// What has to be there.
    pub required_paths: Vec<String>,
    /// Nanoseconds since 1970; none for the time that it has.
    pub timestamp: Option<i64>,
}

/// A new file.
#[derive(Debug, Clone, Default)]
pub struct MkfileAction {
    /// Where.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Content.
    pub data: Vec<u8>,
    /// Whose it becomes.
    pub owner: Option<Chown>,
    /// Nanoseconds since 1970; none for now.
    pub timestamp: Option<i64>,
}

/// A new folder.
#[derive(Debug, Clone, Default)]
pub struct MkdirAction {
    /// Where.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Whether missing folders on the way are made, and an existing one is fine.
    pub make_parents: bool,
    /// Whose it becomes.
    pub owner: Option<Chown>,
    /// Nanoseconds since 1970; none for now.
    pub timestamp: Option<i64>,
}

/// A removal.
#[derive(Debug, Clone, Default)]
pub struct RmAction {
    /// What.
    pub path: String,
    /// Whether it may be missing.
    pub allow_not_found: bool,
    /// Whether `path` is a pattern.
    pub allow_wildcard: bool,
}

/// A new symbolic link.
#[derive(Debug, Clone, Default)]
pub struct SymlinkAction {
    /// What it points at.
    pub oldpath: String,
    /// Where it is.
    pub newpath: String,
    /// Whose it becomes.
    pub owner: Option<Chown>,
    /// Nanoseconds since 1970; none for now.
    pub timestamp: Option<i64>,
}

/// One step of a file operation.
#[derive(Debug, Clone)]
pub enum FileActionSpec {
    /// Copies.
    Copy(CopyAction),
    /// Writes a file.
    Mkfile(MkfileAction),
    /// Makes a folder.
    Mkdir(MkdirAction),
    /// Removes.
    Rm(RmAction),
    /// Links.
    Symlink(SymlinkAction),
}

impl FileActionSpec {
    /// What the step reads besides the filesystem that it changes.
    pub(crate) fn source(&self) -> Option<Output> {
        match self {
            FileActionSpec::Copy(copy) => copy.from,
            _ => None,
        }
    }

    pub(crate) fn into_pb(self, base: i64) -> Action {
        let owner = |owner: &Option<Chown>| owner.as_ref().map(|owner| owner.to_pb(base));
        match self {
            FileActionSpec::Copy(copy) => {
                let (mode, mode_str) = match copy.mode {
                    None => (-1, String::new()),
                    Some(Mode::Bits(bits)) => (bits as i32, String::new()),
                    Some(Mode::Symbolic(text)) => (0, text),
                };
                Action::Copy(pb::FileActionCopy {
                    src: rooted(copy.src),
                    dest: rooted_keep_slash(copy.dest),
                    owner: owner(&copy.owner),
                    mode,
                    mode_str,
                    timestamp: copy.timestamp.unwrap_or(-1),
                    follow_symlink: copy.follow_symlinks,
                    dir_copy_contents: copy.dir_contents_only,
                    attempt_unpack_docker_compatibility: copy.attempt_unpack,
                    create_dest_path: copy.create_dest_path,
                    allow_wildcard: copy.allow_wildcard,
                    allow_empty_wildcard: copy.allow_empty_wildcard,
                    always_replace_existing_dest_paths: copy.always_replace,
                    include_patterns: copy.include_patterns,
                    exclude_patterns: copy.exclude_patterns,
                    required_paths: copy.required_paths,
                })
            }
            FileActionSpec::Mkfile(file) => Action::Mkfile(pb::FileActionMkFile {
                path: rooted(file.path),
                mode: (file.mode & 0o777) as i32,
                data: file.data,
                owner: owner(&file.owner),
                timestamp: file.timestamp.unwrap_or(-1),
            }),
            FileActionSpec::Mkdir(dir) => Action::Mkdir(pb::FileActionMkDir {
                path: rooted(dir.path),
                mode: (dir.mode & 0o777) as i32,
                make_parents: dir.make_parents,
                owner: owner(&dir.owner),
                timestamp: dir.timestamp.unwrap_or(-1),
            }),
            FileActionSpec::Rm(rm) => Action::Rm(pb::FileActionRm {
                path: rooted(rm.path),
                allow_not_found: rm.allow_not_found,
                allow_wildcard: rm.allow_wildcard,
            }),
            FileActionSpec::Symlink(link) => Action::Symlink(pb::FileActionSymlink {
                oldpath: link.oldpath,
                newpath: link.newpath,
                owner: owner(&link.owner),
                timestamp: link.timestamp.unwrap_or(-1),
            }),
        }
    }
}
