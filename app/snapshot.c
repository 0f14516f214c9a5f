/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor snapshot: the running machine writes itself to a file that is opened here, for it may
 * open none. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "control_client.h"
#include "snapshot/format.h"

#define ERR_SIZE 512
/* It takes as long as it takes; meanwhile the connection's end tells when the machine has died. */
#define SAVE_MS (24u * 3600 * 1000)
#define END_MS 60000
#define GONE_MS 3000

struct request {
    const char *name, *path;
    bool stop, compress;
};

/* What is written, in the directory of what it is to replace. */
struct file {
    int fd;
    bool named; /* tmp; else it has no name yet, and is gone when this process is */
    char tmp[PATH_MAX];
};

static int parse(struct request *r, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--stop"))
            r->stop = true;
        else if (!strcmp(argv[i], "--compress"))
            r->compress = true;
        else if (argv[i][0] == '-' && argv[i][1])
            return failure("snapshot: unknown option '%s'; there are --stop and --compress",
                           argv[i]);
        else if (!r->name)
            r->name = argv[i];
        else if (!r->path)
            r->path = argv[i];
        else
            return failure("snapshot: unexpected argument '%s'", argv[i]);
    }
    if (!r->path || !*r->path)
        return failure("snapshot takes the name of a machine and the file to write");
    return 0;
}

/* Whether it is whole: the beginning is what is written last. */
static bool is_saved_machine(int fd)
{
    char magic[SNAPSHOT_MAGIC_SIZE];

    return pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
           !memcmp(magic, SNAPSHOT_MAGIC, sizeof(magic));
}

/* What is there already and is something else is not to be lost. */
static int check_old(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    bool ours;

    if (fd < 0)
        return errno == ENOENT ? 0 : failure("%s: %s", path, strerror(errno));
    ours = !fstat(fd, &st) && S_ISREG(st.st_mode) && (!st.st_size || is_saved_machine(fd));
    close(fd);
    return ours ? 0 : failure("%s is there and is no saved machine: it is left alone", path);
}

/* --- a file that is not wanted any more --- */

static char unfinished[PATH_MAX];

/* A machine that was not to end goes on; what it has written is of no use. */
static void on_signal(int number)
{
    unlink(unfinished);
    signal(number, SIG_DFL);
    raise(number);
}

static void clean_up_at_signals(const char *tmp)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    struct sigaction a = {.sa_handler = on_signal}, old;

    snprintf(unfinished, sizeof(unfinished), "%s", tmp);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (!sigaction(numbers[i], NULL, &old) && old.sa_handler == SIG_DFL)
            sigaction(numbers[i], &a, NULL);
}

/* After a failure. One that has ended may be in it, and nowhere else. said: it has told that it is.
 */
static int throw_away(const struct request *r, int process, const struct file *f, bool said)
{
    if (r->stop && (said || (is_saved_machine(f->fd) && control_ended(process, GONE_MS))))
        return failure("'%s' has ended and is saved in %s", r->name, f->tmp);
    if (f->named)
        unlink(f->tmp);
    return EXIT_STATUS_FAILURE;
}

/* Gives a file that has no name one, where nothing is. 0 or -1 and errno. */
static int name_it(int fd, const char *path)
{
    char self[32];

    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

/* The file is whole and on the disk under its name, or it is as it was. */
static int keep(struct file *f, const char *path)
{
    char dir[PATH_MAX];
    int d;

    if (fsync(f->fd))
        return failure("%s: %s", path, strerror(errno));
    /* linkat does not replace an older one: rename does. */
    if (!f->named && name_it(f->fd, path)) {
        if (errno != EEXIST || name_it(f->fd, f->tmp))
            return failure("%s: %s", path, strerror(errno));
        f->named = true;
    }
    if (f->named && rename(f->tmp, path))
        return failure("%s: %s", path, strerror(errno));
    snprintf(dir, sizeof(dir), "%s", path);
    d = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d >= 0) {
        fsync(d);
        close(d);
    }
    return 0;
}

static void report(const struct request *r, const json_t *reply)
{
    json_int_t bytes = json_integer_value(json_object_get(reply, "bytes"));

    fprintf(stderr, "trivisor: saved '%s': %lld MiB; it stood still for %lld ms%s\n", r->name,
            (long long)bytes >> 20,
            (long long)json_integer_value(json_object_get(reply, "stood_ms")),
            r->stop ? " and has ended" : "");
}

/* What save returns instead of an exit status: a line was printed, and the file has not its name.
 */
enum { NOT_SAVED = -1, SAVED_NOT_KEPT = -2 };

static int save(const struct request *r, int process, struct file *f)
{
    char text[120], err[ERR_SIZE];
    json_t *reply;
    int status = 0;

    snprintf(text, sizeof(text), "{\"command\": \"snapshot\", \"stop\": %s, \"compress\": %s}",
             r->stop ? "true" : "false", r->compress ? "true" : "false");
    reply = control_request(r->name, text, &f->fd, 1, SAVE_MS, err, sizeof(err));
    if (!reply) {
        failure("%s", err);
        return NOT_SAVED;
    }
    if (keep(f, r->path)) {
        json_decref(reply);
        return SAVED_NOT_KEPT;
    }
    if (r->stop && !control_ended(process, END_MS))
        status =
            failure("'%s' is saved and does not end; trivisor kill %s ends it", r->name, r->name);
    if (!status)
        report(r, reply);
    json_decref(reply);
    return status;
}

/* The guest's memory is its owner's alone. One that is to end with the machine has a name from the
 * start: the machine may be in it and nowhere else when this process is killed. 0, or an exit
 * status. */
static int open_file(struct file *f, const struct request *r)
{
    char dir[PATH_MAX];

    if ((size_t)snprintf(f->tmp, sizeof(f->tmp), "%s.%d.tmp", r->path, (int)getpid()) >=
        sizeof(f->tmp))
        return failure("%s: %s", r->path, strerror(ENAMETOOLONG));
    snprintf(dir, sizeof(dir), "%s", r->path);
    f->named = false;
    f->fd = r->stop || access("/proc/self/fd", X_OK)
                ? -1
                : open(dirname(dir), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (f->fd >= 0)
        return 0;
    f->named = true; /* not every file system has files without a name */
    f->fd = open(f->tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return f->fd >= 0 ? 0 : failure("%s: %s", r->path, strerror(errno));
}

int cmd_snapshot(int argc, char **argv)
{
    struct request r = {0};
    struct file f;
    char err[ERR_SIZE];
    int process, status = parse(&r, argc, argv);

    if (!status)
        status = check_old(r.path);
    if (status)
        return status;
    process = control_process(r.name, err, sizeof(err));
    if (process < 0)
        return failure("%s", err);
    status = open_file(&f, &r);
    if (!status) {
        /* Of one that is to end there is no telling by then whether it has. */
        if (!r.stop)
            clean_up_at_signals(f.tmp);
        status = save(&r, process, &f);
        if (status < 0)
            status = throw_away(&r, process, &f, status == SAVED_NOT_KEPT);
        close(f.fd);
    }
    close(process);
    return status;
}
