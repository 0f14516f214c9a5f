/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of the program. Each takes the words behind its name and returns the exit status. */
#ifndef TRIVISOR_APP_COMMANDS_H
#define TRIVISOR_APP_COMMANDS_H

#include <stdio.h>

#include "base/types.h"

#define EXIT_STATUS_FAILURE 125

int cmd_run(int argc, char **argv);
int cmd_completion(int argc, char **argv);
int cmd_console(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_plug(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_stats(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_unplug(int argc, char **argv);

/* Their names, NULL behind the last. */
extern const char *const command_names[];

extern const char program_version[];

/* The help text of `trivisor run`. */
void print_run_help(FILE *out);

/* One line on stderr, prefixed by the program's name. Returns EXIT_STATUS_FAILURE. */
int failure(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Takes `--timeout S` out of words that are up to max others, in any order. How many there are; 0:
 * too many, or an unknown option; -1: no number of seconds, and a line was printed. */
int take_timeout(int argc, char **argv, const char **words, int max, u64 *seconds);

#endif
