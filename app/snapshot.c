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
static int throw_away(const struct request *r, int process, int fd, const char *tmp, bool said)
{
    if (r->stop && (said || (is_saved_machine(fd) && control_ended(process, GONE_MS))))
        return failure("'%s' has ended and is saved in %s", r->name, tmp);
    unlink(tmp);
    return EXIT_STATUS_FAILURE;
}

/* The file is whole and on the disk under its name, or it is as it was. */
static int keep(int fd, const char *tmp, const char *path)
{
    char dir[PATH_MAX];
    int d;

    if (fsync(fd) || rename(tmp, path))
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

static int save(const struct request *r, int process, int fd, const char *tmp)
{
    char text[120], err[ERR_SIZE];
    json_t *reply;
    int status = 0;

    snprintf(text, sizeof(text), "{\"command\": \"snapshot\", \"stop\": %s, \"compress\": %s}",
             r->stop ? "true" : "false", r->compress ? "true" : "false");
    reply = control_request(r->name, text, &fd, 1, SAVE_MS, err, sizeof(err));
    if (!reply) {
        failure("%s", err);
        return NOT_SAVED;
    }
    if (keep(fd, tmp, r->path)) {
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

int cmd_snapshot(int argc, char **argv)
{
    struct request r = {0};
    char tmp[PATH_MAX], err[ERR_SIZE];
    int process, fd, status = parse(&r, argc, argv);

    if (!status)
        status = check_old(r.path);
    if (status)
        return status;
    process = control_process(r.name, err, sizeof(err));
    if (process < 0)
        return failure("%s", err);
    if ((size_t)snprintf(tmp, sizeof(tmp), "%s.%d.tmp", r.path, (int)getpid()) >= sizeof(tmp)) {
        close(process);
        return failure("%s: %s", r.path, strerror(ENAMETOOLONG));
    }
    /* The guest's memory is its owner's alone. */
    fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        status = failure("%s: %s", tmp, strerror(errno));
    } else {
        /* Of one that is to end there is no telling by then whether it has. */
        if (!r.stop)
            clean_up_at_signals(tmp);
        status = save(&r, process, fd, tmp);
        if (status < 0)
            status = throw_away(&r, process, fd, tmp, status == SAVED_NOT_KEPT);
        close(fd);
    }
    close(process);
    return status;
}
