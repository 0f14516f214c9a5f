/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with an option is often found where nobody knows which of its names was typed. */
#include <string.h>

#include "config/config.h"

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz-"

/* Whether name (its long one: n bytes with the dashes; or two, with its letter) was typed. */
static bool typed(const char *name, size_t n, int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strncmp(argv[i], name, n) && (n == 2 || !argv[i][n] || argv[i][n] == '='))
            return true;
    return false;
}

bool config_as_typed(char *line, size_t size, int argc, char **argv)
{
    size_t n = strspn(line, NAME_CHARACTERS), len = strlen(line), m;

    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];
        char longer[40], shorter[3] = {'-', o->letter, 0};
        bool is_long;

        snprintf(longer, sizeof(longer), "--%s", o->name);
        is_long = n == strlen(longer) && !memcmp(line, longer, n);
        if (!is_long && (n != 2 || memcmp(line, shorter, 2) != 0))
            continue;
        if (typed(is_long ? longer : shorter, n, argc, argv))
            return true;
        if (!o->letter ||
            !typed(is_long ? shorter : longer, is_long ? 2 : strlen(longer), argc, argv))
            return false;
        m = is_long ? 2 : strlen(longer);
        if (len - n + m < size) {
            memmove(line + m, line + n, len - n + 1);
            memcpy(line, is_long ? shorter : longer, m);
        }
        return true;
    }
    return false;
}
