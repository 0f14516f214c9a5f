/* SPDX-License-Identifier: Apache-2.0 */
/* Backends without input: a file, nothing; and the choice by name. A log is log.c's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "backend/char/outfile.h"
#include "backend/char/output.h"

struct file_char {
    struct chardev c; /* first */
    struct output out;
    char *path;
};

static size_t file_write(struct chardev *c, const u8 *buf, size_t n)
{
    struct file_char *f = container_of(c, struct file_char, c);

    return output_write(&f->out, buf, n);
}

static int file_start(struct chardev *c, bool dry, char *err, size_t err_size)
{
    struct file_char *f = container_of(c, struct file_char, c);
    int fd = outfile_open(f->path, false, dry, err, err_size);

    if (fd >= 0 && !dry)
        output_start(&f->out, fd);
    return fd < 0 ? fd : 0;
}

static void file_close(struct chardev *c)
{
    struct file_char *f = container_of(c, struct file_char, c);

    output_finish(&f->out);
    if (f->out.fd >= 0)
        close(f->out.fd);
    free(f->path);
    free(f);
}

struct chardev *char_file_open(struct vm *vm, const char *path, char *err, size_t err_size)
{
    struct file_char *f = calloc(1, sizeof(*f));

    if (f)
        f->path = strdup(path);
    if (!f || !f->path || output_init(&f->out, vm, -1, &f->c)) {
        snprintf(err, err_size, "serial: out of memory");
        if (f)
            free(f->path);
        free(f);
        return NULL;
    }
    f->c.write = file_write;
    f->c.start = file_start;
    f->c.close = file_close;
    return &f->c;
}

static size_t null_write(struct chardev *c, const u8 *buf, size_t n)
{
    (void)c;
    (void)buf;
    return n;
}

static void null_close(struct chardev *c)
{
    free(c);
}

struct chardev *char_null_open(char *err, size_t err_size)
{
    struct chardev *c = calloc(1, sizeof(*c));

    if (!c) {
        snprintf(err, err_size, "serial: out of memory");
        return NULL;
    }
    c->write = null_write;
    c->close = null_close;
    return c;
}

#define LOG_SIZE_DEFAULT (10ull << 20)

/* PATH[,size=SIZE]; the option table has checked the size: digits and K, M, G or nothing (MiB). */
static struct chardev *open_log(struct vm *vm, const char *spec, char *err, size_t err_size)
{
    const char *option = strstr(spec, ",size=");
    u64 size = LOG_SIZE_DEFAULT;
    char *path = strndup(spec, option ? (size_t)(option - spec) : strlen(spec)), *end;
    struct chardev *c;

    if (!path) {
        snprintf(err, err_size, "serial: out of memory");
        return NULL;
    }
    if (option) {
        size = strtoull(option + strlen(",size="), &end, 10);
        size <<= *end == 'K' || *end == 'k' ? 10 : *end == 'G' || *end == 'g' ? 30 : 20;
    }
    c = char_log_open(vm, path, size, err, err_size);
    free(path);
    return c;
}

struct chardev *char_open(struct vm *vm, const char *spec, char *err, size_t err_size)
{
    if (!strcmp(spec, "stdio"))
        return char_stdio_open(vm, err, err_size);
    if (!strcmp(spec, "null"))
        return char_null_open(err, err_size);
    if (!strncmp(spec, "file:", 5))
        return char_file_open(vm, spec + 5, err, err_size);
    if (!strncmp(spec, "log:", 4))
        return open_log(vm, spec + 4, err, err_size);
    snprintf(err, err_size, "serial: '%s' is nothing a serial port can be connected to", spec);
    return NULL;
}
