/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel of which partition: the policy. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/bootdisk/bootdisk.h"
#include "backend/bootdisk/ext.h"
#include "backend/bootdisk/loader.h"

#define CONFIG_MAX (1u << 20)
/* For metadata, beside the files themselves. */
#define BUDGET (256ull << 20)

struct search {
    const struct bootdisk_request *rq;
    struct bootdisk_answer *out;
    struct disk disk;
    struct disk_part part[DISK_PARTS_MAX];
    unsigned n_parts;
    char *err;
    size_t err_size;
    char refusal[256]; /* the first reason why a partition was passed over */
};

static int fail(struct search *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct search *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(s->err, s->err_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* "partition 2", or "the disk" where there are none. */
static const char *name_part(const struct disk_part *p, char *buf, size_t size)
{
    if (p->number)
        snprintf(buf, size, "partition %u", p->number);
    else
        snprintf(buf, size, "the disk");
    return buf;
}

/* --- the four ways to know what to start --- */

struct best {
    char name[BOOTDISK_PATH_MAX];
    const char *prefix, *suffix;
};

/* Keeps the highest version of PREFIX...SUFFIX; rescue systems and backups do not count. */
static void keep_best(void *opaque, const char *name)
{
    struct best *b = opaque;
    size_t n = strlen(name), p = strlen(b->prefix), s = strlen(b->suffix);

    if (n <= p + s || n >= sizeof(b->name) - 32 || strncmp(name, b->prefix, p) != 0 ||
        strcmp(name + n - s, b->suffix) != 0 || strstr(name, "rescue") ||
        (n > 4 && !strcmp(name + n - 4, ".old")))
        return;
    if (!b->name[0] || strverscmp(name, b->name) > 0)
        memcpy(b->name, name, n + 1);
}

static bool find_bls(struct ext *e, struct loader_entry *entry)
{
    static const char *const dirs[] = {"/loader/entries", "/boot/loader/entries"};

    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        struct best b = {.prefix = "", .suffix = ".conf"};
        char path[BOOTDISK_PATH_MAX + 32], *text;
        bool found;

        ext_list(e, dirs[i], keep_best, &b);
        if (!b.name[0])
            continue;
        snprintf(path, sizeof(path), "%s/%s", dirs[i], b.name);
        text = ext_text(e, path, CONFIG_MAX);
        found = text && loader_bls(text, entry) && ext_exists(e, entry->kernel);
        free(text);
        if (found)
            return true;
    }
    return false;
}

static bool find_grub(struct ext *e, struct loader_entry *entry)
{
    static const char *const files[] = {"/boot/grub/grub.cfg", "/boot/grub2/grub.cfg",
                                        "/grub/grub.cfg", "/grub2/grub.cfg"};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        char *text = ext_text(e, files[i], CONFIG_MAX);
        bool found = text && loader_grub(text, entry) && ext_exists(e, entry->kernel);

        free(text);
        if (found)
            return true;
    }
    return false;
}

static void set_initrd(struct ext *e, struct loader_entry *entry, const char *path)
{
    if (entry->n_initrd || strlen(path) >= BOOTDISK_PATH_MAX || !ext_exists(e, path))
        return;
    strcpy(entry->initrd[0], path);
    entry->n_initrd = 1;
}

/* Debian's links, kept up to date by its kernel packages. */
static bool find_links(struct ext *e, struct loader_entry *entry)
{
    static const char *const dirs[] = {"", "/boot"};

    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        char initrd[32];

        memset(entry, 0, sizeof(*entry));
        snprintf(entry->kernel, sizeof(entry->kernel), "%s/vmlinuz", dirs[i]);
        if (!ext_exists(e, entry->kernel))
            continue;
        snprintf(initrd, sizeof(initrd), "%s/initrd.img", dirs[i]);
        set_initrd(e, entry, initrd);
        return true;
    }
    return false;
}

