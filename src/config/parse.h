/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files that read options. */
#ifndef TRIVISOR_CONFIG_PARSE_H
#define TRIVISOR_CONFIG_PARSE_H

#include "config/config.h"

#define OPTIONS_MAX 64

struct parser {
    struct config *c;
    char *err;
    size_t err_size;
    bool given[OPTIONS_MAX]; /* rows of the table, on the command line */
    const char *image;       /* the word that is no option */
};

/* One line in err. -EINVAL. */
int parser_fail(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The row of a long name of n bytes, or NULL. */
const struct option_row *parser_find(const char *name, size_t n);
/* Stores value in the field of row o. what: how the user named the option. 0 or -EINVAL. */
int parser_set(struct parser *p, const struct option_row *o, const char *what, const char *value);
/* argv, then the environment, over what the config holds. 0 or -EINVAL. */
int parser_run(struct parser *p, int argc, char **argv);

#endif
