/* SPDX-License-Identifier: Apache-2.0 */
/* The validator of FUSE messages. */
#include "backend/share/message.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

static u8 msg[SHAREDEV_REQUEST_MAX + 64] __attribute__((aligned(16)));

/* Checks header + args + tail with a len that is right. Exactly that much memory is given, so that
 * a sanitizer sees what is read beyond. */
static int check(u32 opcode, const void *args, size_t nargs, const char *tail, size_t ntail)
{
    size_t len = sizeof(struct fuse_in_header) + nargs + ntail;
    struct fuse_in_header *h = malloc(len);
    int r;

    assert_non_null(h);
    *h = (struct fuse_in_header){.len = (u32)len, .opcode = opcode, .unique = 1, .nodeid = 1};
    if (nargs)
        memcpy(h + 1, args, nargs);
    if (ntail)
        memcpy((char *)(h + 1) + nargs, tail, ntail);
    r = message_check(h, len);
    free(h);
    return r;
}

#define STRING(s) (s), sizeof(s)
#define NAKED(s) (s), sizeof(s) - 1

static void message__a_name_is_one_component(void **state)
{
    char longest[NAME_MAX + 2];

    (void)state;
    memset(longest, 'x', sizeof(longest));
    longest[NAME_MAX] = '\0';
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("file")), 0);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("...")), 0);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("..a")), 0);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING(".a")), 0);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("\xff\n ")), 0);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, longest, NAME_MAX + 1), 0);
    longest[NAME_MAX] = 'x';
    longest[NAME_MAX + 1] = '\0';
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, longest, NAME_MAX + 2), -ENAMETOOLONG);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("..")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING(".")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("a/b")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("/etc")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("a/")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, NAKED("file")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, STRING("file\0more")), -EINVAL);
    assert_int_equal(check(FUSE_LOOKUP, NULL, 0, NULL, 0), -EINVAL);
}

static void message__every_operation_on_names_checks_them(void **state)
{
    static const struct {
        u32 opcode;
        size_t args;
    } one[] = {
        {FUSE_LOOKUP, 0},
        {FUSE_UNLINK, 0},
        {FUSE_RMDIR, 0},
        {FUSE_MKNOD, sizeof(struct fuse_mknod_in)},
        {FUSE_MKDIR, sizeof(struct fuse_mkdir_in)},
        {FUSE_LINK, sizeof(struct fuse_link_in)},
        {FUSE_CREATE, sizeof(struct fuse_create_in)},
    };
    static const struct {
        u32 opcode;
        size_t args;
    } two[] = {
        {FUSE_RENAME, sizeof(struct fuse_rename_in)},
        {FUSE_RENAME2, sizeof(struct fuse_rename2_in)},
    };
    u8 zero[64] = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(one); i++) {
        assert_int_equal(check(one[i].opcode, zero, one[i].args, STRING("name")), 0);
        assert_int_equal(check(one[i].opcode, zero, one[i].args, STRING("..")), -EINVAL);
        assert_int_equal(check(one[i].opcode, zero, one[i].args, STRING("../x")), -EINVAL);
        assert_int_equal(check(one[i].opcode, zero, one[i].args, NAKED("name")), -EINVAL);
        assert_int_equal(check(one[i].opcode, zero, one[i].args, STRING("name\0x")), -EINVAL);
        if (one[i].args)
            assert_int_equal(check(one[i].opcode, zero, one[i].args - 1, NULL, 0), -EINVAL);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(two); i++) {
        assert_int_equal(check(two[i].opcode, zero, two[i].args, STRING("a\0b")), 0);
        assert_int_equal(check(two[i].opcode, zero, two[i].args, STRING("a")), -EINVAL);
        assert_int_equal(check(two[i].opcode, zero, two[i].args, NAKED("a\0b")), -EINVAL);
        assert_int_equal(check(two[i].opcode, zero, two[i].args, STRING("a\0..")), -EINVAL);
        assert_int_equal(check(two[i].opcode, zero, two[i].args, STRING("..\0b")), -EINVAL);
        assert_int_equal(check(two[i].opcode, zero, two[i].args, STRING("a\0b\0c")), -EINVAL);
    }
}