static bool find_newest(struct ext *e, struct loader_entry *entry)
{
    static const char *const dirs[] = {"/boot", ""};
    /* Debian, Fedora, SUSE, Alpine. */
    static const char *const forms[][2] = {
        {"initrd.img-", ""}, {"initramfs-", ".img"}, {"initrd-", ""}, {"initramfs-", ""}};

    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        struct best b = {.prefix = "vmlinuz-", .suffix = ""};
        const char *version = b.name + strlen("vmlinuz-");

        ext_list(e, *dirs[i] ? dirs[i] : "/", keep_best, &b);
        if (!b.name[0])
            continue;
        memset(entry, 0, sizeof(*entry));
        snprintf(entry->kernel, sizeof(entry->kernel), "%s/%.240s", dirs[i], b.name);
        for (size_t k = 0; k < ARRAY_SIZE(forms); k++) {
            char path[BOOTDISK_PATH_MAX + 32];

            snprintf(path, sizeof(path), "%s/%s%s%s", dirs[i], forms[k][0], version, forms[k][1]);
            set_initrd(e, entry, path);
        }
        return true;
    }
    return false;
}

static bool find_entry(struct ext *e, struct loader_entry *entry)
{
    return find_bls(e, entry) || find_grub(e, entry) || find_links(e, entry) ||
           find_newest(e, entry);
}

/* --- the root file system --- */

static bool is_root(struct ext *e)
{
    return ext_exists(e, "/sbin/init") || ext_exists(e, "/etc/fstab") ||
           ext_exists(e, "/usr/lib/systemd/systemd");
}

/* root=: only an initrd can find a file system by its own UUID. */
static void name_root(const struct ext *e, const struct disk_part *p, bool initrd, char *buf,
                      size_t size)
{
    char uuid[37];

    ext_uuid(e, uuid);
    if (initrd)
        snprintf(buf, size, "root=UUID=%s ro", uuid);
    else if (p->uuid[0])
        snprintf(buf, size, "root=PARTUUID=%s ro", p->uuid);
    else if (p->number)
        snprintf(buf, size, "root=/dev/vda%u ro", p->number);
    else
        snprintf(buf, size, "root=/dev/vda ro");
}

/* Looks for root in the partitions other than the one the kernel is in. */
static bool find_root(struct search *s, const struct disk_part *not_here, bool initrd, char *buf,
                      size_t size)
{
    char why[128];

    for (unsigned i = 0; i < s->n_parts; i++) {
        const struct disk_part *p = &s->part[i];
        const char *kind = p == not_here ? NULL : disk_identify(&s->disk, p);
        struct ext *e =
            kind && !strcmp(kind, "ext4") ? ext_open(&s->disk, p, why, sizeof(why)) : NULL;
        bool found = e && is_root(e);

        if (found)
            name_root(e, p, initrd, buf, size);
        ext_close(e);
        if (found)
            return true;
    }
    return false;
}

static int add_root(struct search *s, struct ext *e, const struct disk_part *p,
                    const struct loader_entry *entry)
{
    char root[64], name[32];

    if (s->rq->root_known || loader_has(entry->args, "root=")) {
        snprintf(s->out->args, sizeof(s->out->args), "%s", entry->args);
        return 0;
    }
    if (is_root(e))
        name_root(e, p, entry->n_initrd, root, sizeof(root));
    else if (!find_root(s, p, entry->n_initrd, root, sizeof(root)))
        return fail(s, "%s of %s is a kernel, but where is its root file system? Say root= with -a",
                    entry->kernel, name_part(p, name, sizeof(name)));
    snprintf(s->out->args, sizeof(s->out->args), "%s%s%.*s", root, entry->args[0] ? " " : "",
             (int)(sizeof(s->out->args) - sizeof(root) - 2), entry->args);
    return 0;
}

/* --- reading --- */

static int copy(struct search *s, struct ext *e, const struct disk_part *p, const char *path,
                const struct bootdisk_sink *sink)
{
    char why[160] = "it is not there or no regular file", name[32];
    int r;

    s->disk.budget += sink->limit;
    r = ext_copy(e, path, sink, why, sizeof(why));
    return r ? fail(s, "%s of %s cannot be read: %s", path, name_part(p, name, sizeof(name)), why)
             : 0;
}

struct counted {
    const struct bootdisk_sink *to;
    u64 n;
};

static int counted_write(void *opaque, const void *buf, size_t len)
{
    struct counted *c = opaque;

    c->n += len;
    return c->to->write(c->to->opaque, buf, len);
}

/* Several initrds become one: each begins at a multiple of 4 (Linux
 * Documentation/driver-api/early-userspace/buffer-format.rst). */
