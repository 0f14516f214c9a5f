/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor plug, unplug and devices: disks and networks of a machine that runs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "board/plug.h"
#include "commands.h"
#include "config/config.h"
#include "control_client.h"
#include "core/host.h"

#define ERR_SIZE 512
#define ASK_MS 10000
/* Opening a large image takes time. */
#define PLUG_MS 120000

#define UNPLUG_SECONDS 30
#define POLL_NS 50000000
/* One that does not listen was asked in vain. One that does is not asked twice: it would eject what
 * comes into the slot next. */
#define ASK_AGAIN_NS 500000000u

/* --- plug --- */

int cmd_plug(int argc, char **argv)
{
    struct plug_parts parts;
    struct config cfg;
    json_t *request, *reply = NULL;
    char err[ERR_SIZE], id[80], *text = NULL;
    int process;

    if (!argc || argv[0][0] == '-')
        return failure("plug takes the name of a machine, and then --disk or --net");
    config_defaults(&cfg);
    if (config_parse_plug(&cfg, argc - 1, argv + 1, err, sizeof(err)))
        return failure("%s", err);
    process = control_process(argv[0], err, sizeof(err));
    if (process < 0)
        return failure("%s", err);
    close(process);
    if (plug_open(&cfg, &parts, err, sizeof(err))) {
        config_as_typed(err, sizeof(err), argc - 1, argv + 1);
        return failure("%s", err);
    }
    request = json_pack("{s:s, s:s}", "command", "plug", parts.member, parts.value);
    if (request)
        text = json_dumps(request, JSON_COMPACT);
    if (text)
        reply = control_request(argv[0], text, parts.fd, parts.nfds, PLUG_MS, err, sizeof(err));
    else
        snprintf(err, sizeof(err), "%s: it is no UTF-8", parts.value);
    free(text);
    json_decref(request);
    plug_close(&parts);
    if (!reply)
        return failure("%s", err);
    printf("%s\n", control_text(json_object_get(reply, "device"), id, sizeof(id)));
    if (!json_is_true(json_object_get(reply, "listening")))
        fprintf(stderr,
                "trivisor: '%s' has no driver for hot-plug, or none yet: its guest finds %s when "
                "it looks for devices\n",
                argv[0], id);
    json_decref(reply);
    return 0;
}

/* --- unplug --- */

struct unplug {
    const char *name, *id;
    u64 seconds;
    json_int_t slot;
    bool listening;
};

/* 0, or an exit status; a line was printed. */
static int ask(struct unplug *u)
{
    json_t *request = json_pack("{s:s, s:s}", "command", "unplug", "device", u->id), *reply = NULL;
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL, err[ERR_SIZE] = "no such id";

    if (text)
        reply = control_request(u->name, text, NULL, 0, ASK_MS, err, sizeof(err));
    free(text);
    json_decref(request);
    if (!reply)
        return failure("%s", err);
    u->slot = json_integer_value(json_object_get(reply, "slot"));
    u->listening = json_is_true(json_object_get(reply, "listening"));
    json_decref(reply);
    return 0;
}

/* Whether it is still there; -1: the machine does not say, a line was printed. */
static int is_there(const struct unplug *u)
{
    char err[ERR_SIZE];
    json_t *reply = control_ask(u->name, "devices", ASK_MS, err, sizeof(err)), *one;
    int there = 0;
    size_t i;

    if (!reply) {
        failure("%s", err);
        return -1;
    }
    json_array_foreach(json_object_get(reply, "devices"), i, one)
    {
        const char *id = json_string_value(json_object_get(one, "device"));

        there |=
            id && !strcmp(id, u->id) && json_integer_value(json_object_get(one, "slot")) == u->slot;
    }
    json_decref(reply);
    return there;
}

static int wait_for_it(struct unplug *u)
{
    struct timespec nap = {.tv_nsec = POLL_NS};
    u64 asked = host_monotonic_ns(), end = asked + u->seconds * 1000000000ull, now = asked;
    int there;

    while ((there = is_there(u)) > 0 && now < end) {
        nanosleep(&nap, NULL);
        now = host_monotonic_ns();
        if (!u->listening && now - asked > ASK_AGAIN_NS) {
            int r = ask(u);

            if (r)
                return is_there(u) ? r : 0;
            asked = now;
        }
    }
    if (there <= 0)
        return there ? EXIT_STATUS_FAILURE : 0;
    if (u->listening)
        return failure("'%s' was asked to eject %s %llu s ago and has not yet: its guest may still "
                       "do so",
                       u->name, u->id, (unsigned long long)u->seconds);
    return failure("'%s' does not listen: its guest has no driver for hot-plug, or none that is "
                   "loaded; %s stays",
                   u->name, u->id);
}

int cmd_unplug(int argc, char **argv)
{
    struct unplug u = {.seconds = UNPLUG_SECONDS};
    const char *words[2] = {NULL, NULL};
    int n = take_timeout(argc, argv, words, 2, &u.seconds), r;

    if (n < 0)
        return EXIT_STATUS_FAILURE;
    if (n != 2)
        return failure("unplug takes the name of a machine, the id of a device of its, and "
                       "--timeout SECONDS; trivisor devices lists them");
    u.name = words[0];
    u.id = words[1];
    r = ask(&u);
    return r ? r : wait_for_it(&u);
}

/* --- devices --- */

static void print_device(const json_t *one)
{
    char id[40], kind[8], state[16], value[300];

    printf("%-16s %-5s 00:%02llx.0 %-10s %s\n",
           control_text(json_object_get(one, "device"), id, sizeof(id)),
           control_text(json_object_get(one, "kind"), kind, sizeof(kind)),
           (unsigned long long)json_integer_value(json_object_get(one, "slot")) & 31,
           control_text(json_object_get(one, "state"), state, sizeof(state)),
           control_text(json_object_get(one, "value"), value, sizeof(value)));
}

int cmd_devices(int argc, char **argv)
{
    bool json = argc && !strcmp(argv[argc - 1], "--json");
    json_t *reply, *list, *one;
    char err[ERR_SIZE];
    size_t i;

    if (argc - json != 1)
        return failure("devices takes the name of a machine; trivisor ps lists those that run");
    reply = control_ask(argv[0], "devices", ASK_MS, err, sizeof(err));
    if (!reply)
        return failure("%s", err);
    list = json_object_get(reply, "devices");
    if (json) {
        control_print_json(list);
    } else {
        printf("%-16s %-5s %-7s %-10s %s\n", "DEVICE", "KIND", "PLACE", "STATE", "VALUE");
        json_array_foreach(list, i, one)
        {
            print_device(one);
        }
    }
    json_decref(reply);
    return 0;
}
