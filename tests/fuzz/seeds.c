/* SPDX-License-Identifier: Apache-2.0 */
/* Writes what the fuzzers start from to DIR/NAME for every target. */
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/qcow2_image.h"
#include "board/images.h"
#include "config/config.h"
#include "core/cpu_state.h"

static u8 image[TEST_IMAGE_MAX];

static int put(const char *dir, const char *sub, unsigned n, const void *data, u64 size)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, sub);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/seed%u", dir, sub, n);
    f = fopen(path, "wbe");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f)) {
        perror(path);
        return 1;
    }
    return 0;
}

/* Small file systems of several makes with a kernel in each, as disks without partitions; mke2fs is
 * the one that knows them. */
static int put_disks(const char *dir)
{
    static const char *const makes[] = {
        "ext2 -I 128", "ext4 -O ^has_journal",
        "ext4 -O ^has_journal,^metadata_csum,^64bit,inline_data -I 256"};
    static const char tree[] =
        "mkdir -p boot/grub etc loader/entries && echo kernel >boot/vmlinuz-6.1 && "
        "echo initrd >boot/initrd.img-6.1 && ln -s boot/vmlinuz-6.1 vmlinuz && touch etc/fstab && "
        "printf 'linux /boot/vmlinuz-6.1 root=/dev/vda1 ro\\ninitrd /boot/initrd.img-6.1\\n}\\n' "
        ">boot/grub/grub.cfg && printf 'linux /vmlinuz\\noptions quiet\\n' "
        ">loader/entries/a.conf";
    char command[2048];
    int bad = 0;

    for (size_t i = 0; i < ARRAY_SIZE(makes); i++) {
        snprintf(command, sizeof(command),
                 "cd '%s' && rm -rf tree && mkdir -p tree bootdisk && (cd tree && %s) && "
                 "PATH=$PATH:/usr/sbin:/sbin mke2fs -q -F -b 1024 -N 24 -t %s -d tree "
                 "bootdisk/seed%zu 120k "
                 ">/dev/null 2>&1 && rm -rf tree",
                 dir, tree, makes[i], i);
        bad |= system(command) != 0;
    }
    return bad;
}

/* What gdb says, in the form fuzz-gdb takes: lines without frames, and the stream itself. */
static int put_packets(const char *dir)
{
    static const char *const s[] = {
        "\x04qSupported:swbreak+;hwbreak+\nHg0\n?\nqfThreadInfo\nqXfer:features:read:target.xml:0,"
        "400"
        "\ng\nm1000,40\nZ0,1000,1\nvCont;c\nz0,1000,1\nvCont;r1000,1010:1;c\nD",
        "\x02p1\nP1=0100000000000000\nM1000,2:4141\nX1000,1:a\nZ2,2000,8\nvCont;s:2\nk",
        ("\x08qRcmd,72656773\nqqemu.PhyMemMode\nQqemu.PhyMemMode:1\nQqemu.sstep=1\nvKill;1\nT1\nHc-"
         "1"),
        "\x01+$QStartNoAckMode#b0+$qC#b4$m0,4#fd\x03-"};
    int bad = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(s); i++)
        bad |= put(dir, "gdb", i, s[i], strlen(s[i]));
    return bad;
}

