/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "test.h"

static struct config c;
static char err[256];

typedef int parser(struct config *c, int argc, char **argv, char *err, size_t err_size);

static int parse_by(parser *fn, const char *line)
{
    static char copy[512];
    char *argv[32];
    int argc = 0;

    strcpy(copy, line);
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
        argv[argc++] = w;
    config_defaults(&c);
    err[0] = 0;
    return fn(&c, argc, argv, err, sizeof(err));
}

static int parse(const char *line)
{
    return parse_by(config_parse, line);
}

static void config__defaults_come_from_the_table(void **state)
{
    (void)state;
    unsetenv("TRIVISOR_ENGINE");
    assert_int_equal(parse(""), 0);
    assert_string_equal(c.engine, "auto");
    assert_int_equal(c.memory, 512ull << 20);
    assert_int_equal(c.cpus, 1);
    assert_string_equal(c.serial, "stdio");
    assert_null(c.kernel);
    assert_false(c.stats);
}

static void config__takes_every_spelling(void **state)
{
    (void)state;
    assert_int_equal(parse("-m 1G -c2 --kernel=k --initrd i -a x --stats -q"), 0);
    assert_int_equal(c.memory, 1ull << 30);
    assert_int_equal(c.cpus, 2);
    assert_string_equal(c.kernel, "k");
    assert_string_equal(c.initrd, "i");
    assert_string_equal(c.append, "x");
    assert_true(c.stats);
    assert_true(c.quiet);
    assert_int_equal(parse("-m 1G --memory 64"), 0);
    assert_int_equal(c.memory, 64ull << 20);
}

static void config__refuses_with_one_line(void **state)
{
    static const char *const lines[] = {"--nonsense",
                                        "-z",
                                        "-m",
                                        "-m 0",
                                        "-m x",
                                        "-m -5",
                                        "-m 1X",
                                        "-m 1GG",
                                        "-m 99999999T",
                                        "-m 99999999999999999999",
                                        "-m 1",
                                        "-c 0",
                                        "-c 9",
                                        "-c",
                                        "-c 1x",
                                        "--cpus=",
                                        "--engine x",
                                        "--engine ",
                                        "--serial x",
                                        "--serial file:",
                                        "--name -x",
                                        "--name a/b",
                                        "--name=",
                                        "--name ..",
                                        "--serial log:",
                                        "--serial log:x,size=1K",
                                        "--serial log:x,size=y",
                                        "--serial unix:",
                                        "--console-log 1K",
                                        "--detach=1",
                                        "--stats=1",
                                        "one two",
                                        "--",
                                        "-",
                                        "--kernel=",
                                        "-kernel k",
                                        "-append=x",
                                        "-smp 2",
                                        "--bt-mode fast",
                                        "--=",
                                        "-c 18446744073709551617"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        if (parse(lines[i]) != -EINVAL)
            fail_msg("'%s' was taken", lines[i]);
        assert_true(err[0] && !strchr(err, '\n'));
    }
}

static void config__takes_what_a_serial_port_can_be(void **state)
{
    static const char *const values[] = {"stdio",         "null",           "pty",
                                         "file:a,b",      "unix:s",         "log:f",
                                         "log:f,size=1M", "log:f,size=64K", "log:a,b,size=256M"};
    char line[64];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        snprintf(line, sizeof(line), "--serial %s", values[i]);
        assert_int_equal(parse(line), 0);
        assert_string_equal(c.serial, values[i]);
    }
    assert_int_equal(parse("--name a.b_c-9 --detach --console-log 64K"), 0);
    assert_string_equal(c.name, "a.b_c-9");
    assert_true(c.detach);
    assert_int_equal(c.console_log, 65536);
}

static void config__reads_the_environment_last(void **state)
{
    (void)state;
    setenv("TRIVISOR_ENGINE", "bt", 1);
    assert_int_equal(parse(""), 0);
    assert_string_equal(c.engine, "bt");
    assert_int_equal(parse("--engine auto"), 0);
    assert_string_equal(c.engine, "auto");
    setenv("TRIVISOR_ENGINE", "vax", 1);
    assert_int_equal(parse(""), -EINVAL);
    assert_non_null(strstr(err, "TRIVISOR_ENGINE"));
    unsetenv("TRIVISOR_ENGINE");
}