static int copy_initrds(struct search *s, struct ext *e, const struct disk_part *p,
                        const struct loader_entry *entry)
{
    static const u8 zero[4];
    struct counted c = {.to = &s->rq->initrd};
    struct bootdisk_sink sink = {.write = counted_write, .opaque = &c};
    int r = 0;

    for (unsigned i = 0; i < entry->n_initrd && !r; i++) {
        if (c.n % 4)
            r = counted_write(&c, zero, 4 - c.n % 4);
        if (r)
            return fail(s, "the initrd cannot be stored: %s", strerror(-r));
        sink.limit = c.n < s->rq->initrd.limit ? s->rq->initrd.limit - c.n : 0;
        r = copy(s, e, p, entry->initrd[i], &sink);
    }
    return r;
}

/* 0: booting from this partition. 1: nothing to boot here, see s->refusal. Or -errno. */
static int try_partition(struct search *s, const struct disk_part *p)
{
    const char *kind = disk_identify(&s->disk, p);
    struct loader_entry *entry;
    char why[160], name[32];
    struct ext *e;
    int r;

    name_part(p, name, sizeof(name));
    if (!kind || strcmp(kind, "ext4") != 0) {
        /* An EFI system partition or swap space is nothing a user would wonder about. */
        if (kind && !s->refusal[0] && strcmp(kind, "FAT") != 0 && strcmp(kind, "swap space") != 0)
            snprintf(s->refusal, sizeof(s->refusal),
                     "%s holds %s, which kernels are not read from (only ext2, ext3 and ext4): "
                     "give the kernel with -k and -i",
                     name, kind);
        return 1;
    }
    e = ext_open(&s->disk, p, why, sizeof(why));
    if (!e) {
        snprintf(s->refusal, sizeof(s->refusal), "the file system of %s cannot be read: %s", name,
                 why);
        return 1;
    }
    entry = malloc(sizeof(*entry));
    if (!entry) {
        r = fail(s, "out of memory");
    } else if (!find_entry(e, entry)) {
        if (s->disk.spent)
            snprintf(s->refusal, sizeof(s->refusal), "the file system of %s is damaged", name);
        r = 1;
    } else {
        snprintf(s->out->kernel, sizeof(s->out->kernel), "%s", entry->kernel);
        s->out->has_initrd = entry->n_initrd;
        r = add_root(s, e, p, entry);
        if (!r)
            r = copy(s, e, p, entry->kernel, &s->rq->kernel);
        if (!r)
            r = copy_initrds(s, e, p, entry);
    }
    free(entry);
    ext_close(e);
    return r;
}

/* Linux' boot protocol: "HdrS" at 0x202. */
static bool is_bzimage(struct disk *d)
{
    u8 sectors[1024];

    return !disk_read(d, sectors, sizeof(sectors), 0) && !memcmp(sectors + 0x202, "HdrS", 4);
}

int bootdisk_prepare(char *why, size_t why_size)
{
    return ext_prepare(why, why_size);
}

int bootdisk_read(const struct bootdisk_request *rq, struct bootdisk_answer *out, char *err,
                  size_t err_size)
{
    struct search *s = calloc(1, sizeof(*s));
    int r;

    memset(out, 0, sizeof(*out));
    if (!s) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    s->rq = rq;
    s->out = out;
    s->disk.src = rq->disk;
    s->disk.budget = BUDGET;
    s->err = err;
    s->err_size = err_size;
    r = disk_partitions(&s->disk, s->part, DISK_PARTS_MAX);
    if (r < 0) {
        fail(s, "the partition table cannot be read: %s", strerror(-r));
    } else {
        s->n_parts = (unsigned)r;
        r = 1;
        for (unsigned i = 0; i < s->n_parts && r == 1; i++)
            r = try_partition(s, &s->part[i]);
        if (r == 1)
            r = s->refusal[0]
                    ? fail(s, "%s", s->refusal)
                    : fail(s, "no kernel is on it (/vmlinuz, /boot/vmlinuz-*, or what GRUB or a "
                              "boot entry names): give one with -k");
    }
    if (r && is_bzimage(&s->disk))
        r = fail(s, "it is a kernel, not a disk: give it with -k");
    free(s);
    return r;
}
