/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of the program. Each takes the words behind its name and returns the exit status. */
#ifndef TRIVISOR_APP_COMMANDS_H
#define TRIVISOR_APP_COMMANDS_H

#include <stdio.h>

#define EXIT_STATUS_FAILURE 125

int cmd_run(int argc, char **argv);
int cmd_completion(int argc, char **argv);
int cmd_console(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_stats(int argc, char **argv);
int cmd_stop(int argc, char **argv);

/* Their names, NULL behind the last. */
extern const char *const command_names[];

extern const char program_version[];

/* The help text of `trivisor run`. */
void print_run_help(FILE *out);

/* One line on stderr, prefixed by the program's name. Returns EXIT_STATUS_FAILURE. */
int failure(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