static void message__a_links_target_is_any_text(void **state)
{
    (void)state;
    assert_int_equal(check(FUSE_SYMLINK, NULL, 0, STRING("l\0../../etc/passwd")), 0);
    assert_int_equal(check(FUSE_SYMLINK, NULL, 0, STRING("l\0")), -EINVAL);
    assert_int_equal(check(FUSE_SYMLINK, NULL, 0, STRING("l")), -EINVAL);
    assert_int_equal(check(FUSE_SYMLINK, NULL, 0, STRING("a/l\0x")), -EINVAL);
    assert_int_equal(check(FUSE_SYMLINK, NULL, 0, NAKED("l\0x")), -EINVAL);
    memset(msg, 'x', PATH_MAX + 2);
    memcpy(msg, "l", 2);
    msg[2 + PATH_MAX - 1] = '\0';
    assert_int_equal(check(FUSE_SYMLINK, NULL, 0, (char *)msg, 2 + PATH_MAX), 0);
    msg[2 + PATH_MAX - 1] = 'x';
    msg[2 + PATH_MAX] = '\0';
    assert_int_equal(check(FUSE_SYMLINK, NULL, 0, (char *)msg, 2 + PATH_MAX + 1), -ENAMETOOLONG);
}

static void message__sizes_are_what_follows(void **state)
{
    struct fuse_write_in w = {.size = 4};
    struct fuse_setxattr_in x = {.size = 3};
    struct fuse_batch_forget_in b = {.count = 2};
    struct fuse_getxattr_in g = {.size = 10};
    char forgets[2 * sizeof(struct fuse_forget_one)] = {0};

    (void)state;
    assert_int_equal(check(FUSE_WRITE, &w, sizeof(w), NAKED("abcd")), 0);
    assert_int_equal(check(FUSE_WRITE, &w, sizeof(w), NAKED("abc")), -EINVAL);
    assert_int_equal(check(FUSE_WRITE, &w, sizeof(w), NAKED("abcde")), -EINVAL);
    w.size = 0xffffffff;
    assert_int_equal(check(FUSE_WRITE, &w, sizeof(w), NAKED("abcd")), -EINVAL);

    assert_int_equal(check(FUSE_SETXATTR, &x, 8, NAKED("user.a\0xyz")), 0);
    assert_int_equal(check(FUSE_SETXATTR, &x, 8, NAKED("user.a\0xy")), -EINVAL);
    assert_int_equal(check(FUSE_SETXATTR, &x, 8, NAKED("user.a\0wxyz")), -EINVAL);
    assert_int_equal(check(FUSE_SETXATTR, &x, 8, NAKED("user.a")), -EINVAL);
    assert_int_equal(check(FUSE_SETXATTR, &x, 8, NAKED("\0xyz")), -EINVAL);
    assert_int_equal(check(FUSE_GETXATTR, &g, sizeof(g), STRING("user.a")), 0);
    assert_int_equal(check(FUSE_GETXATTR, &g, sizeof(g), NAKED("user.a")), -EINVAL);
    assert_int_equal(check(FUSE_LISTXATTR, &g, sizeof(g), NULL, 0), 0);

    assert_int_equal(check(FUSE_BATCH_FORGET, &b, sizeof(b), forgets, sizeof(forgets)), 0);
    assert_int_equal(check(FUSE_BATCH_FORGET, &b, sizeof(b), forgets, sizeof(forgets) - 1),
                     -EINVAL);
    b.count = 0x10000002; /* times 16 is the same in 32 bits */
    assert_int_equal(check(FUSE_BATCH_FORGET, &b, sizeof(b), forgets, sizeof(forgets)), -EINVAL);
}

static void message__replies_have_a_limit(void **state)
{
    struct fuse_read_in r = {.size = SHAREDEV_DATA_MAX};
    static const u32 ops[] = {FUSE_READ, FUSE_READDIR, FUSE_READDIRPLUS};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
        r.size = SHAREDEV_DATA_MAX;
        assert_int_equal(check(ops[i], &r, sizeof(r), NULL, 0), 0);
        r.size++;
        assert_int_equal(check(ops[i], &r, sizeof(r), NULL, 0), -EINVAL);
        assert_int_equal(check(ops[i], &r, sizeof(r) - 1, NULL, 0), -EINVAL);
        assert_int_equal(check(ops[i], &r, sizeof(r), NAKED("x")), -EINVAL);
    }
}

