/* SPDX-License-Identifier: Apache-2.0 */
/* The option table for readers: help text, man page, dump. */
#include <string.h>

#include "config/config.h"

#define HELP_INDENT 24
#define HELP_WIDTH 80

/* Prints text from column col on, broken between words, following lines indented. */
static void print_wrapped(FILE *out, const char *text, int col)
{
    int indent = col;

    while (*text) {
        int n = (int)strcspn(text, " ");

        if (col > indent && col + 1 + n > HELP_WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            col = indent;
        } else if (col > indent) {
            fputc(' ', out);
            col++;
        }
        fprintf(out, "%.*s", n, text);
        col += n;
        text += n;
        text += strspn(text, " ");
    }
}

void config_print_help(FILE *out)
{
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];
        char extra[160];
        int n = fprintf(out, "  ");

        if (o->letter)
            n += fprintf(out, "-%c, ", o->letter);
        else
            n += fprintf(out, "    ");
        n += fprintf(out, "--%s", o->name);
        if (o->arg)
            n += fprintf(out, " %s", o->arg);
        if (n >= HELP_INDENT) {
            fputc('\n', out);
            n = 0;
        }
        fprintf(out, "%*s", HELP_INDENT - n, "");
        print_wrapped(out, o->help, HELP_INDENT);
        extra[0] = 0;
        if (o->type == OPTION_LIST)
            snprintf(extra, sizeof(extra), "May be repeated.");
        if (o->type == OPTION_CHOICE)
            snprintf(extra, sizeof(extra), "One of %s.", o->choices);
        else if (o->type == OPTION_NUMBER)
            snprintf(extra, sizeof(extra), "%llu to %llu.", (unsigned long long)o->min,
                     (unsigned long long)o->max);
        if (o->value)
            snprintf(extra + strlen(extra), sizeof(extra) - strlen(extra), "%sDefault: %s%s%s%s.",
                     extra[0] ? " " : "", o->value, o->env ? " (or " : "", o->env ? o->env : "",
                     o->env ? ")" : "");
        if (extra[0]) {
            fprintf(out, "\n%*s", HELP_INDENT, "");
            print_wrapped(out, extra, HELP_INDENT);
        }
        fputc('\n', out);
    }
}

/* mdoc text: a line must not start with a control character, a backslash is written \e. */
static void print_mdoc_text(FILE *out, const char *text)
{
    bool start = true;

    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
        start = false;
        /* A sentence a line, as mdoc wants it. */
        if (*text == '.' && text[1] == ' ') {
            fputc('\n', out);
            text++;
            start = true;
        }
    }
    fputc('\n', out);
}

void config_print_mdoc(FILE *out)
{
    fprintf(out, ".Bl -tag -width Ds\n");
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];

        fprintf(out, ".It ");
        if (o->letter && o->arg)
            fprintf(out, "Fl %c Ar %s , ", o->letter, o->arg);
        else if (o->letter)
            fprintf(out, "Fl %c , ", o->letter);
        fprintf(out, "Fl -%s", o->name);
        if (o->arg)
            fprintf(out, " Ar %s", o->arg);
        fputc('\n', out);
        print_mdoc_text(out, o->help);
        if (o->type == OPTION_LIST)
            fprintf(out, "It may be repeated.\n");
        if (o->type == OPTION_CHOICE) {
            fprintf(out, "One of ");
            for (const char *s = o->choices; *s; s++)
                if (*s == '|')
                    fprintf(out, ", ");
                else
                    fputc(*s, out);
            fprintf(out, ".\n");
        }
        if (o->type == OPTION_NUMBER)
            fprintf(out, "The range is %llu to %llu.\n", (unsigned long long)o->min,
                    (unsigned long long)o->max);
        if (o->value)
            fprintf(out, "The default is %s.\n", o->value);
        if (o->env)
            fprintf(out, "When it is not given, the environment variable\n.Ev %s\nis used.\n",
                    o->env);
    }
    fprintf(out, ".El\n");
}

void config_print_dump(FILE *out)
{
    static const char *const type[] = {
        [OPTION_FLAG] = "flag",     [OPTION_STRING] = "string", [OPTION_LIST] = "list",
        [OPTION_NUMBER] = "number", [OPTION_MEMORY] = "memory", [OPTION_CHOICE] = "choice"};

    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];

        fprintf(out, "--%s\t", o->name);
        if (o->letter)
            fprintf(out, "-%c", o->letter);
        else
            fputc('-', out);
        fprintf(out, "\t%s\t%s\t", type[o->type], o->arg ? o->arg : "-");
        if (o->type == OPTION_CHOICE)
            fprintf(out, "%s", o->choices);
        else if (o->type == OPTION_NUMBER || o->type == OPTION_MEMORY)
            fprintf(out, "%llu..%llu", (unsigned long long)o->min, (unsigned long long)o->max);
        else
            fputc('-', out);
        fprintf(out, "\t%s\n", o->value ? o->value : "-");
    }
}