static void config__a_word_is_the_first_disk(void **state)
{
    (void)state;
    assert_int_equal(parse("-d two a.img -m 64 -d three,ro"), 0);
    assert_int_equal(c.disk.n, 3);
    assert_string_equal(c.disk.item[0], "a.img");
    assert_string_equal(c.disk.item[1], "two");
    assert_string_equal(c.disk.item[2], "three,ro");
    assert_int_not_equal(parse("a.img b.img"), 0);
    assert_non_null(strstr(err, "b.img"));
    assert_int_not_equal(parse(",format=raw"), 0);
}

static void config__memory_sizes(void **state)
{
    static const struct {
        const char *text;
        int r;
        u64 bytes;
    } cases[] = {{"512", 0, 512ull << 20}, {"4096K", 0, 4ull << 20}, {"2g", 0, 2ull << 30},
                 {"1T", 0, 1ull << 40},    {"3GiB", 0, 3ull << 30},  {"3MB", 0, 3ull << 20},
                 {"", -EINVAL, 0},         {"G", -EINVAL, 0},        {"1 G", -EINVAL, 0},
                 {"1.5G", -EINVAL, 0},     {"0x10", -EINVAL, 0},     {"16777216T", -ERANGE, 0}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        u64 v = 0;

        assert_int_equal(config_parse_memory(cases[i].text, &v), cases[i].r);
        if (!cases[i].r)
            assert_true(v == cases[i].bytes);
    }
}

static void config__the_table_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];

        assert_true(o->help && o->help[strlen(o->help) - 1] == '.');
        assert_true((o->type == OPTION_FLAG) == !o->arg);
        assert_true(o->type != OPTION_CHOICE || o->choices);
        assert_true(o->type == OPTION_CHOICE || o->type == OPTION_STRING || !o->value || o->max);
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(o->name, config_options[k].name);
            assert_true(!o->letter || o->letter != config_options[k].letter);
            assert_true(o->field != config_options[k].field);
        }
    }
}

static void config__everything_printed_names_every_option(void **state)
{
    void (*print[])(FILE *) = {config_print_help, config_print_mdoc, config_print_dump};

    (void)state;
    for (size_t p = 0; p < ARRAY_SIZE(print); p++) {
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        print[p](f);
        fclose(f);
        for (size_t i = 0; i < config_n_options; i++)
            assert_non_null(strstr(text, config_options[i].name));
        free(text);
    }
}

/* --- machines that are saved and restored --- */

static struct config_line saved[16];
static char saved_value[16][64];
static size_t nsaved;
static char taken[64];

static void keep(void *opaque, const char *name, const char *value)
{
    (void)opaque;
    assert_true(nsaved < 16);
    snprintf(saved_value[nsaved], sizeof(saved_value[0]), "%s", value);
    saved[nsaved] = (struct config_line){name, saved_value[nsaved]};
    nsaved++;
}

static int restore(const char *line)
{
    static char copy[512];
    char *argv[32];
    int argc = 0;

    strcpy(copy, line);
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
        argv[argc++] = w;
    err[0] = 0;
    return config_restore(&c, saved, nsaved, argc, argv, taken, sizeof(taken), err, sizeof(err));
}

static void config__what_a_machine_is_is_saved(void **state)
{
    (void)state;
    nsaved = 0;
    assert_int_equal(parse("-k vmlinuz -m 300M -c 3 -d a.img -d b.img,ro --hide-kvm --serial null "
                           "--stats --name web -q"),
                     0);
    config_save(&c, keep, NULL);
    assert_int_equal(restore("--engine bt"), 0);
    assert_int_equal(c.memory, 300ull << 20);
    assert_int_equal(c.cpus, 3);
    assert_true(c.hide_kvm);
    assert_int_equal(c.disk.n, 2);
    assert_string_equal(c.disk.item[1], "b.img,ro");
    assert_string_equal(c.serial, "null");
    assert_string_equal(c.engine, "bt");
    /* Not what is the process's, or was for the start. */
    assert_false(c.stats);
    assert_false(c.quiet);
    assert_null(c.name);
    assert_null(c.kernel);
    assert_false(c.disk_anew);
    assert_string_equal(taken, "disk a.img, disk b.img,ro");
}