/* Images of several shapes, with requests before them (qcow2.c). */
static int put_qcow2(const char *dir)
{
    static const struct qcow2_shape shapes[] = {
        {.version = 3, .cluster_bits = 9, .refcount_order = 4},
        {.version = 2, .cluster_bits = 9, .refcount_order = 4, .backing = "/proc/self/exe"},
        {.version = 3, .cluster_bits = 9, .refcount_order = 6, .zstd = true, .snapshot = true},
        {.version = 3, .cluster_bits = 10, .refcount_order = 0},
        {.version = 3, .cluster_bits = 12, .refcount_order = 3, .snapshot = true},
        {.version = 3, .cluster_bits = 9, .refcount_order = 4, .snapshot = true, .dirty = true},
    };
    static const u8 requests[] = {7, 0, /* read, write, flush, discard, zero, unmap, flush */
                                  0, 0, 0, 0, 32, 0, 0, 0, 1, 1, 0, 0, 9, 0, 0, 0, 2, 0, 0,
                                  0, 0, 0, 0, 0,  3, 2, 0, 0, 4, 0, 0, 0, 4, 4, 0, 0, 3, 0,
                                  0, 0, 8, 0, 0,  0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0};
    static u8 file[sizeof(requests) + QCOW2_IMAGE_MAX];
    int bad = 0;

    memcpy(file, requests, sizeof(requests));
    for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
        size_t n = make_qcow2(file + sizeof(requests), &shapes[i]);

        bad |= put(dir, "qcow2", i, file, sizeof(requests) + n);
    }
    return bad;
}

/* A message of each shape. */
static int put_messages(const char *dir)
{
    static const struct {
        u32 opcode, args;
        const char *tail;
        u32 ntail;
    } m[] = {{FUSE_LOOKUP, 0, "name", 5},
             {FUSE_FORGET, 8, "", 0},
             {FUSE_GETATTR, 16, "", 0},
             {FUSE_SETATTR, 88, "", 0},
             {FUSE_SYMLINK, 0, "name\0target", 12},
             {FUSE_MKNOD, 16, "name", 5},
             {FUSE_LINK, 8, "name", 5},
             {FUSE_RENAME, 8, "one\0two", 8},
             {FUSE_RENAME2, 16, "one\0two", 8},
             {FUSE_CREATE, 16, "name", 5},
             {FUSE_WRITE, 40, "", 0},
             {FUSE_SETXATTR, 8, "user.a", 7},
             {FUSE_GETXATTR, 8, "user.a", 7},
             {FUSE_REMOVEXATTR, 0, "user.a", 7},
             {FUSE_BATCH_FORGET, 8, "", 0},
             {FUSE_READDIRPLUS, 40, "", 0},
             {FUSE_COPY_FILE_RANGE, 56, "", 0}};
    int bad = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(m); i++) {
        struct fuse_in_header *h = (void *)image;

        memset(image, 0, 256);
        h->len = 1 | (u32)sizeof(*h); /* bit 0: to a session that has begun (share.c) */
        h->opcode = m[i].opcode;
        memcpy(image + sizeof(*h) + m[i].args, m[i].tail, m[i].ntail);
        bad |= put(dir, "share", i, image, sizeof(*h) + m[i].args + m[i].ntail);
    }
    return bad;
}

/* A TCP SYN over IPv4, one over IPv6, a datagram, all to be checksummed by us. */
static int put_frames(const char *dir)
{
    static const u8 tcp[] = {0x9c, 0x40, 0,    80,   0, 0, 0, 1, 0, 0, 0,    0,
                             0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 0x05, 0xb4};
    static const u8 udp[] = {0x9c, 0x40, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4};
    static const u8 ip4[] = {0x45, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2};
    int bad = 0;

    for (unsigned i = 0; i < 3; i++) {
        const u8 *l4 = i == 2 ? udp : tcp;
        unsigned n = i == 2 ? sizeof(udp) : sizeof(tcp), ip = i == 1 ? 40 : 20;

        memset(image, 0, 200);
        image[0] = 1; /* needs a checksum, from here */
        image[6] = (u8)(14 + ip);
        image[8] = i == 2 ? 6 : 16;
        image[12 + 12] = i == 1 ? 0x86 : 0x08;
        image[12 + 13] = i == 1 ? 0xdd : 0x00;
        if (i == 1) {
            image[26] = 0x60;
            image[31] = (u8)n;
            image[32] = 6;
        } else {
            memcpy(image + 26, ip4, sizeof(ip4));
            image[29] = (u8)(20 + n);
            image[35] = i == 2 ? 17 : 6;
        }
        memcpy(image + 26 + ip, l4, n);
        bad |= put(dir, "net", i, image, 26 + ip + n);
    }
    return bad;
}

