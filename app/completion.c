/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trivisor completion: scripts for shells, made from the option table. What an option's value is
 * completed with: its choices, the prefixes its help names (stdio, file:...), or files where the
 * argument's name says so.
 */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "config/config.h"

/* Options whose values are files or begin with a path. */
static bool wants_file(const struct option_row *o)
{
    return o->arg && (!strcmp(o->arg, "FILE") || !strncmp(o->arg, "PATH", 4));
}

static bool wants_directory(const struct option_row *o)
{
    return o->arg && !strncmp(o->arg, "HOST:", 5);
}

/* Known words for a value, separated by spaces. */
static void print_values(const struct option_row *o)
{
    const char *s = o->choices;

    if (!strcmp(o->name, "serial"))
        s = "stdio|null|pty|file:|log:|unix:";
    for (; s && *s; s++)
        putchar(*s == '|' ? ' ' : *s);
}

static bool has_values(const struct option_row *o)
{
    return o->type == OPTION_CHOICE || !strcmp(o->name, "serial");
}

/* A sentence of the help, for shells that show one; without characters shells care about. */
static void print_summary(const struct option_row *o)
{
    for (const char *s = o->help; *s && !(s[0] == '.' && (s[1] == ' ' || !s[1])); s++) {
        if (*s == ':' || *s == ';')
            break;
        if (!strchr("'\"[]\\$`", *s))
            putchar(*s);
    }
}

static void print_words(const char *const *words)
{
    for (; *words; words++)
        printf("%s%s", *words, words[1] ? " " : "");
}

/* --- bash ---------------------------------------------------------------------------------------
 */

static void print_bash_case(const struct option_row *o, const char *action)
{
    printf("        --%s", o->name);
    if (o->letter)
        printf("|-%c", o->letter);
    printf(") %s", action);
}

static void print_bash(void)
{
    printf("# bash completion for trivisor\n"
           "_trivisor()\n{\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i\n"
           "    COMPREPLY=()\n"
           "    # The shell cuts words at = and :.\n"
           "    [[ $cur == = || $cur == : ]] && cur=\n"
           "    [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
           "    if (( COMP_CWORD == 1 )); then\n"
           "        COMPREPLY=($(compgen -W \"");
    print_words(command_names);
    printf("\" -- \"$cur\"))\n        return\n    fi\n"
           "    case ${COMP_WORDS[1]} in\n"
           "    console|pause|resume|stop|kill|stats|unplug|devices)\n"
           "        COMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" console 2>/dev/null |"
           " cut -d' ' -f1)\" -- \"$cur\"))\n"
           "        return ;;\n"
           "    completion)\n"
           "        COMPREPLY=($(compgen -W \"bash zsh fish\" -- \"$cur\"))\n        return ;;\n"
           "    help)\n        COMPREPLY=($(compgen -W \"");
    print_words(command_names);
    printf("\" -- \"$cur\"))\n        return ;;\n"
           "    run) ;;\n"
           "    *) return ;;\n"
           "    esac\n"
           "    for (( i = 2; i < COMP_CWORD; i++ )); do\n"
           "        [[ ${COMP_WORDS[i]} == -- ]] && return\n"
           "    done\n"
           "    case $prev in\n");
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];

        if (o->type == OPTION_FLAG)
            continue;
        if (has_values(o)) {
            print_bash_case(o, "COMPREPLY=($(compgen -W \"");
            print_values(o);
            printf("\" -- \"$cur\")); return ;;\n");
        } else if (wants_file(o)) {
            print_bash_case(o, "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "
                               "\"$cur\")); return ;;\n");
        } else if (wants_directory(o)) {
            print_bash_case(o, "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "
                               "\"$cur\")); return ;;\n");
        } else {
            print_bash_case(o, "return ;;\n");
        }
    }
    printf("    esac\n"
           "    if [[ $cur == -* ]]; then\n"
           "        COMPREPLY=($(compgen -W \"");
    for (size_t i = 0; i < config_n_options; i++)
        printf("%s--%s", i ? " " : "", config_options[i].name);
    printf("\" -- \"$cur\"))\n"
           "    else\n"
           "        compopt -o filenames 2>/dev/null\n"
           "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
           "    fi\n"
           "}\n"
           "complete -F _trivisor trivisor\n");
}