static void config__what_is_behind_devices_may_be_given_anew(void **state)
{
    (void)state;
    assert_int_equal(restore("-d c.img --serial file:x --name two"), 0);
    assert_int_equal(c.disk.n, 1);
    assert_string_equal(c.disk.item[0], "c.img");
    assert_true(c.disk_anew);
    assert_string_equal(c.serial, "file:x");
    assert_string_equal(c.name, "two");
    assert_int_equal(c.cpus, 3);
    assert_int_equal(restore("-c 2"), -EINVAL);
    assert_non_null(strstr(err, "what it was saved with"));
    assert_int_equal(restore("--append x"), -EINVAL);
    assert_int_equal(restore("disk.img"), -EINVAL);
    assert_int_equal(restore("-- ls"), -EINVAL);
    assert_int_equal(restore("--nonsense"), -EINVAL);
}

/* Who sends somebody a machine has no file of theirs written, made or read by it. */
static void config__files_of_the_host_are_not_taken_from_a_file(void **state)
{
    static const struct {
        struct config_line line;
        const char *again; /* NULL: it is taken */
    } lines[] = {
        {{"serial", "file:/x"}, "--serial null"},
        {{"serial", "log:/x,size=1M"}, "--serial log:/x"},
        {{"serial", "unix:/x"}, "--serial=pty"},
        {{"virtio-console", "file:/x"}, "--virtio-console null"},
        {{"port", "a=file:/x"}, "--port a=null"},
        {{"port", "a=unix:/x"}, "--port a=unix:/y"},
        {{"share", "/:x"}, "-v /tmp:x"},
        {{"vsock", "/x"}, "--vsock /y"},
        {{"cloud-init", "user-data=/x"}, "--cloud-init hostname=y"},
        {{"cloud-init", "hostname=a,ssh-key=/x"}, "--cloud-init hostname=y"},
        {{"serial", "stdio"}, NULL},
        {{"serial", "null"}, NULL},
        {{"virtio-console", "pty"}, NULL},
        {{"port", "a=null"}, NULL},
        {{"cloud-init", "hostname=a"}, NULL},
        {{"disk", "/x"}, NULL},
        {{"net", "user"}, NULL},
        {{"publish", "1:1"}, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        nsaved = 0;
        saved[nsaved++] = lines[i].line;
        assert_int_equal(restore(""), lines[i].again ? -EINVAL : 0);
        if (!lines[i].again)
            continue;
        assert_non_null(strstr(err, lines[i].line.name));
        assert_non_null(strstr(err, lines[i].line.value));
        assert_int_equal(restore(lines[i].again), 0);
    }
    nsaved = 0;
    saved[nsaved++] = (struct config_line){"serial", "file:/x"};
    saved[nsaved++] = (struct config_line){"vsock", "$(x)"};
    assert_int_equal(restore(""), -EINVAL);
    assert_non_null(strstr(err, "--serial file:/x, --vsock '$(x)'"));
    saved[1].value = "'$(x)'";
    assert_int_equal(restore(""), -EINVAL);
    assert_non_null(strstr(err, "--serial file:/x, --vsock ?"));
    /* Ports are of user networks, and go with them. */
    nsaved = 0;
    saved[nsaved++] = (struct config_line){"net", "user"};
    saved[nsaved++] = (struct config_line){"publish", "1:1"};
    assert_int_equal(restore("-n none"), 0);
    assert_int_equal(c.publish.n, 0);
    assert_int_equal(restore("-n user"), 0);
    assert_int_equal(c.publish.n, 1);
    assert_int_equal(restore("-n none -p 2:2"), 0);
    assert_int_equal(c.publish.n, 1);
}

static void config__a_line_names_an_option_as_it_was_typed(void **state)
{
    static const struct {
        const char *line, *typed, *then;
        bool found;
    } rows[] = {
        {"--net: x", "-n", "-n: x", true},
        {"--net: x", "-nuser", "-n: x", true},
        {"-d: x", "--disk", "--disk: x", true},
        {"-d: x", "--disk=a", "--disk: x", true},
        {"--net x", "--net", "--net x", true},
        {"--net x", "--network", "--net x", false},
        {"--publish 1: x", "-n", "--publish 1: x", false},
        {"--vsock x", "-v", "--vsock x", false},
        {"-- x", "-n", "-- x", false},
        {"x", "-n", "x", false},
        {"", "-n", "", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char *argv[] = {(char *)(uintptr_t)rows[i].typed};
        char line[32];

        strcpy(line, rows[i].line);
        assert_int_equal(config_as_typed(line, sizeof(line), 1, argv), rows[i].found);
        assert_string_equal(line, rows[i].then);
    }
}

static void config__what_a_file_says_is_fit_for_a_terminal(void **state)
{
    static const struct config_line bad[] = {
        {"disk", "\x1b[2J"},
        {"disk", "a\nb"},
        {"net", "user,hostname=\x7f"},
        {"\x1b[2J", "x"},
        {"disk", "\xc2\x9b"
                 "2J"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        nsaved = 0;
        saved[nsaved++] = bad[i];
        assert_int_equal(restore(""), -EINVAL);
        assert_null(strpbrk(err, "\x1b\n\x7f\x9b"));
    }
    nsaved = 0;
    saved[nsaved++] = (struct config_line){"disk", "Bücher.img"};
    for (unsigned i = 0; i < 6; i++)
        saved[nsaved++] = (struct config_line){"disk", "0123456789.img"};
    assert_int_equal(restore(""), 0);
    assert_int_equal(strlen(taken), sizeof(taken) - 1);
}

static void config__saved_options_are_not_trusted(void **state)
{
    static const struct config_line bad[] = {
        {"cpus", "99"}, {"memory", "x"}, {"name", "x"},   {"nonsense", "1"},
        {"kernel", ""}, {"", ""},        {"balloon", ""}, {"rng", "maybe"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        nsaved = 0;
        saved[nsaved++] = bad[i];
        assert_int_equal(restore(""), -EINVAL);
        assert_true(err[0]);
    }
}

static int plug(const char *line)
{
    return parse_by(config_parse_plug, line);
}

static void config__what_can_be_plugged(void **state)
{
    static const char *const bad[] = {"",           "-d a -d b", "-d a -n user",
                                      "-d a -m 1G", "a -d b",    "-d a -q",
                                      "-d a -- b",  "-n none",   "-d a -p 1:1"};

    (void)state;
    assert_int_equal(plug("-d a,ro"), 0);
    assert_string_equal(c.disk.item[0], "a,ro");
    assert_int_equal(plug("a"), 0);
    assert_string_equal(c.disk.item[0], "a");
    assert_int_equal(plug("--net=user -p 2222:22 -p 80:80"), 0);
    assert_int_equal(c.publish.n, 2);
    assert_int_equal(plug("-p 2222:22"), 0); /* as run has it */
    assert_string_equal(c.net.item[0], "user");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(plug(bad[i]), -EINVAL);
        assert_true(err[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config__defaults_come_from_the_table),
        cmocka_unit_test(config__takes_every_spelling),
        cmocka_unit_test(config__refuses_with_one_line),
        cmocka_unit_test(config__takes_what_a_serial_port_can_be),
        cmocka_unit_test(config__reads_the_environment_last),
        cmocka_unit_test(config__a_word_is_the_first_disk),
        cmocka_unit_test(config__memory_sizes),
        cmocka_unit_test(config__the_table_is_sound),
        cmocka_unit_test(config__everything_printed_names_every_option),
        cmocka_unit_test(config__what_a_machine_is_is_saved),
        cmocka_unit_test(config__what_is_behind_devices_may_be_given_anew),
        cmocka_unit_test(config__files_of_the_host_are_not_taken_from_a_file),
        cmocka_unit_test(config__what_a_file_says_is_fit_for_a_terminal),
        cmocka_unit_test(config__a_line_names_an_option_as_it_was_typed),
        cmocka_unit_test(config__saved_options_are_not_trusted),
        cmocka_unit_test(config__what_can_be_plugged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