/* virtqueue.c's language: the device, queues in good order, a descriptor of each queue, available
 * and notified. */
static int put_drivers(const char *dir)
{
    int bad = 0;

    for (u8 n = 0; n < 12; n++) {
        u8 device = n % 3, how = (u8)(8 | n / 3), *p = image;

        *p++ = device;
        *p++ = 6;
        *p++ = how;
        for (u8 q = 0; q < 6; q++) {
            /* In a packed ring id and flags are the other way round. */
            u8 flags = q % 2 ? 0 : 2;
            const u8 text[] = {
                9, 0, q, how & 1 ? 0 : flags, 0, 0, 0x10, 64, how & 1 ? 0x80 | flags : 0, 10, q, 0,
                2, q, 3};

            memcpy(p, text, sizeof(text));
            p += sizeof(text);
        }
        bad |= put(dir, "virtqueue", n, image, (u64)(p - image));
    }
    return bad;
}

/* virtio_state.c's: a device, how its queues are, changes, and what happens after the load. */
static int put_states(const char *dir)
{
    static const u8 as_it_was[] = {0, 0, 0, 0, 1, 5, 0, 1, 2, 1, 129, 5, 0, 1, 128};
    static const u8 changed[] = {2, 5, 0x80, 1, 30, 0x80, 3, 0, 0, 0, 1, 5, 0, 1, 2};
    int bad = 0;

    for (u8 n = 0; n < 28; n++) {
        image[0] = n / 4;
        image[1] = n % 4;
        memcpy(image + 2, as_it_was, sizeof(as_it_was));
        bad |= put(dir, "virtio_state", n, image, 2 + sizeof(as_it_was));
        memcpy(image + 2, changed, sizeof(changed));
        bad |= put(dir, "virtio_state", 28u + n, image, 2 + sizeof(changed));
    }
    return bad;
}

/* vsock.c's language: buffers, a connection of either side's making, data, its end. */
static int put_vsock(const char *dir)
{
    static const u8 talk[] = {
        3, 0,    0x10, 3, 0, 0x10, 3,    0, 0x10,                   /* buffers */
        0, 0xe1, 0,    0, 3, 1,    1,    1, 0,    0, 6,             /* REQUEST */
        4, 0,    1,    6,                                           /* is accepted */
        0, 0xe1, 0,    4, 3, 1,    1,    5, 0,    0, 6, 4, 0, 0, 6, /* 1024 bytes, and some back */
        0, 0xe1, 0,    0, 3, 1,    1,    4, 3,    0, 6, 4, 0, 1, 6, /* SHUTDOWN */
        4, 1,    2,    6, 0, 0xc1, 0,    0, 3,    1, 2, 0, 0, 6, /* the host's CONNECT, RESPONSE */
        4, 1,    0,    6, 3, 0,    0x10, 4, 1,    0, 6};
    int bad = 0;

    for (u8 mode = 0; mode < 4; mode++) {
        image[0] = mode;
        memcpy(image + 1, talk, sizeof(talk));
        bad |= put(dir, "vsock", mode, image, 1 + sizeof(talk));
    }
    return bad;
}

/* devstate.c's language: a device as it is saved, with a bit changed or without, and then every
 * register of the chipset, some time and what it has brought. */
static int put_devices(const char *dir)
{
    int bad = 0;

    for (u8 dev = 0; dev < 34; dev++) {
        u64 n = 0;
        image[n++] = 0x80 | dev / 2;
        image[n++] = dev & 1;
        if (dev & 1) {
            image[n++] = 30;
            image[n++] = 0;
            image[n++] = 1;
        }
        for (unsigned i = 0; i < 256; i++) {
            const u8 ops[] = {0, (u8)i, (u8)(37 * i), 0,    2, (u8)i, (u8)i, 5,     0, 0,
                              4, (u8)i, (u8)i,        0x80, 0, 0,     5,     (u8)i, 6, (u8)i};
            memcpy(image + n, ops, sizeof(ops));
            n += sizeof(ops);
        }
        bad |= put(dir, "devstate", dev, image, n);
    }
    return bad;
}

