//! The default seccomp profile (moby/profiles, the one that Docker and BuildKit use): what is not allowed here fails with
//! EPERM.
//!
//! Kept as names by condition. The runtime turns them into a filter; see [`crate::filter`] for how that is done once
//! instead of once a step.

use std::sync::LazyLock;

use crate::{
    capabilities,
    spec::{Seccomp, SeccompArgument, SeccompCalls},
};

/// Calls that everybody may make.
const ALWAYS: &str = "_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown \
     chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
     epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old \
     eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate \
     fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr \
     flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate \
     ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list \
     get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 \
     getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
     getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday \
     getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel \
     io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set \
     ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link \
     linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise \
     map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
     mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 \
     mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall \
     munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe \
     pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
     process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
     recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat \
     renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
     rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
     sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile \
     sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 \
     setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 \
     setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 \
     setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn \
     socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync \
     sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
     timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
     timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat \
     uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Calls that since Linux 4.8 cannot be used to get around the filter.
const TRACING: &str = "process_vm_readv process_vm_writev ptrace";

/// Calls by Rust's name of the architecture.
const BY_ARCHITECTURE: &[(&str, &str)] = &[
    ("x86_64", "arch_prctl modify_ldt"),
    ("x86", "modify_ldt"),
    ("aarch64", "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
    ("arm", "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
    ("powerpc64", "sync_file_range2 swapcontext"),
    ("s390x", "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    ("riscv64", "riscv_flush_icache"),
];

/// Calls by a capability that makes them harmless: who has it may do worse.
const BY_CAPABILITY: &[(&str, &str)] = &[("CAP_SYS_CHROOT", "chroot")];

/// The runtime's names for the architecture and for those whose programs it runs too.
const ARCHITECTURES: &[(&str, &[&str])] = &[
    ("x86_64", &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    ("aarch64", &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ("s390x", &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"]),
    ("riscv64", &["SCMP_ARCH_RISCV64"]),
    ("loongarch64", &["SCMP_ARCH_LOONGARCH64"]),
];

/// Address families up to 37, 39 and above 40: not AF_ALG (38), not AF_VSOCK (40).
const SOCKET: [(u64, &str); 3] = [(38, "SCMP_CMP_LT"), (39, "SCMP_CMP_EQ"), (40, "SCMP_CMP_GT")];

/// Personalities: PER_LINUX, PER_LINUX32, UNAME26, UNAME26 with PER_LINUX32, and asking for the present one.
const PERSONALITY: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Flags of clone that make namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Error of clone3, so that C libraries use clone, whose flags the filter can see.
const ENOSYS: u32 = 38;

fn calls(names: impl Iterator<Item = &'static str>) -> SeccompCalls {
    SeccompCalls { names: names.collect(), action: "SCMP_ACT_ALLOW", errno: None, args: Vec::new() }
}

fn call_with(
    name: &'static str,
    index: u32,
    value: u64,
    second: Option<u64>,
    op: &'static str,
) -> SeccompCalls {
    let args = vec![SeccompArgument { index, value, value_two: second, op }];
    SeccompCalls { args, ..calls(std::iter::once(name)) }
}

/// The profile for the default capabilities on a machine, by Rust's name of its architecture.
pub(crate) fn profile_of(machine: &str) -> Seccomp {
    let given = |conditions: &[(&str, &'static str)], holds: &dyn Fn(&str) -> bool| -> Vec<&'static str> {
        conditions
            .iter()
            .filter(|(condition, _)| holds(condition))
            .flat_map(|(_, names)| names.split(' '))
            .collect()
    };
    let here = given(BY_ARCHITECTURE, &|condition| condition == machine);
    let capable = given(BY_CAPABILITY, &|condition| capabilities::DEFAULT.contains(&condition));
    let mut syscalls =
        vec![calls(ALWAYS.split_ascii_whitespace().chain(TRACING.split(' ')).chain(here).chain(capable))];
    syscalls.extend(SOCKET.map(|(family, op)| call_with("socket", 0, family, None, op)));
    syscalls.extend(PERSONALITY.map(|value| call_with("personality", 0, value, None, "SCMP_CMP_EQ")));
    // s390 has clone's first two arguments the other way round.
    let flags = if machine == "s390x" { 1 } else { 0 };
    syscalls.push(call_with("clone", flags, CLONE_NAMESPACES, Some(0), "SCMP_CMP_MASKED_EQ"));
    let refused =
        SeccompCalls { action: "SCMP_ACT_ERRNO", errno: Some(ENOSYS), ..calls(std::iter::once("clone3")) };
    syscalls.push(refused);
    let architectures =
        ARCHITECTURES.iter().find(|(name, _)| *name == machine).map_or(&[][..], |(_, names)| names);
    Seccomp { default_action: "SCMP_ACT_ERRNO", default_errno: 1, architectures, syscalls }
}

/// The profile for the default capabilities on this machine.
pub(crate) fn profile() -> &'static Seccomp {
    static PROFILE: LazyLock<Seccomp> = LazyLock::new(|| profile_of(std::env::consts::ARCH));
    &PROFILE
}

/// Whether this kernel filters system calls at all.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nSeccomp:"))
    });
    *AVAILABLE
}
