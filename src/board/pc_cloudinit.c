/* SPDX-License-Identifier: Apache-2.0 */
/* --cloud-init: a disk that tells cloud-init what to do (its NoCloud source). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/memory.h"
#include "base/commas.h"
#include "board/image.h"
#include "board/pc_priv.h"
#include "dev/pci/pci.h"
#include "dev/virtio/blk.h"

#define FILE_MAX_SIZE (16ull << 20)
#define HOSTNAME "trivisor"

enum { USER_DATA, META_DATA, NETWORK_CONFIG, FILES };
static const char *const names[FILES] = {"user-data", "meta-data", "network-config"};

struct seed {
    char *path[FILES]; /* NULL: not given */
    char *hostname, *ssh_key_path;
    char *text[FILES];
    size_t size[FILES];
    char *ssh_key;
    char *err;
    size_t err_size;
};

static int fail(struct seed *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct seed *s, const char *fmt, ...)
{
    size_t n = (size_t)snprintf(s->err, s->err_size, "--cloud-init: ");
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(s->err + n, s->err_size - n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static char **field(struct seed *s, const char *key)
{
    for (unsigned i = 0; i < FILES; i++)
        if (!strcmp(key, names[i]))
            return &s->path[i];
    if (!strcmp(key, "hostname"))
        return &s->hostname;
    return strcmp(key, "ssh-key") ? NULL : &s->ssh_key_path;
}

static int parse(struct seed *s, const char *text)
{
    static const char hostname_chars[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
    char item[4096];
    int r;

    while ((r = commas_next(&text, item, sizeof(item))) >= 0) {
        char *value = commas_value(item);
        char **to = field(s, item);

        if (!to)
            return fail(s, "'%s' is not user-data, meta-data, network-config, hostname or ssh-key",
                        item);
        if (!value || !*value)
            return fail(s, "%s= needs a value", item);
        if (*to)
            return fail(s, "%s is given twice", item);
        *to = strdup(value);
        if (!*to)
            return fail(s, "out of memory");
    }
    if (r == COMMAS_TOO_LONG)
        return fail(s, "a value is too long");
    if (s->path[META_DATA] && (s->hostname || s->ssh_key_path))
        return fail(s, "hostname and ssh-key are put into the meta-data: leave them out, or it");
    if (s->hostname && (strlen(s->hostname) > 64 ||
                        s->hostname[strspn(s->hostname, hostname_chars)] || s->hostname[0] == '-'))
        return fail(s, "'%s' is no host name", s->hostname);
    return 0;
}

/* Reads a file as text with a NUL behind it. */
static int read_text(struct seed *s, const char *what, const char *path, char **text, size_t *size)
{
    struct image_file f;
    char err[400];
    int r = image_file_open(&f, what, path, FILE_MAX_SIZE, err, sizeof(err));

    if (r)
        return fail(s, "%s", err);
    *size = f.size;
    *text = calloc(1, f.size + 1);
    r = *text ? image_copy(&f, *text, err, sizeof(err)) : -ENOMEM;
    image_close(&f);
    return r ? fail(s, "%s", *text ? err : "out of memory") : 0;
}

/* A public key is one line, which goes into quotes. */
static int read_ssh_key(struct seed *s)
{
    size_t size;
    int r = read_text(s, "ssh-key", s->ssh_key_path, &s->ssh_key, &size);

    if (r)
        return r;
    while (size && strchr("\r\n \t", s->ssh_key[size - 1]))
        s->ssh_key[--size] = 0;
    if (strlen(s->ssh_key) != size || strpbrk(s->ssh_key, "\r\n'\"\\") || !strchr(s->ssh_key, ' '))
        return fail(s, "%s is no public key: one line, as in a .pub file", s->ssh_key_path);
    return 0;
}

/* FNV-1a: cloud-init runs again when the instance id is another one, so it follows from what is
 * to be done. */
static u64 hash(u64 h, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (u8)data[i]) * 0x100000001b3ull;
    return h;
}

static int make_meta_data(struct seed *s)
{
    const char *hostname = s->hostname ? s->hostname : HOSTNAME;
    u64 h = hash(0xcbf29ce484222325ull, hostname, strlen(hostname));
    FILE *out = open_memstream(&s->text[META_DATA], &s->size[META_DATA]);

    if (!out)
        return fail(s, "out of memory");
    for (unsigned i = 0; i < FILES; i++)
        if (i != META_DATA && s->text[i])
            h = hash(h, s->text[i], s->size[i]);
    if (s->ssh_key)
        h = hash(h, s->ssh_key, strlen(s->ssh_key));
    fprintf(out, "instance-id: iid-%016llx\nlocal-hostname: %s\n", (unsigned long long)h, hostname);
    if (s->ssh_key)
        fprintf(out, "public-keys:\n  - '%s'\n", s->ssh_key);
    return fclose(out) ? fail(s, "out of memory") : 0;
}

/* All texts: read, or made where NoCloud demands one. */
static int collect(struct seed *s)
{
    int r = 0;

    for (unsigned i = 0; i < FILES && !r; i++)
        if (s->path[i])
            r = read_text(s, names[i], s->path[i], &s->text[i], &s->size[i]);
    if (!r && s->ssh_key_path)
        r = read_ssh_key(s);
    if (!r && !s->text[USER_DATA]) {
        s->text[USER_DATA] = strdup("#cloud-config\n");
        if (!s->text[USER_DATA])
            return fail(s, "out of memory");
        s->size[USER_DATA] = strlen(s->text[USER_DATA]);
    }
    return !r && !s->text[META_DATA] ? make_meta_data(s) : r;
}

static int build_disk(struct pc *pc, struct seed *s)
{
    struct seed_file files[FILES];
    unsigned n = 0;
    void *data;
    u64 size;
    char err[400];

    for (unsigned i = 0; i < FILES; i++)
        if (s->text[i])
            files[n++] = (struct seed_file){names[i], s->text[i], s->size[i]};
    if (block_seed_build(files, n, &data, &size, err, sizeof(err)))
        return fail(s, "%s", err);
    pc->seed = block_memory_open(data, size);
    return pc->seed ? 0 : fail(s, "out of memory");
}

int pc_open_seed(struct pc *pc)
{
    struct seed s = {.err = pc->err, .err_size = pc->err_size};
    int r;

    if (!pc->cfg->cloud_init)
        return 0;
    r = parse(&s, pc->cfg->cloud_init);
    if (!r)
        r = collect(&s);
    if (!r)
        r = build_disk(pc, &s);
    for (unsigned i = 0; i < FILES; i++) {
        free(s.path[i]);
        free(s.text[i]);
    }
    free(s.hostname);
    free(s.ssh_key_path);
    free(s.ssh_key);
    return r;
}

int pc_create_seed(struct pc *pc)
{
    struct virtio_blk_config cfg = {
        .disk = pc->seed, .name = "seed", .serial = "cidata", .queues = 1};

    if (!pc->seed)
        return 0;
    if (!virtio_blk_create(&pc->vm, pc->pci, PCI_DEVFN(pc->next_slot, 0), &cfg)) {
        snprintf(pc->err, pc->err_size, "--cloud-init: no memory or no slot for its disk");
        return -ENOMEM;
    }
    pc->next_slot++;
    return 0;
}

void pc_close_seed(struct pc *pc)
{
    if (pc->seed)
        pc->seed->ops->close(pc->seed);
    pc->seed = NULL;
}
