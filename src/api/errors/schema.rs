//! The shapes of the messages that travel as JSON in error details: what `prost` does not keep.
//!
//! Numbers, names and kinds are those of `proto/errdefs.proto`, `stack.proto`, `llb.proto`,
//! `gateway.proto` and `policysession.proto`.

/// One message: its fields in declaration order.
pub(crate) struct Schema(pub(crate) &'static [Field]);

/// One field as `.proto` files name it.
pub(crate) struct Field {
    pub(crate) tag: u32,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
}

/// What a field holds.
pub(crate) enum Kind {
    Text,
    Bytes,
    Bool,
    I32,
    I64,
    U32,
    U64,
    /// The names of the values, by number.
    Enum(&'static [&'static str]),
    Message(&'static Schema),
    /// From strings to this.
    Map(&'static Kind),
}

const fn one(tag: u32, name: &'static str, kind: Kind) -> Field {
    Field { tag, name, kind, repeated: false }
}

const fn many(tag: u32, name: &'static str, kind: Kind) -> Field {
    Field { tag, name, kind, repeated: true }
}

use Kind::{Bool, Bytes, Enum, I32, I64, Map, Message, Text, U32, U64};

pub(crate) static VERTEX: Schema = Schema(&[one(1, "digest", Text)]);
pub(crate) static NAMED: Schema = Schema(&[one(1, "name", Text)]);
pub(crate) static FRONTEND: Schema = Schema(&[one(1, "name", Text), one(2, "source", Text)]);
pub(crate) static COMPATIBILITY: Schema = Schema(&[one(1, "version", I64), one(2, "feature", Text)]);
pub(crate) static SOURCE: Schema =
    Schema(&[one(1, "info", Message(&SOURCE_INFO)), many(2, "ranges", Message(&RANGE))]);
pub(crate) static SOLVE: Schema = Schema(&[
    many(1, "inputIDs", Text),
    many(2, "mountIDs", Text),
    one(3, "op", Message(&OP)),
    one(4, "file", Message(&INDEX)),
    one(5, "cache", Message(&INDEX)),
    one(6, "description", Map(&Text)),
]);
static INDEX: Schema = Schema(&[one(1, "index", I64)]);
pub(crate) static INCOMPLETE: Schema = Schema(&[many(
    1,
    "incomplete",
    Message(&Schema(&[
        one(1, "op", Text),
        one(2, "name", Text),
        one(3, "method", Text),
        one(4, "uri", Text),
        one(5, "final_uri", Text),
        one(6, "reason", Text),
    ])),
)]);
pub(crate) static STACK: Schema = Schema(&[
    many(1, "frames", Message(&Schema(&[one(1, "Name", Text), one(2, "File", Text), one(3, "Line", I32)]))),
    many(2, "cmdline", Text),
    one(3, "pid", I32),
    one(4, "version", Text),
    one(5, "revision", Text),
]);
// A process's exit may carry a status as well; only the code is ever sent as a detail.
pub(crate) static EXIT: Schema = Schema(&[one(1, "Code", U32)]);
pub(crate) static DECISION: Schema = Schema(&[
    one(1, "action", Enum(&["ALLOW", "DENY", "CONVERT"])),
    many(2, "denyMessages", Message(&Schema(&[one(1, "message", Text)]))),
    one(3, "update", Message(&SOURCE_OP)),
]);

static DEFINITION: Schema = Schema(&[
    many(1, "def", Bytes),
    one(2, "metadata", Map(&Message(&OP_METADATA))),
    one(3, "Source", Message(&SOURCES)),
]);
static SOURCES: Schema =
    Schema(&[one(1, "locations", Map(&Message(&LOCATIONS))), many(2, "infos", Message(&SOURCE_INFO))]);
static SOURCE_INFO: Schema = Schema(&[
    one(1, "filename", Text),
    one(2, "data", Bytes),
    one(3, "definition", Message(&DEFINITION)),
    one(4, "language", Text),
]);
pub(crate) static LOCATIONS: Schema = Schema(&[many(
    1,
    "locations",
    Message(&Schema(&[one(1, "sourceIndex", I32), many(2, "ranges", Message(&RANGE))])),
)]);
static RANGE: Schema = Schema(&[one(1, "start", Message(&POSITION)), one(2, "end", Message(&POSITION))]);
static POSITION: Schema = Schema(&[one(1, "line", I32), one(2, "character", I32)]);
static OP_METADATA: Schema = Schema(&[
    one(1, "ignore_cache", Bool),
    one(2, "description", Map(&Text)),
    one(4, "export_cache", Message(&Schema(&[one(1, "Value", Bool)]))),
    one(5, "caps", Map(&Bool)),
    one(
        6,
        "progress_group",
        Message(&Schema(&[one(1, "id", Text), one(2, "name", Text), one(3, "weak", Bool)])),
    ),
    one(
        7,
        "linux_resources",
        Message(&Schema(&[
            one(1, "memory", I64),
            one(2, "memorySwap", I64),
            one(3, "cpuShares", U64),
            one(4, "cpuPeriod", U64),
            one(5, "cpuQuota", I64),
            one(6, "cpusetCpus", Text),
            one(7, "cpusetMems", Text),
        ])),
    ),
]);

pub(crate) static OP: Schema = Schema(&[
    many(1, "inputs", Message(&Schema(&[one(1, "digest", Text), one(2, "index", I64)]))),
    one(2, "exec", Message(&EXEC)),
    one(3, "source", Message(&SOURCE_OP)),
    one(4, "file", Message(&Schema(&[many(2, "actions", Message(&FILE_ACTION))]))),
    one(5, "build", Message(&BUILD)),
    one(6, "merge", Message(&Schema(&[many(1, "inputs", Message(&AN_INPUT))]))),
    one(
        7,
        "diff",
        Message(&Schema(&[one(1, "lower", Message(&AN_INPUT)), one(2, "upper", Message(&AN_INPUT))])),
    ),
    one(8, "passthrough", Message(&Schema(&[one(1, "id", Text), many(2, "outputs", I64)]))),
    one(
        10,
        "platform",
        Message(&Schema(&[
            one(1, "Architecture", Text),
            one(2, "OS", Text),
            one(3, "Variant", Text),
            one(4, "OSVersion", Text),
            many(5, "OSFeatures", Text),
        ])),
    ),
    one(11, "constraints", Message(&Schema(&[many(1, "filter", Text)]))),
]);
static AN_INPUT: Schema = Schema(&[one(1, "input", I64)]);
static SOURCE_OP: Schema = Schema(&[one(1, "identifier", Text), one(2, "attrs", Map(&Text))]);
static BUILD: Schema = Schema(&[
    one(1, "builder", I64),
    one(2, "inputs", Map(&Message(&AN_INPUT))),
    one(3, "def", Message(&DEFINITION)),
    one(4, "attrs", Map(&Text)),
]);
static EXEC: Schema = Schema(&[
    one(1, "meta", Message(&META)),
    many(2, "mounts", Message(&MOUNT)),
    one(3, "network", Enum(&["UNSET", "HOST", "NONE"])),
    one(4, "security", Enum(&["SANDBOX", "INSECURE"])),
    many(
        5,
        "secretenv",
        Message(&Schema(&[one(1, "ID", Text), one(2, "name", Text), one(3, "optional", Bool)])),
    ),
    many(6, "cdiDevices", Message(&Schema(&[one(1, "name", Text), one(2, "optional", Bool)]))),
]);
static META: Schema = Schema(&[
    many(1, "args", Text),
    many(2, "env", Text),
    one(3, "cwd", Text),
    one(4, "user", Text),
    one(
        5,
        "proxy_env",
        Message(&Schema(&[
            one(1, "http_proxy", Text),
            one(2, "https_proxy", Text),
            one(3, "ftp_proxy", Text),
            one(4, "no_proxy", Text),
            one(5, "all_proxy", Text),
        ])),
    ),
    many(6, "extraHosts", Message(&Schema(&[one(1, "Host", Text), one(2, "IP", Text)]))),
    one(7, "hostname", Text),
    many(9, "ulimit", Message(&Schema(&[one(1, "Name", Text), one(2, "Soft", I64), one(3, "Hard", I64)]))),
    one(10, "cgroupParent", Text),
    one(11, "removeMountStubsRecursive", Bool),
    many(12, "validExitCodes", I32),
]);
static MOUNT: Schema = Schema(&[
    one(1, "input", I64),
    one(2, "selector", Text),
    one(3, "dest", Text),
    one(4, "output", I64),
    one(5, "readonly", Bool),
    one(6, "mountType", Enum(&["BIND", "SECRET", "SSH", "CACHE", "TMPFS"])),
    one(19, "TmpfsOpt", Message(&Schema(&[one(1, "size", I64)]))),
    one(
        20,
        "cacheOpt",
        Message(&Schema(&[one(1, "ID", Text), one(2, "sharing", Enum(&["SHARED", "PRIVATE", "LOCKED"]))])),
    ),
    one(21, "secretOpt", Message(&LENT)),
    one(22, "SSHOpt", Message(&LENT)),
    one(23, "resultID", Text),
    one(24, "contentCache", Enum(&["DEFAULT", "ON", "OFF"])),
]);
// A secret's file and an agent's socket are described alike.
static LENT: Schema = Schema(&[
    one(1, "ID", Text),
    one(2, "uid", U32),
    one(3, "gid", U32),
    one(4, "mode", U32),
    one(5, "optional", Bool),
]);
static FILE_ACTION: Schema = Schema(&[
    one(1, "input", I64),
    one(2, "secondaryInput", I64),
    one(3, "output", I64),
    one(4, "copy", Message(&COPY)),
    one(
        5,
        "mkfile",
        Message(&Schema(&[
            one(1, "path", Text),
            one(2, "mode", I32),
            one(3, "data", Bytes),
            one(4, "owner", Message(&CHOWN)),
            one(5, "timestamp", I64),
        ])),
    ),
    one(
        6,
        "mkdir",
        Message(&Schema(&[
            one(1, "path", Text),
            one(2, "mode", I32),
            one(3, "makeParents", Bool),
            one(4, "owner", Message(&CHOWN)),
            one(5, "timestamp", I64),
        ])),
    ),
    one(
        7,
        "rm",
        Message(&Schema(&[
            one(1, "path", Text),
            one(2, "allowNotFound", Bool),
            one(3, "allowWildcard", Bool),
        ])),
    ),
    one(
        8,
        "symlink",
        Message(&Schema(&[
            one(1, "oldpath", Text),
            one(2, "newpath", Text),
            one(3, "owner", Message(&CHOWN)),
            one(4, "timestamp", I64),
        ])),
    ),
]);
static COPY: Schema = Schema(&[
    one(1, "src", Text),
    one(2, "dest", Text),
    one(3, "owner", Message(&CHOWN)),
    one(4, "mode", I32),
    one(5, "followSymlink", Bool),
    one(6, "dirCopyContents", Bool),
    one(7, "attemptUnpackDockerCompatibility", Bool),
    one(8, "createDestPath", Bool),
    one(9, "allowWildcard", Bool),
    one(10, "allowEmptyWildcard", Bool),
    one(11, "timestamp", I64),
    many(12, "include_patterns", Text),
    many(13, "exclude_patterns", Text),
    one(14, "alwaysReplaceExistingDestPaths", Bool),
    one(15, "modeStr", Text),
    many(16, "required_paths", Text),
]);
static CHOWN: Schema = Schema(&[one(1, "user", Message(&USER)), one(2, "group", Message(&USER))]);
static USER: Schema = Schema(&[
    one(1, "byName", Message(&Schema(&[one(1, "name", Text), one(2, "input", I64)]))),
    one(2, "byID", U32),
]);
