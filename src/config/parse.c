/* SPDX-License-Identifier: Apache-2.0 */
/* From the command line to struct config. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/commas.h"
#include "config/parse.h"

int parser_fail(struct parser *p, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p->err, p->err_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* Decimal digits only: no sign, no blanks, no octal. */
static int parse_number(const char *text, const char **end, u64 *out)
{
    u64 v = 0;
    const char *s = text;

    while (*s >= '0' && *s <= '9') {
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (u64)(*s - '0'), &v))
            return -ERANGE;
        s++;
    }
    if (s == text)
        return -EINVAL;
    *end = s;
    *out = v;
    return 0;
}

int config_parse_memory(const char *text, u64 *bytes)
{
    static const char suffixes[] = "KMGT";
    const char *end, *at;
    unsigned shift = 20;
    u64 v;
    int err = parse_number(text, &end, &v);

    if (err)
        return err;
    if (*end) {
        char upper = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;

        at = strchr(suffixes, upper);
        if (!at)
            return -EINVAL;
        shift = (unsigned)(at - suffixes + 1) * 10;
        end++;
        /* MB and MiB are what people also write; both mean the power of two here. */
        if (!strcasecmp(end, "ib"))
            end += 2;
        else if (!strcasecmp(end, "b"))
            end++;
        if (*end)
            return -EINVAL;
    }
    if (v > UINT64_MAX >> shift)
        return -ERANGE;
    *bytes = v << shift;
    return 0;
}

static void format_memory(u64 v, char *buf, size_t size)
{
    static const char suffixes[] = "KMGT";
    int i = -1;

    while (i < 3 && v >= 1024 && v % 1024 == 0) {
        v /= 1024;
        i++;
    }
    if (i < 0)
        snprintf(buf, size, "%llu bytes", (unsigned long long)v);
    else
        snprintf(buf, size, "%llu%c", (unsigned long long)v, suffixes[i]);
}

static bool is_choice(const char *choices, const char *v)
{
    size_t n = strlen(v);

    for (const char *s = choices; n && s; s = strchr(s, '|') ? strchr(s, '|') + 1 : NULL)
        if (!strncmp(s, v, n) && (s[n] == '|' || !s[n]))
            return true;
    return false;
}

static int add_to_list(struct parser *p, struct config_list *l, const char *what, const char *value)
{
    if (l->n == CONFIG_LIST_MAX)
        return parser_fail(p, "%s: given more than %d times", what, CONFIG_LIST_MAX);
    l->item[l->n++] = value;
    return 0;
}

/* Stores value in the field of row o. what: how the user named the option. */
int parser_set(struct parser *p, const struct option_row *o, const char *what, const char *value)
{
    u8 *field = (u8 *)p->c + o->field;
    const char *end, *wrong;
    char lo[32], hi[32];
    u64 v;

    switch (o->type) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_NUMBER:
        if (parse_number(value, &end, &v) || *end)
            return parser_fail(p, "%s: '%s' is not a number", what, value);
        if (v < o->min || v > o->max)
            return parser_fail(p, "%s: %s is out of range, it is %llu to %llu", what, value,
                               (unsigned long long)o->min, (unsigned long long)o->max);
        *(u64 *)field = v;
        return 0;
    case OPTION_MEMORY:
        if (config_parse_memory(value, &v) == -EINVAL)
            return parser_fail(p, "%s: '%s' is not a size such as 512M or 2G", what, value);
        if (config_parse_memory(value, &v) || v < o->min || v > o->max) {
            format_memory(o->min, lo, sizeof(lo));
            format_memory(o->max, hi, sizeof(hi));
            return parser_fail(p, "%s: %s is out of range, it is %s to %s", what, value, lo, hi);
        }
        *(u64 *)field = v;
        return 0;
    case OPTION_CHOICE:
        if (!is_choice(o->choices, value))
            return parser_fail(p, "%s: '%s' is none of %s", what, value, o->choices);
        break;
    case OPTION_STRING:
    case OPTION_LIST:
        wrong = o->check ? o->check(value) : NULL;
        if (wrong)
            return parser_fail(p, "%s: '%s': %s", what, value, wrong);
        if (o->type == OPTION_LIST)
            return add_to_list(p, (struct config_list *)(void *)field, what, value);
        break;
    }
    *(const char **)field = value;
    return 0;
}

void config_defaults(struct config *c)
{
    struct parser p = {.c = c};
    char err[128];

    memset(c, 0, sizeof(*c));
    p.err = err;
    p.err_size = sizeof(err);
    for (size_t i = 0; i < config_n_options; i++)
        if (config_options[i].value)
            parser_set(&p, &config_options[i], config_options[i].name, config_options[i].value);
}

const struct option_row *parser_find(const char *name, size_t n)
{
    for (size_t i = 0; i < config_n_options; i++)
        if (strlen(config_options[i].name) == n && !memcmp(config_options[i].name, name, n))
            return &config_options[i];
    return NULL;
}

static const struct option_row *find_letter(char letter)
{
    for (size_t i = 0; i < config_n_options; i++)
        if (config_options[i].letter && config_options[i].letter == letter)
            return &config_options[i];
    return NULL;
}

/* A word that is no option: the disk to boot from. It is checked as -d is. */
static int set_image(struct parser *p, const char *word)
{
    const struct option_row *o = find_letter('d');
    const char *wrong = o->check(word);

    if (p->image)
        return parser_fail(
            p,
            "unexpected argument '%s': '%s' is the disk; more of them are given with -d, "
            "the kernel with -k",
            word, p->image);
    if (wrong)
        return parser_fail(p, "'%s': %s", word, wrong);
    p->image = word;
    return 0;
}

