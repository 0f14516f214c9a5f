/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of `trivisor run`. One table row each (options.c): parser, help, man page and the
 * machine-readable dump come from it.
 */
#ifndef TRIVISOR_CONFIG_CONFIG_H
#define TRIVISOR_CONFIG_CONFIG_H

#include <stdio.h>

#include "base/types.h"

/* Values of an option that may be given several times, in order. */
#define CONFIG_LIST_MAX 24
struct config_list {
    const char *item[CONFIG_LIST_MAX];
    unsigned n;
};

/* Strings point into argv, the environment or the table. NULL: not given. */
struct config {
    const char *engine;
    u64 memory; /* bytes */
    u64 cpus;
    const char *cpu;
    const char *kernel;
    const char *initrd;
    const char *append;
    const char *serial;
    const char *rng;
    const char *balloon;
    struct config_list share;
    struct config_list disk;
    bool disk_anew; /* of a machine that is restored: not as it was saved */
    const char *cloud_init;
    struct config_list net;
    struct config_list publish;
    const char *vsock;
    const char *virtio_console;
    const char *virtio_without;
    struct config_list port;
    const char *bt_mode;
    u64 bt_cache; /* bytes */
    const char *trace;
    const char *sandbox;
    const char *gdb;
    u64 console_log; /* bytes */
    const char *name;
    bool detach;
    char **command; /* what follows --, to be run in the guest; NULL: nothing */
    int n_command;
    bool stats;
    bool strict_io;
    bool strict_msr;
    bool hide_kvm;
    bool test_device;
    bool dump_state;
    bool check;
    bool quiet;
    bool verbose;
    bool help;         /* --help was given: nothing else is to be done */
    bool dump_options; /* --dump-options likewise */
};

/* What becomes of an option when its machine is saved and restored. */
enum option_saved {
    OPTION_EACH_RUN, /* nothing: the process that runs the machine is told each time */
    OPTION_MACHINE,  /* it is what the machine is: saved, and not to be given when it is restored */
    /* What is behind a device: saved, and may be given anew; must be, if it is of_host. */
    OPTION_BEHIND,
    OPTION_START, /* how the guest started: nothing, and not to be given any more */
};

enum option_type {
    OPTION_FLAG,   /* no argument */
    OPTION_STRING, /* any text */
    OPTION_LIST,   /* any text, may be repeated */
    OPTION_NUMBER, /* decimal, within min..max */
    OPTION_MEMORY, /* number with an optional suffix K M G T; without one MiB */
    OPTION_CHOICE, /* one of choices, separated by | */
};

struct option_row {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    enum option_type type;
    size_t field;    /* offset in struct config */
    const char *arg; /* argument's name for people; NULL: none */
    u64 min, max;
    const char *choices;
    const char *value; /* default, as it would be written; NULL: none */
    const char *env;   /* environment variable read when the option is not given; NULL: none */
    /* Further check of an OPTION_STRING or a value of an OPTION_LIST: NULL, or what is wrong with
     * it. */
    const char *(*check)(const char *value);
    enum option_saved saved;
    /* Whether a value names what is written, made or shown to the guest of this host's files: a
     * saved machine may be somebody else's, and does not get such a thing by having it in its
     * options. NULL: none does. */
    bool (*of_host)(const char *value);
    const char *help; /* one paragraph */
};

extern const struct option_row config_options[];
extern const size_t config_n_options;

/* Fills *c with the table's defaults. */
void config_defaults(struct config *c);

/* Parses argv[0..argc) (options only) over what *c holds, then the environment for what was not
 * given. 0, or -EINVAL with one line in err. */
int config_parse(struct config *c, int argc, char **argv, char *err, size_t err_size);

/* As config_parse, of a device for a machine that runs: one --disk or --net, with a user network
 * its
 * --publish, and nothing else. */
int config_parse_plug(struct config *c, int argc, char **argv, char *err, size_t err_size);

/*
 * The options that are saved with a machine, in order: line(opaque, name, value), the value as it
 * would be written; for a flag it is empty. c: as config_parse or config_restore left it.
 */
void config_save(const struct config *c,
                 void (*line)(void *opaque, const char *name, const char *value), void *opaque);

struct config_line {
    const char *name, *value; /* must outlive the config */
};

/*
 * Fills *c for a machine that is restored: the n saved lines (which may be anything), what
 * argv[0..argc) gives anew or for this run alone, the environment likewise. In taken, for people:
 * what the saved lines name of this host, disks and networks, with commas between them; cut if it
 * is too long. 0, or -EINVAL with one line in err.
 */
int config_restore(struct config *c, const struct config_line *saved, size_t n, int argc,
                   char **argv, char *taken, size_t taken_size, char *err, size_t err_size);

/*
 * Makes a line about an option, which begins with a name of it (--net or -n), begin with the one
 * that is in argv[0..argc). False: the line is about none that is there.
 */
bool config_as_typed(char *line, size_t size, int argc, char **argv);

/* Reads a memory size such as 512, 512M or 2G. 0, -EINVAL (no number, unknown suffix) or -ERANGE
 * (does not fit 64 bits). */
int config_parse_memory(const char *text, u64 *bytes);

/* Whether word is an item of a list such as "a,b,c" (NULL: an empty one). */
bool config_lists(const char *list, const char *word);

/* The option part of the help text. */
void config_print_help(FILE *out);
/* The option part of the man page, as an mdoc list. */
void config_print_mdoc(FILE *out);
/* One line an option, for completions and tests: long name, letter or -, type, argument or -,
 * choices or range or -, default or -; separated by tabs. */
void config_print_dump(FILE *out);

#endif
