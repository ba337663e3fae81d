//! Which system calls the agent can make, as two seccomp filters (seccomp(2)).
//!
//! What only an intruder would call ends the process, and the kernel's log says which call it was: guard and openings are
//! the kernel's and stay, and whoever keeps services up starts a clean agent. What is merely not on the list answers
//! ENOSYS, as on a kernel without it: a newer C library falls back, where a killed agent would leave a host without
//! knocks for a harmless call.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::Needs;

/// Memory, threads, signals, time, waiting, files, sockets, randomness.
const ALLOWED: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mkdirat,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls that newer processors' kernels have only in newer shapes.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_OLD: &[c_long] = &[libc::SYS_renameat];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ALLOWED_OLD: &[c_long] = &[];

/// What running iptables takes, and what that program calls itself: it inherits these filters.
const FOR_PROGRAMS: &[c_long] = &[
    libc::SYS_close_range,
    libc::SYS_execve,
    libc::SYS_fstatfs,
    libc::SYS_pselect6,
    libc::SYS_set_tid_address,
    libc::SYS_setitimer,
    libc::SYS_statfs,
    libc::SYS_wait4,
    libc::SYS_waitid,
];
#[cfg(target_arch = "x86_64")]
const FOR_PROGRAMS_OLD: &[c_long] = &[
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_fork,
    libc::SYS_pipe,
    libc::SYS_select,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const FOR_PROGRAMS_OLD: &[c_long] = &[];

/// What ends the process: no part of the agent, of its libraries or of iptables has a use for it.
const DEADLY: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_capset,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setns,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_settimeofday,
    libc::SYS_setuid,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Requests of ioctl(2): blocking, terminals' size and kind (logs), interfaces' names and flags.
const REQUESTS: &[libc::Ioctl] = &[
    libc::FIOCLEX,
    libc::FIONBIO,
    libc::FIONREAD,
    libc::TCGETS,
    libc::TIOCGWINSZ,
    SIOCGIFNAME,
    SIOCGIFFLAGS,
    SIOCGIFINDEX,
];
/// `linux/sockios.h`.
const SIOCGIFNAME: libc::Ioctl = 0x8910;
const SIOCGIFFLAGS: libc::Ioctl = 0x8913;
const SIOCGIFINDEX: libc::Ioctl = 0x8933;

/// `PR_SET_VMA` of `linux/prctl.h`: the C library names its memory.
const SET_VMA: u64 = 0x5356_4d41;

const NAMESPACES: libc::c_int = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// Puts both filters over the calling thread and those that it starts.
///
/// # Errors
/// Why the kernel has them not, as a sentence.
pub(super) fn restrict(needs: &Needs) -> Result<(), String> {
    let (deadly, allowed) = compile(needs).map_err(|error| error.to_string())?;
    // The second one does not allow to install another.
    for filter in [deadly, allowed] {
        apply_filter(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn compile(needs: &Needs) -> Result<(BpfProgram, BpfProgram), seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut deadly: BTreeMap<i64, Vec<SeccompRule>> = plain(DEADLY);
    if !needs.programs {
        deadly.extend(plain(&[libc::SYS_execve]));
    }
    let deadly = SeccompFilter::new(deadly, SeccompAction::Allow, SeccompAction::KillProcess, arch)?;
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let allowed = SeccompFilter::new(allowed(needs)?, absent, SeccompAction::Allow, arch)?;
    Ok((deadly.try_into()?, allowed.try_into()?))
}

fn allowed(needs: &Needs) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules = plain(ALLOWED);
    rules.extend(plain(ALLOWED_OLD));
    if needs.programs {
        rules.extend(plain(FOR_PROGRAMS));
        rules.extend(plain(FOR_PROGRAMS_OLD));
    }
    let mut families = vec![libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];
    // Name services behind a socket: nscd, systemd-resolved.
    families.extend(needs.names.then_some(libc::AF_UNIX));
    rules.insert(libc::SYS_socket, one_of(0, &words(&families))?);
    rules.insert(libc::SYS_socketpair, one_of(0, &words(&[libc::AF_UNIX]))?);
    let requests: Vec<u64> = REQUESTS.iter().map(|request| u64::from(*request as u32)).collect();
    rules.insert(libc::SYS_ioctl, one_of(1, &requests)?);
    let set_name = u64::from(libc::PR_SET_NAME.unsigned_abs());
    let get_name = u64::from(libc::PR_GET_NAME.unsigned_abs());
    rules.insert(libc::SYS_prctl, one_of(0, &[set_name, get_name, SET_VMA])?);
    // Limits are read, never set.
    rules.insert(libc::SYS_prlimit64, vec![rule(2, Length::Qword, Compare::Eq, 0)?]);
    // What clone3(2) would do stands in memory, where a filter cannot look; without it libraries call clone(2).
    let clone = if needs.programs {
        masked(0, NAMESPACES, 0)?
    } else {
        masked(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?
    };
    rules.insert(libc::SYS_clone, vec![clone]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let mut memory = vec![masked(2, libc::PROT_EXEC, 0)?];
        // Libraries are loaded by name services and at the start of programs: code, but never what can be written.
        if needs.programs || needs.names {
            memory.push(masked(2, libc::PROT_WRITE, 0)?);
        }
        rules.insert(call, memory);
    }
    Ok(rules)
}

fn plain(calls: &[c_long]) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn words(numbers: &[libc::c_int]) -> Vec<u64> {
    numbers.iter().map(|number| u64::from(number.unsigned_abs())).collect()
}

fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.iter().map(|value| rule(argument, Length::Dword, Compare::Eq, *value)).collect()
}

fn masked(
    argument: u8,
    mask: libc::c_int,
    value: libc::c_int,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let (mask, value) = (u64::from(mask.cast_unsigned()), u64::from(value.cast_unsigned()));
    rule(argument, Length::Dword, Compare::MaskedEq(mask), value)
}

fn rule(
    argument: u8,
    length: Length,
    compare: Compare,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, compare, value)?])
}
