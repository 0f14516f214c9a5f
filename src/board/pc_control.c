/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of a running machine (docs/control.md). On the event loop, VM lock not held. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "board/pc_priv.h"
#include "control/server.h"
#include "dev/chipset/acpi_pm.h"

/* As if the process had been killed: whoever waits for it sees that the guest did not end by
 * itself. */
#define KILLED_STATUS (128 + 9)

/* Of a string in a reply; longer ones are cut. */
#define TEXT_MAX 200
#define NS_PER_MS 1000000u

/* JSON strings are UTF-8, and an option's value may be anything: what is not printable ASCII
 * becomes a question mark where the whole is no UTF-8, or is cut. */
static json_t *text(const char *s)
{
    char copy[TEXT_MAX + 1];
    size_t n = strnlen(s, TEXT_MAX + 1);

    json_t *t = n <= TEXT_MAX ? json_string(s) : NULL;

    if (t)
        return t;
    n = n > TEXT_MAX ? TEXT_MAX : n;
    for (size_t i = 0; i < n; i++)
        copy[i] = s[i] < ' ' || s[i] > '~' ? '?' : s[i];
    copy[n] = 0;
    return json_string(copy);
}

static json_t *texts(const struct config_list *list)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < list->n; i++)
        json_array_append_new(array, text(list->item[i]));
    return array;
}

static void add_state(const struct pc *pc, json_t *reply)
{
    bool paused = __atomic_load_n(&pc->vm.pauses, __ATOMIC_SEQ_CST);

    json_object_set_new(reply, "state", json_string(paused ? "paused" : "running"));
}

static int status(void *opaque, json_t *reply, char *err, size_t err_size)
{
    struct pc *pc = opaque;
    const struct config *cfg = pc->cfg;

    (void)err;
    (void)err_size;
    json_object_set_new(reply, "name", text(pc->ends.name));
    json_object_set_new(reply, "pid", json_integer(getpid()));
    json_object_set_new(reply, "version", text(pc->ends.version));
    add_state(pc, reply);
    json_object_set_new(reply, "engine", text(pc->vm.engine->name));
    json_object_set_new(reply, "cpus", json_integer((json_int_t)cfg->cpus));
    json_object_set_new(reply, "memory", json_integer((json_int_t)cfg->memory));
    json_object_set_new(
        reply, "uptime_ms",
        json_integer((json_int_t)((host_monotonic_ns() - pc->started) / NS_PER_MS)));
    json_object_set_new(reply, "guest_ms",
                        json_integer((json_int_t)(vm_clock_ns(&pc->vm) / NS_PER_MS)));
    json_object_set_new(reply, "disks", texts(&cfg->disk));
    json_object_set_new(reply, "nets", texts(&cfg->net));
    return 0;
}

/* A machine that is ending does nothing any more. */
static int ending(const struct pc *pc, char *err, size_t err_size)
{
    if (__atomic_load_n(&pc->vm.stop_reason, __ATOMIC_ACQUIRE) == VM_RUNNING)
        return 0;
    snprintf(err, err_size, "the machine is ending");
    return -ESHUTDOWN;
}

/* Whoever pauses, all requests together hold one pause; a debugger's are its own. */
static int pause_vm(void *opaque, json_t *reply, char *err, size_t err_size)
{
    struct pc *pc = opaque;
    int r = ending(pc, err, err_size);

    if (r)
        return r;
    if (!pc->paused)
        vm_pause(&pc->vm);
    pc->paused = true;
    add_state(pc, reply);
    return 0;
}

static int resume_vm(void *opaque, json_t *reply, char *err, size_t err_size)
{
    struct pc *pc = opaque;
    int r = ending(pc, err, err_size);

    if (r)
        return r;
    if (pc->paused)
        vm_resume(&pc->vm);
    pc->paused = false;
    add_state(pc, reply);
    return 0;
}

static int stop(void *opaque, json_t *reply, char *err, size_t err_size)
{
    struct pc *pc = opaque;
    int r = ending(pc, err, err_size);
    bool listening;

    if (r)
        return r;
    if (__atomic_load_n(&pc->vm.pauses, __ATOMIC_SEQ_CST)) {
        snprintf(err, err_size, "the machine is paused: it cannot shut down before it is resumed");
        return -EBUSY;
    }
    vm_lock(&pc->vm);
    listening = acpi_pm_power_button(pc->pm);
    vm_unlock(&pc->vm);
    json_object_set_new(reply, "listening", json_boolean(listening));
    return 0;
}

static int kill_vm(void *opaque, json_t *reply, char *err, size_t err_size)
{
    struct pc *pc = opaque;

    (void)reply;
    (void)err;
    (void)err_size;
    vm_stop(&pc->vm, VM_QUIT, KILLED_STATUS, "ended by a kill request");
    return 0;
}

static void add_counter(void *opaque, const char *name, u64 value)
{
    json_object_set_new(opaque, name, json_integer((json_int_t)value));
}

static int stats(void *opaque, json_t *reply, char *err, size_t err_size)
{
    struct pc *pc = opaque;
    json_t *counters = json_object();

    (void)err;
    (void)err_size;
    if (pc->vm.engine->stats)
        pc->vm.engine->stats(&pc->vm, add_counter, counters);
    json_object_set_new(reply, "engine", text(pc->vm.engine->name));
    json_object_set_new(reply, "counters", counters);
    return 0;
}

int pc_open_control(struct pc *pc)
{
    static const struct control_command commands[] = {
        {"status", status}, {"pause", pause_vm}, {"resume", resume_vm}, {"stop", stop},
        {"kill", kill_vm},  {"stats", stats},    {NULL, NULL},
    };
    int fd = pc->ends.control_fd;

    if (fd < 0)
        return 0;
    pc->ends.control_fd = -1;
    pc->control = control_server_open(fd, commands, pc, pc->err, pc->err_size);
    return pc->control ? 0 : -EINVAL;
}
