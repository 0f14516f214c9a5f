/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "backend/bootdisk/loader.h"

/* A line in pieces: blanks separate words, quotes are taken off. */
struct words {
    const char *at, *end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word, cut to fit size - 1. false: there is none, or it is too long (*too_long). */
static bool next_word(struct words *w, char *buf, size_t size, bool *too_long)
{
    size_t n = 0;
    char quote = 0;

    *too_long = false;
    while (w->at < w->end && is_blank(*w->at))
        w->at++;
    if (w->at == w->end)
        return false;
    for (; w->at < w->end && (quote || !is_blank(*w->at)); w->at++) {
        char c = *w->at;

        if (quote ? c == quote : c == '"' || c == '\'') {
            quote = quote ? 0 : c;
            continue;
        }
        if (n + 1 < size)
            buf[n++] = c;
        else
            *too_long = true;
    }
    buf[n] = 0;
    return true;
}

/* GRUB's variables, and its ($root) in front of paths. */
static bool is_plain(const char *word)
{
    return !strchr(word, '$') && !strchr(word, '`') && word[0] != '(';
}

static void add_arg(char *args, const char *word)
{
    size_t n = strlen(args), m = strlen(word);

    if (!m || n + m + 2 > BOOTDISK_ARGS_MAX)
        return;
    if (n)
        args[n++] = ' ';
    memcpy(args + n, word, m + 1);
}

static void add_args(struct words *w, char *args)
{
    char word[BOOTDISK_ARGS_MAX];
    bool too_long;

    while (next_word(w, word, sizeof(word), &too_long))
        if (!too_long && is_plain(word))
            add_arg(args, word);
}

static bool set_path(struct words *w, char *path)
{
    bool too_long;

    return next_word(w, path, BOOTDISK_PATH_MAX, &too_long) && !too_long && path[0] == '/' &&
           is_plain(path);
}

static void add_initrds(struct words *w, struct loader_entry *e)
{
    while (e->n_initrd < LOADER_INITRDS_MAX && w->at < w->end)
        if (set_path(w, e->initrd[e->n_initrd]))
            e->n_initrd++;
}

/* Takes the next line of *text as words; false at the end. */
static bool next_line(const char **text, struct words *w)
{
    const char *end = strchr(*text, '\n');

    if (!**text)
        return false;
    w->at = *text;
    w->end = end ? end : *text + strlen(*text);
    *text = end ? end + 1 : w->end;
    return true;
}

static bool is_one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(word, *list))
            return true;
    return false;
}

bool loader_grub(const char *text, struct loader_entry *e)
{
    static const char *const linux_words[] = {"linux", "linux16", "linuxefi", NULL};
    static const char *const initrd_words[] = {"initrd", "initrd16", "initrdefi", NULL};
    char word[32];
    struct words w;
    bool found = false, too_long;

    while (next_line(&text, &w)) {
        if (!next_word(&w, word, sizeof(word), &too_long) || too_long)
            continue;
        if (!found && is_one_of(word, linux_words)) {
            memset(e, 0, sizeof(*e));
            if (!set_path(&w, e->kernel))
                continue;
            found = true;
            add_args(&w, e->args);
        } else if (found && is_one_of(word, initrd_words)) {
            add_initrds(&w, e);
        } else if (found && !strcmp(word, "}")) {
            break;
        }
    }
    return found;
}

bool loader_bls(const char *text, struct loader_entry *e)
{
    char key[32];
    struct words w;
    bool found = false, too_long;

    memset(e, 0, sizeof(*e));
    while (next_line(&text, &w)) {
        if (!next_word(&w, key, sizeof(key), &too_long) || too_long)
            continue;
        if (!strcmp(key, "linux"))
            found = set_path(&w, e->kernel);
        else if (!strcmp(key, "initrd"))
            add_initrds(&w, e);
        else if (!strcmp(key, "options"))
            add_args(&w, e->args);
    }
    return found;
}

bool loader_has(const char *args, const char *prefix)
{
    size_t n = strlen(prefix);

    for (const char *s = args; (s = strstr(s, prefix)) != NULL; s += n)
        if (s == args || is_blank(s[-1]))
            return true;
    return false;
}
