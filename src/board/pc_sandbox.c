/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine's process may still do while the guest runs. */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "board/pc_priv.h"
#include "core/sandbox.h"

/* What pthread_create gives clone: a thread like the others, and no process. */
#define THREAD                                                                                     \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |            \
     CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

/* Besides sandbox_base_rules. No file is opened, no process made, no code mapped once the guest
 * runs: whatever a device needs of that kind it gets while the machine is built, or from outside.
 */
static const struct sandbox_rule rules[] = {
    SANDBOX_ALLOW(SYS_timerfd_settime, "the event loop's timer"),
    SANDBOX_ALLOW(SYS_rt_sigaction, "a vCPU's thread takes its kick signal",
                  SANDBOX_INT(0, SIGUSR1)),
    SANDBOX_ALLOW(SYS_ioctl, "messages: is standard error a raw terminal?", SANDBOX_INT(1, TCGETS)),
    SANDBOX_ALLOW(SYS_dup2, "standard output is let go: the terminal was left (C-a d)",
                  SANDBOX_INT(1, STDOUT_FILENO)),
    SANDBOX_ALLOW(SYS_dup2, "standard error likewise", SANDBOX_INT(1, STDERR_FILENO)),

    SANDBOX_ALLOW(SYS_pread64, "disks, and a bounded log"),
    SANDBOX_ALLOW(SYS_pwrite64, "the same"),
    SANDBOX_ALLOW(SYS_preadv, "disks: the guest's buffers"),
    SANDBOX_ALLOW(SYS_pwritev, "disks: the guest's buffers"),
    SANDBOX_ALLOW(SYS_fdatasync, "disks: the guest's flush"),
    SANDBOX_ALLOW(SYS_fsync, "disks: a qcow2 file that has grown"),
    SANDBOX_ALLOW(SYS_fallocate, "disks: the guest's discard; balloon: memory given back"),
    SANDBOX_ALLOW(SYS_ftruncate, "disks: a qcow2 file grows; log: is bounded"),
    SANDBOX_ALLOW(SYS_lseek, "disks: holes of a file"),

    /* Sockets that are open: none is made, bound or connected. */
    SANDBOX_ALLOW(SYS_accept4, "somebody connects to a listening socket (gdb, console, control)"),
    SANDBOX_ALLOW(SYS_recvfrom, "an open connection"),
    SANDBOX_ALLOW(SYS_sendto, "an open connection"),
    SANDBOX_ALLOW(SYS_recvmsg, "an open connection"),
    SANDBOX_ALLOW(SYS_sendmsg, "an open connection"),
    SANDBOX_ALLOW(SYS_shutdown, "an open connection"),
    SANDBOX_ALLOW(SYS_ioctl, "tap: the guest's offloads", SANDBOX_INT(1, TUNSETOFFLOAD)),
    SANDBOX_ALLOW(SYS_ioctl, "tap: queues the guest uses", SANDBOX_INT(1, TUNSETQUEUE)),
    SANDBOX_ALLOW(SYS_wait4, "the end of a helper process"),

    /* A disk that is plugged while the guest runs has threads of its own, which inherit this filter
     * and all else that was given up. What clone3 is to make is in memory, where no filter looks:
     * the library falls back to clone. */
    SANDBOX_ALLOW(SYS_clone, "plug: a disk's threads", SANDBOX_INT(0, THREAD)),
    SANDBOX_FAIL(SYS_clone3, "the same, at first", ENOSYS),
    SANDBOX_ALLOW(SYS_eventfd2, "plug: what the threads wait on"),
    SANDBOX_ALLOW(SYS_epoll_create1, "the same"),
    SANDBOX_END,
};

/* Engine kvm, on the descriptors of the machine and its vCPUs, which are all made by then. No
 * memory is added, no vCPU created, no capability enabled. */
static const struct sandbox_rule kvm_rules[] = {
    SANDBOX_ALLOW(SYS_ioctl, "kvm: the guest runs", SANDBOX_INT(1, KVM_RUN)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: a device sends an interrupt", SANDBOX_INT(1, KVM_SIGNAL_MSI)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: the guest programs the I/O APIC, or a device's MSI-X table",
                  SANDBOX_INT(1, KVM_SET_GSI_ROUTING)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: the guest masks or unmasks a device's interrupt, and pauses",
                  SANDBOX_INT(1, KVM_IRQFD)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: the guest moves the registers of a disk",
                  SANDBOX_INT(1, KVM_IOEVENTFD)),
    /* Beginning and ending the log would be KVM_SET_USER_MEMORY_REGION, which can do much more. */
    SANDBOX_ALLOW(SYS_ioctl, "kvm: pages the guest wrote, of a log begun before",
                  SANDBOX_INT(1, KVM_GET_DIRTY_LOG)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: an NMI is injected", SANDBOX_INT(1, KVM_NMI)),
    /* State: interrupts of the 8259, pauses, what the interpreter finishes, the dump at the end. */
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_REGS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_REGS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_SREGS2)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_SREGS2)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_VCPU_EVENTS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_VCPU_EVENTS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_DEBUGREGS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_DEBUGREGS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_XSAVE)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_XSAVE2)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_XSAVE)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_XCRS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_XCRS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_MSRS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_MSRS)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state, the NMI line", SANDBOX_INT(1, KVM_GET_LAPIC)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_LAPIC)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_GET_MP_STATE)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: state", SANDBOX_INT(1, KVM_SET_MP_STATE)),
    SANDBOX_ALLOW(SYS_ioctl, "kvm: the TSC's offset: a pause, a guest that writes it",
                  SANDBOX_INT(1, KVM_SET_DEVICE_ATTR)),
    SANDBOX_END,
};

int pc_confine(const struct config *cfg, const char *engine)
{
    struct sandbox_spec spec = {.name = "vm", .rules = {sandbox_base_rules, rules}};
    char err[200];
    int r;

    host_close_inherited_fds();
    if (!strcmp(cfg->sandbox, "off")) {
        log_warn("--sandbox off: a guest that breaks out of its machine has all your rights");
        return 0;
    }
    if (!strcmp(engine, "kvm"))
        spec.rules[2] = kvm_rules;
    r = host_confine(&spec, err, sizeof(err));
    if (r)
        log_error("cannot confine this process: %s", err);
    return r;
}
