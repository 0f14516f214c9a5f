/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor ps, pause, resume, stop, kill and stats: what is asked of machines that run. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "commands.h"
#include "control_client.h"
#include "core/host.h"
#include "host/rundir.h"

#define ERR_SIZE 512
#define ASK_MS 10000
/* One that does not answer must not make the list of all wait for long. */
#define PS_MS 2000

/* Whether the machine listens to its power button is asked again soon; whether somebody in the
 * guest had come to listen to the driver is not known: it is pressed again after a while. */
#define STOP_SECONDS 60
#define TIMEOUT_SECONDS_MAX 86400
#define NOT_LISTENING_MS 500
#define PRESS_AGAIN_MS 10000

#define KILL_ASK_MS 3000
#define KILL_END_MS 10000

/* --- ps --- */

struct ps {
    bool json;
    unsigned n;
    json_t *all; /* with json */
};

/* A number of a reply; false: there is none that makes sense. */
static bool number(const json_t *reply, const char *key, u64 *v)
{
    const json_t *n = json_object_get(reply, key);

    if (!json_is_integer(n) || json_integer_value(n) < 0)
        return false;
    *v = (u64)json_integer_value(n);
    return true;
}

static const char *duration(u64 s, char *out, size_t size)
{
    if (s < 60)
        snprintf(out, size, "%us", (unsigned)s);
    else if (s < 3600)
        snprintf(out, size, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
    else if (s < 86400)
        snprintf(out, size, "%uh%02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
    else
        snprintf(out, size, "%llud%02uh", (unsigned long long)(s / 86400),
                 (unsigned)(s / 3600 % 24));
    return out;
}

static const char *size_text(u64 bytes, char *out, size_t size)
{
    if (bytes % (1ull << 30) == 0)
        snprintf(out, size, "%lluG", (unsigned long long)(bytes >> 30));
    else
        snprintf(out, size, "%lluM", (unsigned long long)(bytes >> 20));
    return out;
}

static void print_row(const char *name, pid_t pid, const json_t *reply)
{
    char state[16], engine[16], cpus[24] = "-", memory[24] = "-", uptime[32] = "-";
    u64 v;

    control_text(json_object_get(reply, "state"), state, sizeof(state));
    control_text(json_object_get(reply, "engine"), engine, sizeof(engine));
    if (number(reply, "cpus", &v))
        snprintf(cpus, sizeof(cpus), "%llu", (unsigned long long)v);
    if (number(reply, "memory", &v))
        size_text(v, memory, sizeof(memory));
    if (number(reply, "uptime_ms", &v))
        duration(v / 1000, uptime, sizeof(uptime));
    printf("%-24s %7d  %-8s %-6s %4s %8s %8s\n", name, (int)pid, reply ? state : "unknown", engine,
           cpus, memory, uptime);
}

static void list_one(void *opaque, const char *name, pid_t pid)
{
    struct ps *ps = opaque;
    char err[ERR_SIZE];
    json_t *reply = control_ask(name, "status", PS_MS, err, sizeof(err));

    ps->n++;
    if (!reply)
        failure("%s", err);
    if (ps->json) {
        if (!reply)
            reply = json_pack("{s:s, s:i, s:s}", "name", name, "pid", (int)pid, "state", "unknown");
        json_object_del(reply, "ok");
        json_array_append(ps->all, reply);
    } else {
        if (ps->n == 1)
            printf("%-24s %7s  %-8s %-6s %4s %8s %8s\n", "NAME", "PID", "STATE", "ENGINE", "CPUS",
                   "MEMORY", "UPTIME");
        print_row(name, pid, reply);
    }
    json_decref(reply);
}

int cmd_ps(int argc, char **argv)
{
    char err[ERR_SIZE];
    struct ps ps = {.json = argc == 1 && !strcmp(argv[0], "--json")};
    int dir, r = 0;

    if (argc && !ps.json)
        return failure("ps takes --json or nothing");
    dir = rundir_open(false, err, sizeof(err));
    if (dir < 0 && dir != -ENOENT)
        return failure("%s", err);
    ps.all = json_array();
    if (dir >= 0) {
        r = rundir_list(dir, list_one, &ps);
        close(dir);
    }
    if (r)
        failure("cannot list the running machines: %s", strerror(-r));
    else if (ps.json)
        control_print_json(ps.all);
    else if (!ps.n)
        fprintf(stderr, "trivisor: no machine runs\n");
    json_decref(ps.all);
    return r ? EXIT_STATUS_FAILURE : 0;
}

/* --- pause, resume, stats --- */

static int ask(const char *command, int argc, char **argv, json_t **reply)
{
    char err[ERR_SIZE];

    if (argc != 1)
        return failure("%s takes the name of a machine; trivisor ps lists those that run", command);
    *reply = control_ask(argv[0], command, ASK_MS, err, sizeof(err));
    return *reply ? 0 : failure("%s", err);
}

int cmd_pause(int argc, char **argv)
{
    json_t *reply;
    int r = ask("pause", argc, argv, &reply);

    if (!r)
        json_decref(reply);
    return r;
}

int cmd_resume(int argc, char **argv)
{
    char state[16];
    json_t *reply;
    int r = ask("resume", argc, argv, &reply);

    if (r)
        return r;
    control_text(json_object_get(reply, "state"), state, sizeof(state));
    if (!strcmp(state, "paused"))
        fprintf(stderr, "trivisor: '%s' is still stopped, by its debugger\n", argv[0]);
    json_decref(reply);
    return 0;
}

int cmd_stats(int argc, char **argv)
{
    bool json = argc && !strcmp(argv[argc - 1], "--json");
    json_t *reply, *counters, *value;
    const char *key;
    int r = ask("stats", argc - json, argv, &reply);

    if (r)
        return r;
    counters = json_object_get(reply, "counters");
    if (json)
        control_print_json(counters);
    else
        json_object_foreach(counters, key, value)
        {
            char name[64];
            json_t *k = json_string(key);

            printf("%-20s %llu\n", control_text(k, name, sizeof(name)),
                   (unsigned long long)json_integer_value(value));
            json_decref(k);
        }
    json_decref(reply);
    return 0;
}

/* --- stop, kill --- */

int take_timeout(int argc, char **argv, const char **words, int max, u64 *seconds)
{
    int n = 0;

    for (int i = 0; i < argc; i++) {
        bool joined = !strncmp(argv[i], "--timeout=", 10);

        if (joined || !strcmp(argv[i], "--timeout")) {
            const char *value = joined ? argv[i] + 10 : i + 1 < argc ? argv[++i] : "";
            char *end;

            *seconds = strtoull(value, &end, 10);
            if (value[0] < '0' || value[0] > '9' || *end || !*seconds ||
                *seconds > TIMEOUT_SECONDS_MAX) {
                failure("--timeout is a number of seconds from 1 to %d", TIMEOUT_SECONDS_MAX);
                return -1;
            }
        } else if (n == max || argv[i][0] == '-') {
            return 0;
        } else {
            words[n++] = argv[i];
        }
    }
    return n;
}

/* Presses the power button until the machine has ended or the time is over. */
static int press(const char *name, int process, u64 seconds)
{
    u64 end = host_monotonic_ns() + seconds * 1000000000ull;
    bool listening = false, told = false;
    char err[ERR_SIZE];

    for (;;) {
        json_t *reply = control_ask(name, "stop", ASK_MS, err, sizeof(err));
        u64 now = host_monotonic_ns(), wait;

        /* It may have ended instead of answering. */
        if (!reply)
            return control_ended(process, NOT_LISTENING_MS) ? 0 : failure("%s", err);
        listening = listening || json_is_true(json_object_get(reply, "listening"));
        json_decref(reply);
        if (!listening && !told && now < end) {
            fprintf(stderr,
                    "trivisor: '%s' does not listen to its power button: its kernel has no driver "
                    "for it, or none that is loaded yet; waiting for %llu s\n",
                    name, (unsigned long long)seconds);
            told = true;
        }
        wait = listening ? PRESS_AGAIN_MS : NOT_LISTENING_MS;
        if (now >= end)
            wait = 0;
        else if (wait > (end - now) / 1000000)
            wait = (end - now) / 1000000 + 1;
        if (control_ended(process, wait))
            return 0;
        if (host_monotonic_ns() >= end)
            break;
    }
    if (listening)
        return failure("'%s' was asked to shut down %llu s ago and runs still; trivisor kill %s "
                       "cuts its power",
                       name, (unsigned long long)seconds, name);
    return failure("'%s' still does not listen; trivisor kill %s cuts its power", name, name);
}

int cmd_stop(int argc, char **argv)
{
    u64 seconds = STOP_SECONDS;
    const char *name = NULL;
    char err[ERR_SIZE];
    int process, r = take_timeout(argc, argv, &name, 1, &seconds);

    if (r < 0)
        return EXIT_STATUS_FAILURE;
    if (!r)
        return failure("stop takes the name of a machine and --timeout SECONDS");
    process = control_process(name, err, sizeof(err));
    if (process < 0)
        return failure("%s", err);
    r = press(name, process, seconds);
    close(process);
    return r;
}

int cmd_kill(int argc, char **argv)
{
    char err[ERR_SIZE];
    int process, r = 0;
    json_t *reply;

    if (argc != 1)
        return failure("kill takes the name of a machine; trivisor ps lists those that run");
    process = control_process(argv[0], err, sizeof(err));
    if (process < 0)
        return failure("%s", err);
    reply = control_ask(argv[0], "kill", KILL_ASK_MS, err, sizeof(err));
    if (!control_ended(process, reply ? KILL_END_MS : NOT_LISTENING_MS)) {
        failure("'%s' does not end by itself: its process is killed", argv[0]);
        if (syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0) && errno != ESRCH)
            r = failure("cannot kill it: %s", strerror(errno));
        else if (!control_ended(process, KILL_END_MS))
            r = failure("it was killed and has not ended; the host's disk may be what it waits "
                        "for");
    }
    json_decref(reply);
    close(process);
    return r;
}