/* Both ends' messages and frames, as console.c and agent.c take them. */
static int put_talk(const char *dir)
{
    static const char client[] = "\0\0\6\0itext\n\1\4\0\5\0w\1\0\2\0\2\0\1\3\0\1\0d\0\1\0q";
    static const char machine[] = "\1\0\1\3\0hvm\6\0r\033[6nx\3\0oab\11\0l\1\0\0\0\0\0\0\0\1\0e";
    static const char guest[] = "\0\1\0\10o\5\0hello\3\10\2\5\0\11c\2\0\4\0x\1\0\7";
    static const char agent[] = "\1\10\0i\5\0hello\1\7\0w\4\0\1\0\2\0\1\4\0p\1\0\1\0\3\0z\0\0\1";
    int bad = put(dir, "console", 0, client, sizeof(client) - 1);

    bad |= put(dir, "console", 1, machine, sizeof(machine) - 1);
    bad |= put(dir, "agent", 0, guest, sizeof(guest) - 1);
    return bad | put(dir, "agent", 1, agent, sizeof(agent) - 1);
}

static void host_cpuid(u32 leaf, u32 subleaf, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

/* This host's CPU after RESET. */
static int put_cpu(const char *dir)
{
    static struct x86_vcpu_state s;
    static struct x86_cpu_model m;
    struct stream out;

    x86_cpu_model_build(&m, host_cpuid, 0xe7,
                        &(struct x86_cpu_options){.ncpus = 2, .tsc_khz = 2000000});
    x86_state_reset(&s, m.signature, 1000);
    stream_init(&out, image, sizeof(image));
    x86_cpu_model_save(&m, &out);
    x86_vcpu_state_save(&s, &m, 2000, &out);
    return out.error || put(dir, "cpu", 0, image, out.pos);
}

int main(int argc, char **argv)
{
    static const char ask_pause[] = "{\"command\": \"pause\", \"id\": 12}";
    static const char ask_stop[] = "{\"id\":\"\\u00e4\",\"command\":\"stop\"}";
    int bad = 0;

    if (argc != 2)
        return 2;
    mkdir(argv[1], 0777);
    bad |= put_messages(argv[1]);
    bad |= put_frames(argv[1]);
    bad |= put_packets(argv[1]);
    bad |= put_drivers(argv[1]);
    bad |= put_devices(argv[1]);
    bad |= put(argv[1], "loaders", 0, image, make_bzimage(image));
    bad |= put(argv[1], "loaders", 1, image, make_pvh_elf(image, false));
    bad |= put(argv[1], "loaders", 2, image, make_pvh_elf(image, true));
    bad |= put(argv[1], "loaders", 3, image, make_multiboot_elf(image));
    bad |= put(argv[1], "loaders", 4, image, make_multiboot_flat(image));
    for (size_t i = 0; i < config_n_options; i++) {
        int n = snprintf((char *)image, sizeof(image), "--%s", config_options[i].name) + 1;

        n += snprintf((char *)image + n, sizeof(image) - (size_t)n, "%s",
                      config_options[i].value ? config_options[i].value : "x") +
             1;
        bad |= put(argv[1], "options", (unsigned)i, image, (u64)n);
    }
    bad |= put_disks(argv[1]);
    bad |= put_qcow2(argv[1]);
    bad |= put_vsock(argv[1]);
    bad |= put_states(argv[1]);
    bad |= put_talk(argv[1]);
    bad |= put_cpu(argv[1]);
    bad |= put(argv[1], "control", 0, ask_pause, sizeof(ask_pause) - 1);
    bad |= put(argv[1], "control", 1, ask_stop, sizeof(ask_stop) - 1);
    return bad;
}
