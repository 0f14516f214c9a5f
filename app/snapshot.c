/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor snapshot: the running machine writes itself to a file that is opened here, for it may
 * open none. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
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

/* What is there already and is something else is not to be lost. */
static int check_old(const char *path)
{
    char magic[SNAPSHOT_MAGIC_SIZE];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? 0 : failure("%s: %s", path, strerror(errno));
    n = read(fd, magic, sizeof(magic));
    close(fd);
    if (!n || (n == sizeof(magic) && !memcmp(magic, SNAPSHOT_MAGIC, sizeof(magic))))
        return 0;
    return failure("%s is there and is no saved machine: it is left alone", path);
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

static int save(const struct request *r, int process, int fd, const char *tmp)
{
    char text[120], err[ERR_SIZE];
    json_t *reply;
    int status;

    snprintf(text, sizeof(text), "{\"command\": \"snapshot\", \"stop\": %s, \"compress\": %s}",
             r->stop ? "true" : "false", r->compress ? "true" : "false");
    reply = control_request(r->name, text, fd, SAVE_MS, err, sizeof(err));
    if (!reply)
        return failure("%s", err);
    status = keep(fd, tmp, r->path);
    if (!status && r->stop && !control_ended(process, END_MS))
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
        status = save(&r, process, fd, tmp);
        if (status)
            unlink(tmp);
        close(fd);
    }
    close(process);
    return status;
}
