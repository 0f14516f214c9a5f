/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of a running machine (docs/control.md). On the event loop, VM lock not held. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "board/pc_priv.h"
#include "board/pc_save.h"
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
json_t *pc_control_text(const char *s)
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

/* The options' values of what there is of a kind. */
static json_t *values(const json_t *devices, const char *kind)
{
    json_t *array = json_array(), *one;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)devices, i, one)
    {
        if (!strcmp(json_string_value(json_object_get(one, "kind")), kind))
            json_array_append(array, json_object_get(one, "value"));
    }
    return array;
}

static void add_state(const struct pc *pc, json_t *reply)
{
    bool paused = __atomic_load_n(&pc->vm.pauses, __ATOMIC_SEQ_CST);

    json_object_set_new(reply, "state", json_string(paused ? "paused" : "running"));
}

static int status(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    const struct config *cfg = pc->cfg;
    json_t *devices = pc_plug_list(pc);

    json_object_set_new(call->reply, "name", pc_control_text(pc->ends.name));
    json_object_set_new(call->reply, "pid", json_integer(getpid()));
    json_object_set_new(call->reply, "version", pc_control_text(pc->ends.version));
    add_state(pc, call->reply);
    json_object_set_new(call->reply, "engine", pc_control_text(pc->vm.engine->name));
    json_object_set_new(call->reply, "cpus", json_integer((json_int_t)cfg->cpus));
    json_object_set_new(call->reply, "memory", json_integer((json_int_t)cfg->memory));
    json_object_set_new(
        call->reply, "uptime_ms",
        json_integer((json_int_t)((host_monotonic_ns() - pc->started) / NS_PER_MS)));
    json_object_set_new(call->reply, "guest_ms",
                        json_integer((json_int_t)(vm_clock_ns(&pc->vm) / NS_PER_MS)));
    json_object_set_new(call->reply, "disks", values(devices, "disk"));
    json_object_set_new(call->reply, "nets", values(devices, "net"));
    json_decref(devices);
    return 0;
}

/* A machine that is ending does nothing any more. */
static int ending(const struct pc *pc, const struct control_call *call)
{
    if (vm_is_running(&pc->vm))
        return 0;
    snprintf(call->err, call->err_size, "the machine is ending");
    return -ESHUTDOWN;
}

/* Whoever pauses, all requests together hold one pause; a debugger's are its own. */
static int pause_vm(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    int r = ending(pc, call);

    if (r)
        return r;
    if (!pc->paused)
        vm_pause(&pc->vm);
    pc->paused = true;
    add_state(pc, call->reply);
    return 0;
}

static int resume_vm(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    int r = ending(pc, call);

    if (r)
        return r;
    if (pc->paused)
        vm_resume(&pc->vm);
    pc->paused = false;
    add_state(pc, call->reply);
    return 0;
}

static int stop(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    int r = ending(pc, call);
    bool listening;

    if (r)
        return r;
    if (__atomic_load_n(&pc->vm.pauses, __ATOMIC_SEQ_CST)) {
        snprintf(call->err, call->err_size,
                 "the machine is paused: it cannot shut down before it is resumed");
        return -EBUSY;
    }
    vm_lock(&pc->vm);
    listening = acpi_pm_power_button(pc->pm);
    vm_unlock(&pc->vm);
    json_object_set_new(call->reply, "listening", json_boolean(listening));
    return 0;
}

static int kill_vm(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;

    (void)call;
    vm_stop(&pc->vm, VM_QUIT, KILLED_STATUS, "ended by a kill request");
    return 0;
}

static void add_counter(void *opaque, const char *name, u64 value)
{
    json_object_set_new(opaque, name, json_integer((json_int_t)value));
}

static int stats(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    json_t *counters = json_object();

    if (pc->vm.engine->stats)
        pc->vm.engine->stats(&pc->vm, add_counter, counters);
    json_object_set_new(call->reply, "engine", pc_control_text(pc->vm.engine->name));
    json_object_set_new(call->reply, "counters", counters);
    return 0;
}

static bool wanted(void *opaque)
{
    return !control_client_gone(opaque);
}

/* The guest stands still, and so does this thread, until all is written. */
static int snapshot(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    struct pc_save_result result;
    struct pc_save_options opt = {
        .stop = json_is_true(json_object_get(call->request, "stop")),
        .compress = json_is_true(json_object_get(call->request, "compress")),
        .wanted = wanted,
        .opaque = (void *)(uintptr_t)call,
    };
    int r = ending(pc, call);

    if (r)
        return r;
    if (call->fds->n != 1) {
        snprintf(call->err, call->err_size,
                 "the descriptor of a file to write to is to come with the request");
        return -EINVAL;
    }
    r = pc_save(pc, call->fds->fd[0], &opt, &result, call->err, call->err_size);
    if (r)
        return r;
    add_state(pc, call->reply);
    json_object_set_new(call->reply, "bytes", json_integer((json_int_t)result.bytes));
    json_object_set_new(call->reply, "memory", json_integer((json_int_t)result.memory));
    json_object_set_new(call->reply, "stood_ms",
                        json_integer((json_int_t)(result.stood_ns / NS_PER_MS)));
    return 0;
}

static int plug(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    const char *disk = json_string_value(json_object_get(call->request, "disk"));
    const char *net = json_string_value(json_object_get(call->request, "net"));
    int r = ending(pc, call);

    if (r)
        return r;
    if (!disk == !net) {
        snprintf(call->err, call->err_size, "what is to be plugged? disk or net says it");
        return -EINVAL;
    }
    return disk ? pc_plug_disk(pc, disk, call) : pc_plug_net(pc, net, call);
}

static int unplug(void *opaque, const struct control_call *call)
{
    struct pc *pc = opaque;
    const char *device = json_string_value(json_object_get(call->request, "device"));
    int r = ending(pc, call);

    if (r)
        return r;
    if (!device) {
        snprintf(call->err, call->err_size, "device is missing: which one is to be unplugged");
        return -EINVAL;
    }
    return pc_unplug(pc, device, call);
}

static int devices(void *opaque, const struct control_call *call)
{
    json_object_set_new(call->reply, "devices", pc_plug_list(opaque));
    return 0;
}

int pc_open_control(struct pc *pc)
{
    static const struct control_member snapshot_members[] = {
        {"stop", CONTROL_BOOLEAN}, {"compress", CONTROL_BOOLEAN}, {NULL, CONTROL_BOOLEAN}};
    static const struct control_member plug_members[] = {
        {"disk", CONTROL_STRING}, {"net", CONTROL_STRING}, {NULL, CONTROL_STRING}};
    static const struct control_member unplug_members[] = {{"device", CONTROL_STRING},
                                                           {NULL, CONTROL_STRING}};
    static const struct control_command commands[] = {
        {"status", status, NULL},
        {"pause", pause_vm, NULL},
        {"resume", resume_vm, NULL},
        {"stop", stop, NULL},
        {"kill", kill_vm, NULL},
        {"stats", stats, NULL},
        {"snapshot", snapshot, snapshot_members},
        {"plug", plug, plug_members},
        {"unplug", unplug, unplug_members},
        {"devices", devices, NULL},
        {NULL, NULL, NULL},
    };
    int fd = pc->ends.control_fd;

    if (fd < 0)
        return 0;
    pc->ends.control_fd = -1;
    pc->control = control_server_open(fd, commands, pc, pc->err, pc->err_size);
    return pc->control ? 0 : -EINVAL;
}