/* --- zsh ----------------------------------------------------------------------------------------
 */

/* One _arguments specification: '(exclusions)*{-x,--long}[text]:message:action'. */
static void print_zsh_option(const struct option_row *o, bool letter)
{
    printf("            '");
    if (o->type == OPTION_LIST)
        printf("*");
    if (letter)
        printf("-%c", o->letter);
    else
        printf("--%s", o->name);
    printf("[");
    print_summary(o);
    printf("]");
    if (o->type != OPTION_FLAG) {
        printf(":%s:", o->type == OPTION_CHOICE ? "choice" : "value");
        if (has_values(o)) {
            printf("(");
            print_values(o);
            printf(")");
        } else if (wants_file(o)) {
            printf("_files");
        } else if (wants_directory(o)) {
            printf("_files -/");
        }
    }
    printf("' \\\n");
}

static void print_zsh(void)
{
    printf("#compdef trivisor\n"
           "_trivisor()\n{\n"
           "    if (( CURRENT == 2 )); then\n"
           "        compadd -- ");
    print_words(command_names);
    printf("\n        return\n    fi\n"
           "    case $words[2] in\n"
           "    console|pause|resume|stop|kill|stats|unplug|devices) compadd -- "
           "${${(f)\"$($words[1] console "
           "2>/dev/null)\"}%%%% *} ;;\n"
           "    completion) compadd -- bash zsh fish ;;\n"
           "    help) compadd -- ");
    print_words(command_names);
    printf(" ;;\n    run)\n"
           "        shift words\n"
           "        (( CURRENT-- ))\n"
           "        _arguments \\\n");
    for (size_t i = 0; i < config_n_options; i++) {
        if (config_options[i].letter)
            print_zsh_option(&config_options[i], true);
        print_zsh_option(&config_options[i], false);
    }
    printf("            '1:disk:_files' ;;\n"
           "    esac\n"
           "}\n"
           "if [[ $funcstack[1] == _trivisor ]]; then\n"
           "    _trivisor \"$@\"\n"
           "else\n"
           "    compdef _trivisor trivisor\n"
           "fi\n");
}

/* --- fish ---------------------------------------------------------------------------------------
 */

static void print_fish(void)
{
    printf("# fish completion for trivisor\n"
           "complete -c trivisor -n __fish_use_subcommand -f -a '");
    print_words(command_names);
    printf("'\n"
           "complete -c trivisor -n '__fish_seen_subcommand_from console pause resume stop kill "
           "stats unplug devices' "
           "-f -a "
           "'(trivisor console 2>/dev/null | string split -f1 \" \")'\n"
           "complete -c trivisor -n '__fish_seen_subcommand_from completion' -f -a "
           "'bash zsh fish'\n"
           "complete -c trivisor -n '__fish_seen_subcommand_from help' -f -a '");
    print_words(command_names);
    printf("'\n");
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];

        printf("complete -c trivisor -n '__fish_seen_subcommand_from run' -l %s", o->name);
        if (o->letter)
            printf(" -s %c", o->letter);
        if (o->type != OPTION_FLAG)
            printf(wants_file(o) || wants_directory(o) ? " -r -F" : " -x");
        if (has_values(o)) {
            printf(" -a '");
            print_values(o);
            printf("'");
        }
        printf(" -d '");
        print_summary(o);
        printf("'\n");
    }
}

int cmd_completion(int argc, char **argv)
{
    if (argc != 1)
        return failure("completion takes one shell: bash, zsh or fish");
    if (!strcmp(argv[0], "bash"))
        print_bash();
    else if (!strcmp(argv[0], "zsh"))
        print_zsh();
    else if (!strcmp(argv[0], "fish"))
        print_fish();
    else
        return failure("no completion for '%s': it is bash, zsh or fish", argv[0]);
    return 0;
}