static void message__init_is_of_a_protocol_that_is_spoken(void **state)
{
    struct fuse_init_in in = {.major = 7, .minor = 31};

    (void)state;
    assert_int_equal(check(FUSE_INIT, &in, 16, NULL, 0), 0);
    assert_int_equal(check(FUSE_INIT, &in, 15, NULL, 0), -EINVAL);
    assert_int_equal(check(FUSE_INIT, &in, sizeof(in), NULL, 0), 0);
    in.flags = FUSE_INIT_EXT;
    assert_int_equal(check(FUSE_INIT, &in, 16, NULL, 0), -EINVAL);
    assert_int_equal(check(FUSE_INIT, &in, sizeof(in) - 1, NULL, 0), -EINVAL);
    assert_int_equal(check(FUSE_INIT, &in, sizeof(in), NULL, 0), 0);
    in.minor = 30;
    assert_int_equal(check(FUSE_INIT, &in, sizeof(in), NULL, 0), -EPROTO);
    in = (struct fuse_init_in){.major = 8, .minor = 50};
    assert_int_equal(check(FUSE_INIT, &in, sizeof(in), NULL, 0), -EPROTO);
    in.major = 6;
    assert_int_equal(check(FUSE_INIT, &in, sizeof(in), NULL, 0), -EPROTO);
}

static void message__headers_are_whole_and_true(void **state)
{
    struct fuse_in_header *h = (void *)msg;

    (void)state;
    memset(msg, 0, sizeof(msg));
    h->opcode = FUSE_STATFS;
    h->len = sizeof(*h);
    assert_int_equal(message_check(msg, sizeof(*h)), 0);
    assert_int_equal(message_check(msg, sizeof(*h) - 1), -EINVAL);
    h->len = sizeof(*h) + 1;
    assert_int_equal(message_check(msg, sizeof(*h)), -EINVAL);
    h->len = sizeof(*h) - 1;
    assert_int_equal(message_check(msg, sizeof(*h)), -EINVAL);
    h->opcode = FUSE_WRITE;
    h->len = SHAREDEV_REQUEST_MAX;
    ((struct fuse_write_in *)(void *)(h + 1))->size = SHAREDEV_DATA_MAX;
    assert_int_equal(message_check(msg, h->len), 0);
    h->len++;
    ((struct fuse_write_in *)(void *)(h + 1))->size++;
    assert_int_equal(message_check(msg, h->len), -EINVAL);
}

static void message__other_opcodes_are_not_served(void **state)
{
    static const u32 unserved[] = {
        0,         FUSE_GETLK, FUSE_SETLK, FUSE_SETLKW,       FUSE_ACCESS,       FUSE_INTERRUPT,
        FUSE_BMAP, FUSE_IOCTL, FUSE_POLL,  FUSE_NOTIFY_REPLY, FUSE_SETUPMAPPING, FUSE_SYNCFS,
        CUSE_INIT, 4095,       4097,       0xffffffff};
    u8 zero[128] = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(unserved); i++)
        for (size_t n = 0; n < sizeof(zero); n += 8)
            assert_int_equal(check(unserved[i], zero, n, NULL, 0), -ENOSYS);
    assert_true(message_wants_reply(0xffffffff));
    assert_false(message_wants_reply(FUSE_FORGET));
    assert_false(message_wants_reply(FUSE_BATCH_FORGET));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message__a_name_is_one_component),
        cmocka_unit_test(message__every_operation_on_names_checks_them),
        cmocka_unit_test(message__a_links_target_is_any_text),
        cmocka_unit_test(message__sizes_are_what_follows),
        cmocka_unit_test(message__replies_have_a_limit),
        cmocka_unit_test(message__init_is_of_a_protocol_that_is_spoken),
        cmocka_unit_test(message__headers_are_whole_and_true),
        cmocka_unit_test(message__other_opcodes_are_not_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