/* Puts it before the disks given with -d. */
static int add_image(struct parser *p)
{
    struct config_list *l = &p->c->disk;

    if (!p->image)
        return 0;
    if (l->n == CONFIG_LIST_MAX)
        return parser_fail(p, "more than %d disks", CONFIG_LIST_MAX);
    memmove(l->item + 1, l->item, l->n * sizeof(l->item[0]));
    l->item[0] = p->image;
    l->n++;
    return 0;
}

/* What QEMU calls things, all but those of this program's names. */
static const struct {
    const char *word, *here;
} qemu[] = {
    {"smp", "-c N"},
    {"drive", "-d PATH,format=FORMAT"},
    {"hda", "-d PATH"},
    {"cdrom", "-d PATH,ro"},
    {"netdev", "-n user or -n tap=IF, and -p for ports"},
    {"nic", "-n user or -n tap=IF, and -p for ports"},
    {"virtfs", "-v HOST:GUEST"},
    {"nographic", "the default: the console is on the terminal"},
    {"daemonize", "--detach"},
    {"enable-kvm", "--engine"},
    {"accel", "--engine"},
};

/* A whole name behind one dash would be a letter with its argument: nobody means that. */
static int refuse_single_dash(struct parser *p, const char *word)
{
    size_t n = strcspn(word + 1, "=");

    if (n > 1 && parser_find(word + 1, n))
        return parser_fail(p, "unknown option '%s': long names have two dashes, -%s", word, word);
    for (size_t i = 0; i < ARRAY_SIZE(qemu); i++)
        if (!strcmp(word + 1, qemu[i].word))
            return parser_fail(p, "unknown option '%s', which is QEMU's; here it is %s", word,
                               qemu[i].here);
    return 0;
}

/* One word of argv, with the next one at hand; *used: how many words it took. */
static int parse_word(struct parser *p, const char *word, const char *next, int *used)
{
    const struct option_row *o;
    const char *value = NULL;
    char what[48];

    *used = 1;
    if (word[0] != '-')
        return set_image(p, word);
    if (!word[1])
        return parser_fail(p, "unexpected argument '-'");
    if (word[1] == '-') {
        const char *name = word + 2;
        const char *eq = strchr(name, '=');
        size_t n = eq ? (size_t)(eq - name) : strlen(name);

        o = parser_find(name, n);
        if (!o)
            return parser_fail(p, "unknown option '--%.*s'; see trivisor help run", (int)n, name);
        snprintf(what, sizeof(what), "--%s", o->name);
        if (eq)
            value = eq + 1;
    } else {
        if (refuse_single_dash(p, word))
            return -EINVAL;
        o = find_letter(word[1]);
        if (!o)
            return parser_fail(p, "unknown option '%s'; see trivisor help run", word);
        snprintf(what, sizeof(what), "-%c", o->letter);
        if (word[2])
            value = word + 2;
    }
    p->given[o - config_options] = true;
    if (o->type == OPTION_FLAG) {
        if (value)
            return parser_fail(p, "%s takes no argument", what);
        return parser_set(p, o, what, NULL);
    }
    if (!value) {
        if (!next)
            return parser_fail(p, "%s needs an argument (%s)", what, o->arg);
        value = next;
        *used = 2;
    }
    return parser_set(p, o, what, value);
}

/* argv and the environment over what the config holds. */
int parser_run(struct parser *p, int argc, char **argv)
{
    struct config *c = p->c;
    int used, r;

    for (int i = 0; i < argc; i += used) {
        if (!strcmp(argv[i], "--")) {
            if (i + 1 == argc || !argv[i + 1][0])
                return parser_fail(p, "no command after '--'");
            c->command = argv + i + 1;
            c->n_command = argc - i - 1;
            break;
        }
        r = parse_word(p, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used);
        if (r)
            return r;
        if (c->help || c->dump_options)
            return 0;
    }
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];
        const char *value = o->env && !p->given[i] ? getenv(o->env) : NULL;

        if (!value || !*value)
            continue;
        r = parser_set(p, o, o->env, value);
        if (r)
            return r;
    }
    return 0;
}

int config_parse(struct config *c, int argc, char **argv, char *err, size_t err_size)
{
    struct parser p = {.c = c, .err = err, .err_size = err_size};
    int r = parser_run(&p, argc, argv);

    return r ? r : add_image(&p);
}

int config_parse_plug(struct config *c, int argc, char **argv, char *err, size_t err_size)
{
    struct parser p = {.c = c, .err = err, .err_size = err_size};
    int r = parser_run(&p, argc, argv);

    if (!r)
        r = add_image(&p);
    for (size_t i = 0; i < config_n_options && !r; i++) {
        const struct option_row *o = &config_options[i];
        bool fits = o->field == offsetof(struct config, disk) ||
                    o->field == offsetof(struct config, net) ||
                    o->field == offsetof(struct config, publish);

        if (p.given[i] && !fits)
            r = parser_fail(&p, "--%s: what can be plugged is --disk and --net", o->name);
    }
    if (!r && c->command)
        r = parser_fail(&p, "unexpected argument '--'");
    if (!r && c->publish.n && !c->disk.n && !c->net.n)
        c->net.item[c->net.n++] = "user";
    if (!r && c->net.n && !strcmp(c->net.item[0], "none"))
        r = parser_fail(&p, "--net none is nothing to plug");
    if (!r && c->disk.n && c->publish.n)
        r = parser_fail(&p, "--publish: a disk has no ports");
    if (!r && c->disk.n + c->net.n != 1)
        r = parser_fail(&p, "one device is plugged at a time: --disk or --net");
    return r;
}

bool config_lists(const char *list, const char *word)
{
    char item[64];

    while (list)
        if (commas_next(&list, item, sizeof(item)) >= 0 && !strcmp(item, word))
            return true;
    return false;
}
