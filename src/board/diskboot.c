/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "backend/bootdisk/bootdisk.h"
#include "backend/bootdisk/loader.h"
#include "board/diskboot.h"
#include "core/host.h"
#include "core/sandbox.h"

#define KERNEL_MAX (256ull << 20)
#define SECONDS 30
/* Of the helper: libext2fs reads tables of the size a damaged superblock says. */
#define HELPER_MEMORY (1ull << 30)

/* What the helper tells, in one write. */
struct report {
    int status;
    char err[512];
    struct bootdisk_answer answer;
};
_Static_assert(sizeof(struct report) <= 4096, "PIPE_BUF");

struct helper {
    struct block_spec spec;
    struct bootdisk_request rq;
    int kernel, initrd, pipe;
    bool confined;
    struct report report;
};

/* --- in the helper process --- */

static int disk_readv(void *opaque, void *buf, size_t len, u64 off)
{
    struct blockdev *b = opaque;
    struct host_iov iov = {.base = buf, .len = len};

    return b->ops->readv(b, &iov, 1, off);
}

static int file_write(void *opaque, const void *buf, size_t len)
{
    const u8 *p = buf;

    while (len) {
        ssize_t n = write(*(const int *)opaque, p, len);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int confine(const struct helper *h, char *err, size_t err_size)
{
    static const struct sandbox_rule rules[] = {
        SANDBOX_ALLOW(SYS_preadv, "the disk"),
        SANDBOX_ALLOW(SYS_pread64, "the disk"),
        SANDBOX_END,
    };
    static const struct sandbox_spec spec = {.name = "diskboot",
                                             .rules = {sandbox_base_rules, rules}};
    const struct bootdisk_request *rq = &h->rq;
    u64 most = rq->kernel.limit > rq->initrd.limit ? rq->kernel.limit : rq->initrd.limit;
    struct rlimit memory = {HELPER_MEMORY, HELPER_MEMORY}, file = {most, most},
                  cpu = {SECONDS, SECONDS};

    if (setrlimit(RLIMIT_AS, &memory) || setrlimit(RLIMIT_FSIZE, &file) ||
        setrlimit(RLIMIT_CPU, &cpu)) {
        snprintf(err, err_size, "cannot limit the process that reads the disk: %s",
                 strerror(errno));
        return -errno;
    }
    return h->confined ? host_confine(&spec, err, err_size) : 0;
}

static void read_disk(struct helper *h)
{
    struct report *rep = &h->report;
    struct blockdev *b = block_open(&h->spec, rep->err, sizeof(rep->err));
    char why[400];

    rep->status = -EINVAL;
    if (!b)
        return;
    h->rq.disk = (struct bootdisk_source){.read = disk_readv, .opaque = b, .size = b->size};
    rep->status = bootdisk_prepare(why, sizeof(why));
    if (!rep->status)
        rep->status = confine(h, why, sizeof(why));
    if (!rep->status)
        rep->status = bootdisk_read(&h->rq, &rep->answer, why, sizeof(why));
    if (rep->status)
        snprintf(rep->err, sizeof(rep->err), "disk %.100s: %s", h->spec.path, why);
}

static int helper_main(void *opaque)
{
    struct helper *h = opaque;

    read_disk(h);
    return write(h->pipe, &h->report, sizeof(h->report)) == sizeof(h->report) ? 0 : 1;
}

/* --- in the machine's process --- */

/* Waits for the report of the helper, and for its end. */
static int collect(int from, pid_t pid, struct report *rep, char *err, size_t err_size)
{
    struct pollfd p = {.fd = from, .events = POLLIN};
    u64 end = host_monotonic_ns() + SECONDS * 1000000000ull;
    ssize_t n = -1;
    int status = 0, r;

    do {
        u64 now = host_monotonic_ns();

        r = poll(&p, 1, now < end ? (int)((end - now) / 1000000) + 1 : 0);
    } while (r < 0 && errno == EINTR);
    if (r == 1)
        n = read(from, rep, sizeof(*rep));
    if (n != sizeof(*rep))
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (n == sizeof(*rep))
        return 0;
    if (r == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU))
        snprintf(err, err_size, "reading it takes more than %d s", SECONDS);
    else if (WIFSIGNALED(status))
        snprintf(err, err_size, "the process that reads it was ended by signal %d (%s)",
                 WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(err, err_size, "the process that reads it ended without a word");
    return -EIO;
}

/* The helper may have been taken over by what it read: text from it is cut and made printable. */
static void clean(char *text, size_t size)
{
    text[size - 1] = 0;
    for (; *text; text++)
        if ((u8)*text < ' ' || *text == 0x7f)
            *text = '?';
}

static int run_helper(struct helper *h, char *err, size_t err_size)
{
    int ends[2], keep[3], pid, r;

    if (pipe2(ends, O_CLOEXEC)) {
        snprintf(err, err_size, "cannot make a pipe: %s", strerror(errno));
        return -errno;
    }
    h->pipe = ends[1];
    keep[0] = h->kernel;
    keep[1] = h->initrd;
    keep[2] = h->pipe;
    pid = host_helper_fork("diskboot", keep, 3, helper_main, h);
    close(ends[1]);
    if (pid < 0) {
        snprintf(err, err_size, "cannot start a process: %s", strerror(-pid));
        r = pid;
    } else {
        r = collect(ends[0], pid, &h->report, err, err_size);
    }
    close(ends[0]);
    return r;
}

/* d->cmdline and d->name, from the answer. */
static int finish(struct diskboot *d, struct bootdisk_answer *a, const char *path,
                  const char *append)
{
    clean(a->kernel, sizeof(a->kernel));
    clean(a->args, sizeof(a->args));
    if (asprintf(&d->name, "%s of disk %s", a->kernel, path) < 0)
        d->name = NULL;
    /* The last console= is the one /dev/console is: the monitor's, or what the user says. */
    if (asprintf(&d->cmdline, "%s%s%s%s", a->args,
                 loader_has(append, "console=") ? "" : " console=ttyS0", *append ? " " : "",
                 append) < 0)
        d->cmdline = NULL;
    return d->name && d->cmdline ? 0 : -ENOMEM;
}

static int read_with(struct helper *h, struct diskboot *d, const char *append, char *err,
                     size_t err_size)
{
    struct report *rep = &h->report;
    char why[400];
    int r;

    h->kernel = d->kernel = memfd_create("trivisor-kernel", MFD_CLOEXEC);
    h->initrd = d->initrd = memfd_create("trivisor-initrd", MFD_CLOEXEC);
    if (d->kernel < 0 || d->initrd < 0) {
        snprintf(err, err_size, "cannot make a memory file: %s", strerror(errno));
        return -errno;
    }
    r = run_helper(h, why, sizeof(why));
    if (r) {
        snprintf(err, err_size, "disk %s: %s", h->spec.path, why);
        return r;
    }
    if (rep->status) {
        clean(rep->err, sizeof(rep->err));
        snprintf(err, err_size, "%s", rep->err);
        return -EINVAL;
    }
    if (!rep->answer.has_initrd) {
        close(d->initrd);
        d->initrd = 0;
    }
    r = finish(d, &rep->answer, h->spec.path, append);
    if (r)
        snprintf(err, err_size, "out of memory");
    return r;
}

int diskboot_read(struct diskboot *d, const char *disk, const char *append, u64 max, bool confined,
                  char *err, size_t err_size)
{
    struct helper *h = calloc(1, sizeof(*h));
    int r;

    memset(d, 0, sizeof(*d));
    if (!h) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    append = append ? append : "";
    r = block_spec_parse(disk, &h->spec, err, err_size);
    h->spec.readonly = true;
    h->confined = confined;
    h->rq.kernel = (struct bootdisk_sink){
        .write = file_write, .opaque = &h->kernel, .limit = max < KERNEL_MAX ? max : KERNEL_MAX};
    h->rq.initrd = (struct bootdisk_sink){.write = file_write, .opaque = &h->initrd, .limit = max};
    h->rq.root_known = loader_has(append, "root=");
    if (!r)
        r = read_with(h, d, append, err, err_size);
    free(h);
    if (r)
        diskboot_close(d);
    return r;
}

int diskboot_take(int *fd)
{
    int taken = *fd;

    *fd = 0;
    return taken;
}

void diskboot_close(struct diskboot *d)
{
    if (d->kernel > 0)
        close(d->kernel);
    if (d->initrd > 0)
        close(d->initrd);
    free(d->name);
    free(d->cmdline);
    memset(d, 0, sizeof(*d));
}
