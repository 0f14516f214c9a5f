/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blockio DISK COMMAND ...: a disk back end on the command line, for tests and measurements. DISK
 * is what --disk takes.
 *
 *   script                             requests from stdin, a line each:
 *                                      w OFF LEN BYTE | z OFF LEN | u OFF LEN | d OFF LEN | f |
 *                                      r OFF LEN BYTE (fails unless all bytes are BYTE)
 *   bench OP SIZE STEP COUNT THREADS FLUSH
 *                                      COUNT requests of SIZE bytes, STEP bytes apart (modulo the
 *                                      disk), OP: read or write; a flush every FLUSH requests; 0:
 *                                      one at the end. Prints seconds
 *   fill TAG                           every second 64 KiB gets data of request TAG
 *   crash-write SEED FIRST THREADS     verifiable requests until killed; a line THREAD REQUEST for
 *                                      every flush that was acknowledged
 *   crash-check SEED FIRST THREADS STATE [ACKNOWLEDGED ...]
 *                                      after that: nothing acknowledged is lost. STATE, a file, is
 *                                      what was there before and becomes what is there now; prints
 *                                      where to go on
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "blockio.h"

void die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "blockio: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

__attribute__((format(printf, 2, 0))) static void log_line(enum log_level level, const char *fmt,
                                                           va_list ap)
{
    if (level > LOG_WARN)
        return;
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

int cmd_script(struct blockdev *b)
{
    char line[128];

    while (fgets(line, sizeof(line), stdin)) {
        unsigned long long off = 0, len = 0;
        unsigned byte = 0;
        struct host_iov v;
        char op;
        u8 *buf;
        int r;

        if (sscanf(line, " %c %llu %llu %u", &op, &off, &len, &byte) < 1)
            continue;
        buf = malloc(len + 1);
        v = (struct host_iov){buf, len};
        memset(buf, (int)byte, len);
        switch (op) {
        case 'w':
            r = b->ops->writev(b, &v, 1, off);
            break;
        case 'z':
        case 'u':
            r = b->ops->write_zeroes(b, off, len, op == 'u');
            break;
        case 'd':
            r = b->ops->discard(b, off, len);
            break;
        case 'f':
            r = b->ops->flush(b);
            break;
        case 'r':
            memset(buf, ~(int)byte, len);
            r = b->ops->readv(b, &v, 1, off);
            for (u64 i = 0; i < len && !r; i++)
                if (buf[i] != (u8)byte)
                    die("byte %llu is %u, not %u", (unsigned long long)(off + i), buf[i], byte);
            break;
        default:
            die("what is %c?", op);
        }
        free(buf);
        if (r)
            die("%.*s: %s", (int)strcspn(line, "\n"), line, strerror(-r));
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct block_spec spec;
    struct blockdev *b;
    char err[512];
    int r;

    log_set_sink(log_line);
    if (argc < 3)
        die("usage: blockio DISK COMMAND ...");
    if (block_spec_parse(argv[1], &spec, err, sizeof(err)))
        die("%s", err);
    b = block_open(&spec, err, sizeof(err));
    if (!b)
        die("%s", err);
    argc -= 3;
    argv += 2;
    if (!strcmp(argv[0], "script"))
        r = cmd_script(b);
    else if (!strcmp(argv[0], "bench") && argc == 6)
        r = cmd_bench(b, argc, argv + 1);
    else if (!strcmp(argv[0], "fill") && argc == 1)
        r = cmd_fill(b, argc, argv + 1);
    else if (!strcmp(argv[0], "crash-write") && argc == 3)
        r = cmd_crash_write(b, argc, argv + 1);
    else if (!strcmp(argv[0], "crash-check") && argc >= 4)
        r = cmd_crash_check(b, argc, argv + 1);
    else
        die("unknown command %s, or not so many arguments", argv[0]);
    b->ops->close(b);
    return r;
}
